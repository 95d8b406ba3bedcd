# Another shell that was asked to run the script, as by `sh scripts/run`, understands this file until here.
if [ -z "${BASH_VERSION:-}" ]; then
  echo "run it with bash: $0" >&2
  exit 2
fi

# Prints the comment at the head of the script that sources this, and ends the script, if it is asked for help.
for argument in "$@"; do
  case "$argument" in
    -h | --help)
      sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
      exit
      ;;
  esac
done
unset argument
