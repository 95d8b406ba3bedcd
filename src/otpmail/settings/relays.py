"""EMAIL_RELAYS: several relays in the order in which they are to be used, each as a URL."""

import re
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

# `smtp` asks for STARTTLS and does not go on without it; plain text has to be asked for by name.
_SECURITY = {"smtps": "tls", "smtp": "starttls", "smtp+starttls": "starttls", "smtp+plain": "plain"}
_OPTIONS = {"auth": "EMAIL_AUTH", "token_file": "EMAIL_TOKEN_FILE", "ca_file": "EMAIL_CA_FILE"}
_PORTS = {"tls": 465, "starttls": 587, "plain": 25}

# What the settings of the one relay are called in a URL.
_PARTS = {
    "EMAIL_HOST": "host",
    "EMAIL_PORT": "port",
    "EMAIL_SECURITY": "scheme",
    "EMAIL": "user",
    "APP_PASSWORD": "password",
    **{variable: option for option, variable in _OPTIONS.items()},
}
_FORM = "smtps://user:password@host:465"
_ENCODING = "in them , / ? # and space are written %2C %2F %3F %23 %20"


def urls(text: str) -> list[str]:
    """The URLs in the list, each still to be read."""
    return text.replace(",", " ").split()


def parse_relay(text: str) -> dict[str, str | None]:
    """The settings of one relay, by their names in the environment.

    A URL is `smtps://user:password@host:465`, with `smtp://` for STARTTLS and `smtp+plain://` for neither; user and
    password are percent-encoded. `?auth=`, `?token_file=` and `?ca_file=` are the EMAIL_ settings of these names.
    Raises ValueError, naming the part that is wrong, in words that repeat nothing which may be a password.
    """
    try:
        url = urlsplit(text)
    except ValueError:  # brackets, or a letter that reads as another
        raise ValueError("host: is no name and no IP address, of which one with colons stands in [ ]") from None
    if url.scheme not in _SECURITY or not text.lower().startswith(f"{url.scheme}://"):
        schemes = ", ".join(f"{scheme}://" for scheme in _SECURITY)
        raise ValueError(
            f"scheme: must be one of {schemes}, as in {_FORM}; is a comma or space before it in a password?"
        )
    if "@" in url.path + url.fragment or ("@" in url.query and "@" not in url.netloc):
        raise ValueError(f"user or password: seems to hold a / ? or # as it is; {_ENCODING}")
    if not url.hostname:
        raise ValueError(f"host: is missing; a relay is {_FORM}")
    if url.path not in ("", "/") or url.fragment:
        raise ValueError("behind the port: there may only be options, as ?auth=login&ca_file=ca.pem")
    security = _SECURITY[url.scheme]
    return {
        "EMAIL_HOST": url.hostname,
        "EMAIL_PORT": str(_port(url, _PORTS[security])),
        "EMAIL_SECURITY": security,
        "EMAIL": unquote(url.username or ""),
        "APP_PASSWORD": unquote(url.password or ""),
        **_options(url),
    }


def in_parts(line: str) -> str:
    """What is said about settings, said about the parts of a URL that stand for them."""
    return re.sub(r"\b(?:EMAIL_[A-Z_]+|EMAIL|APP_PASSWORD)\b", lambda name: _PARTS.get(name[0], name[0]), line)


def _port(url: SplitResult, default: int) -> int:
    try:
        port = default if url.port is None else url.port
    except ValueError:
        port = 0
    if not port:
        raise ValueError("port: must be a whole number from 1 to 65535")
    return port


def _options(url: SplitResult) -> dict[str, str | None]:
    options: dict[str, str | None] = {"EMAIL_AUTH": None, "EMAIL_TOKEN_FILE": None}
    for name, value in parse_qsl(url.query, keep_blank_values=True):
        if name not in _OPTIONS:
            shown = "option" if "@" in url.query else f"?{name}="  # with an @ it may be the rest of a password
            raise ValueError(f"{shown}: is none of the options, which are {', '.join(_OPTIONS)}")
        options[_OPTIONS[name]] = value
    return options
