"""Reads EMAIL_RELAYS: several relays in the order of their use, each as a URL."""

import re
from urllib.parse import SplitResult, unquote, urlsplit

from otpmail.settings.problems import Problem, Problems
from otpmail.settings.reader import read_section
from otpmail.settings.relay import RelaySettings
from otpmail.settings.sources import Sources

# `smtp` requires STARTTLS; plain text has to be asked for by name.
SECURITY = {"smtps": "tls", "smtp": "starttls", "smtp+starttls": "starttls", "smtp+plain": "plain"}
OPTIONS = {
    "auth": "EMAIL_AUTH",
    "token_file": "EMAIL_TOKEN_FILE",
    "password_file": "APP_PASSWORD_FILE",
    "ca_file": "EMAIL_CA_FILE",
    "cert_file": "EMAIL_CERT_FILE",
    "key_file": "EMAIL_KEY_FILE",
    "tls_name": "EMAIL_TLS_NAME",
    "helo": "EMAIL_HELO",
}
_OWN = ("EMAIL_AUTH", "EMAIL_TOKEN_FILE", "APP_PASSWORD_FILE", "EMAIL_TLS_NAME")
_PORTS = {"tls": 465, "starttls": 587, "plain": 25}

# The part of a URL that stands for a setting.
_PARTS = {
    "EMAIL_HOST": "host",
    "EMAIL_PORT": "port",
    "EMAIL_SECURITY": "scheme",
    "EMAIL": "user",
    "APP_PASSWORD": "password",
    **{variable: option for option, variable in OPTIONS.items()},
}
_NO_CODE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_FORM = "smtps://user:password@host:465"
_ENCODING = "write , / ? # and space as %2C %2F %3F %23 %20"


def read_relays(text: str, common: RelaySettings, sources: Sources, problems: Problems) -> tuple[RelaySettings, ...]:
    """Read the relays that `text`, the value of EMAIL_RELAYS, names; without any, `common` is the one relay.

    Timeouts, limits and all else that a URL does not say come from the EMAIL_ settings. Empty when EMAIL_RELAYS is
    wrong or misspelt.
    """
    if not problems.are_good("EMAIL_RELAYS"):
        return ()
    texts = urls(text)
    if not texts:
        for problem in common.without_user():
            problems.conclude(problem)
        return (common,)
    if "host" in common.model_fields_set:
        problems.conclude(
            Problem(
                "EMAIL_HOST: has no effect beside EMAIL_RELAYS, which names all relays; set one of the two",
                ("EMAIL_HOST",),
            )
        )
    relays: list[RelaySettings] = []
    places: dict[tuple[str, int], int] = {}
    for place, url in enumerate(texts, 1):
        relay, wrong = _read_relay(url, sources)
        for words in wrong:
            is_cut = place > 1 and words.startswith("scheme: must be ")
            hint = "; is a comma or space before it in a password?" if is_cut else ""
            problems.add(Problem(f"EMAIL_RELAYS: relay {place}: {words}{hint}", ("EMAIL_RELAYS",)))
        if relay is None:
            continue
        relays.append(relay)
        first = places.setdefault((relay.host, relay.port), place) if not wrong else place
        if first < place:
            again = f"its host and port are those of relay {first}; name each relay once"
            problems.add(Problem(f"EMAIL_RELAYS: relay {place}: {again}"))
    return tuple(relays)


def _read_relay(url: str, sources: Sources) -> tuple[RelaySettings | None, list[str]]:
    """One relay, unless `url` is no URL, and what is wrong with it."""
    try:
        entry = parse_relay(url)
    except ValueError as error:
        return None, [str(error)]
    problems = Problems()
    # Any part may be a password gone astray.
    relay = read_section(RelaySettings, sources, entry, problems, hidden=entry).from_url()
    for problem in relay.without_user():
        problems.conclude(problem)
    # A mistake in what all relays have in common is reported once, with the setting that makes it.
    own = [problem for problem in problems if not entry.keys().isdisjoint(problem.names)]
    return relay, [_in_parts(problem.line) for problem in own]


def urls(text: str) -> list[str]:
    """Split the value of EMAIL_RELAYS at commas and white space."""
    return text.replace(",", " ").split()


def parse_relay(text: str) -> dict[str, str | None]:
    """Read the URL of one relay into settings, by their names in the environment.

    A URL is `smtps://user:password@host:465`; `smtp://` stands for STARTTLS, `smtp+plain://` for neither. User and
    password are percent-encoded. `?password_file=` is APP_PASSWORD_FILE, and the other options are the EMAIL_ settings
    of their names.
    Raises ValueError that names the wrong part and repeats nothing which may be a password.
    """
    try:
        url = urlsplit(text)
    except ValueError:  # brackets, or a letter that reads as another
        raise ValueError("host: is neither a name nor an IP address; write an IPv6 address in [ ]") from None
    if url.scheme not in SECURITY or not text.lower().startswith(f"{url.scheme}://"):
        schemes = ", ".join(f"{scheme}://" for scheme in SECURITY)
        raise ValueError(f"scheme: must be one of {schemes}, as in {_FORM}")
    if "@" in url.path + url.fragment or ("@" in url.query and "@" not in url.netloc):
        raise ValueError(f"user or password: seems to hold a / ? or # that is not encoded; {_ENCODING}")
    if not url.hostname:
        raise ValueError(f"host: is missing; a relay is {_FORM}")
    if url.path not in ("", "/") or url.fragment:
        raise ValueError("after the port: only options may follow, as ?auth=login&ca_file=ca.pem")
    security = SECURITY[url.scheme]
    return {
        "EMAIL_HOST": url.hostname,
        "EMAIL_PORT": str(_port(url, _PORTS[security])),
        "EMAIL_SECURITY": security,
        "EMAIL": _decoded(url.username or "", "user"),
        "APP_PASSWORD": _decoded(url.password or "", "password"),
        **_options(url),
    }


def _decoded(text: str, part: str) -> str:
    """Decode a part of a URL. Raises ValueError, which names it, where a % begins no code or the octets no UTF-8."""
    if _NO_CODE.search(text):
        raise ValueError(f"{part}: holds a % that two hexadecimal digits do not follow; write % as %25")
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError(f"{part}: is not text in UTF-8 once its %-codes are decoded") from None


def _in_parts(line: str) -> str:
    """Name the parts of a URL in place of the settings that they stand for."""
    return re.sub(
        r"\b(?:EMAIL_[A-Z_]+|EMAIL|APP_PASSWORD_FILE|APP_PASSWORD)\b", lambda name: _PARTS.get(name[0], name[0]), line
    )


def _port(url: SplitResult, default: int) -> int:
    try:
        port = default if url.port is None else url.port
    except ValueError:
        port = 0
    if not port:
        raise ValueError("port: must be a whole number from 1 to 65535")
    return port


def _options(url: SplitResult) -> dict[str, str | None]:
    # A setting for one relay alone is not taken from the common ones.
    options: dict[str, str | None] = dict.fromkeys(_OWN)
    given: set[str] = set()
    for place, option in enumerate(filter(None, url.query.split("&")), 1):
        name, _, value = option.partition("=")
        if name not in OPTIONS:  # and may be the rest of a password
            raise ValueError(f"option {place}: is unknown; the options are {', '.join(OPTIONS)}")
        if name in given:
            raise ValueError(f"option {place}: {name} stands there twice")
        given.add(name)
        options[OPTIONS[name]] = _decoded(value, name)
    return options
