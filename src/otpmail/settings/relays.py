"""EMAIL_RELAYS: several relays in the order in which they are to be used, each as a URL."""

from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

# `smtp` asks for STARTTLS and does not go on without it; plain text has to be asked for by name.
_SECURITY = {"smtps": "tls", "smtp": "starttls", "smtp+starttls": "starttls", "smtp+plain": "plain"}
_OPTIONS = {"auth": "EMAIL_AUTH", "token_file": "EMAIL_TOKEN_FILE", "ca_file": "EMAIL_CA_FILE"}
_PORTS = {"tls": 465, "starttls": 587, "plain": 25}


def parse_relays(text: str) -> list[dict[str, str | None]]:
    """The settings of each relay by their names in the environment, in the order of the list.

    A URL is `smtps://user:password@host:465`, with `smtp://` for STARTTLS and `smtp+plain://` for neither; user and
    password are percent-encoded. `?auth=`, `?token_file=` and `?ca_file=` are the EMAIL_ settings of these names.
    Raises ValueError, in words that do not repeat a password.
    """
    return [_relay(place, url) for place, url in enumerate(text.replace(",", " ").split(), 1)]


def _relay(place: int, text: str) -> dict[str, str | None]:
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise ValueError(f"entry {place} is not a URL") from None
    if url.scheme not in _SECURITY:
        raise ValueError(f"entry {place} begins with none of {', '.join(f'{scheme}://' for scheme in _SECURITY)}")
    if not url.hostname:
        raise ValueError(f"entry {place} names no host")
    if url.path not in ("", "/") or url.fragment:
        raise ValueError(f"entry {place} has more behind its host than a port and ?options; is a / or # unencoded?")
    security = _SECURITY[url.scheme]
    return {
        "EMAIL_HOST": url.hostname,
        "EMAIL_PORT": str(port or _PORTS[security]),
        "EMAIL_SECURITY": security,
        "EMAIL": unquote(url.username or ""),
        "APP_PASSWORD": unquote(url.password or ""),
        **_options(place, url),
    }


def _options(place: int, url: SplitResult) -> dict[str, str | None]:
    options: dict[str, str | None] = {"EMAIL_AUTH": None, "EMAIL_TOKEN_FILE": None}
    for name, value in parse_qsl(url.query, keep_blank_values=True):
        if name not in _OPTIONS:
            raise ValueError(f"entry {place} has an option that is none of {', '.join(_OPTIONS)}")
        options[_OPTIONS[name]] = value
    return options
