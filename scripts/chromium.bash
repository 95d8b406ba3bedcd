# Whether Chromium is installed, or install_chromium can install it.
chromium_is_installable() {
  command -v chromium >/dev/null || { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }
}

# Installs Debian's Chromium, and the packages whose names follow, where they are missing: install_chromium PACKAGE...
install_chromium() {
  local missing=("$@")
  command -v chromium >/dev/null || missing+=(chromium)
  if [ "${#missing[@]}" != 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}"
  fi
}
