"""Reads STORE_URL where it names servers of Redis or Valkey."""

import re
from dataclasses import field
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit

from otpmail.settings.helo import is_host_name
from otpmail.settings.hosts import is_ip_address
from otpmail.values import frozen

Layout = Literal["single", "sentinel", "cluster"]

_LAYOUTS: dict[str, tuple[Layout, bool]] = {
    "redis": ("single", False),
    "rediss": ("single", True),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
_FORMS = {
    "single": "redis://user:password@host:6379/0",
    "sentinel": "redis+sentinel://user:password@host:26379,host:26379/service/0",
    "cluster": "redis+cluster://user:password@host:6379,host:6379",
}
_PORTS = {"single": 6379, "sentinel": 26379, "cluster": 6379}
_MOST_DATABASES = 1 << 16
_NO_CODE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ENCODING = "write @ / ? # and % as %40 %2F %3F %23 %25"


@frozen()
class RedisUrl:
    """Servers of Redis or Valkey: one, the Sentinels of a `service`, or some nodes of a cluster. `tls`: all of them."""

    layout: Layout
    tls: bool
    hosts: tuple[tuple[str, int], ...]
    user: str
    password: str = field(repr=False)
    database: int
    service: str

    @property
    def endpoint(self) -> str:
        """The servers as a log names them: without user and password."""
        return ", ".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)


def is_redis(text: str) -> bool:
    """Whether a text has a scheme of Redis, with its colon."""
    scheme, colon, _ = text.partition(":")
    return bool(colon) and scheme.lower() in _LAYOUTS


def parse_redis_url(text: str) -> RedisUrl:
    """Read a URL. Raises ValueError, which names the wrong part and repeats nothing that may be a password."""
    layout, tls = _LAYOUTS[text.partition(":")[0].lower()]
    form = _FORMS[layout].replace("redis", "rediss", 1) if tls else _FORMS[layout]
    if text.partition(":")[2][:2] != "//":
        raise ValueError(f"must be {form}")
    url = _split(text, form)
    credentials, at, named = url.netloc.rpartition("@")
    hosts = _hosts(named, layout, form)
    database, service = _path(url, layout, form)
    user, _, password = credentials.partition(":") if at else ("", "", "")
    return RedisUrl(layout, tls, hosts, _decoded(user, "user"), _decoded(password, "password"), database, service)


def _split(text: str, form: str) -> SplitResult:
    try:
        url = urlsplit(text)
    except ValueError:  # brackets, or a letter that reads as another
        raise ValueError(f"has a host that is neither a name nor an IP address; write {form}") from None
    if "@" in url.path + url.query + url.fragment:
        raise ValueError(f"has a user or password with a / ? or # that is not encoded; {_ENCODING}")
    if url.query or url.fragment:
        raise ValueError("has options, which are settings here: STORE_CA_FILE, STORE_TLS_NAME and others")
    return url


def _hosts(text: str, layout: Layout, form: str) -> tuple[tuple[str, int], ...]:
    hosts = tuple(_host(part, _PORTS[layout], form) for part in text.split(","))
    if layout == "single" and len(hosts) > 1:
        raise ValueError("names several hosts; write redis+sentinel:// or redis+cluster://")
    return hosts


def _host(text: str, default: int, form: str) -> tuple[str, int]:
    host, port = text, ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")) or ":" not in host:
            raise ValueError(f"has a host that is neither a name nor an IP address; write {form}")
        port = rest[1:]
    elif ":" in text:
        host, _, port = text.partition(":")
    if not host:
        raise ValueError(f"has no host; write {form}")
    if not (is_host_name(host.replace("_", "-")) or is_ip_address(host)):  # names of Compose services have _
        raise ValueError(f"has a host that is neither a name nor an IP address; write {form}")
    if not port:
        return host, default
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16):
        raise ValueError("has a port that is no whole number from 1 to 65535")
    return host, int(port)


def _path(url: SplitResult, layout: Layout, form: str) -> tuple[int, str]:
    """Return the number of the database, and the name of the Sentinels' service."""
    parts = url.path.strip("/").split("/") if url.path.strip("/") else []
    service = ""
    if layout == "sentinel":
        if not parts:
            raise ValueError(f"has no service, the name of the master that the Sentinels watch; write {form}")
        service = _decoded(parts.pop(0), "service")
    if layout == "cluster" and parts:
        raise ValueError("has a database, which no cluster has; leave out what follows the hosts")
    if not parts:
        return 0, service
    if len(parts) > 1 or not (parts[0].isascii() and parts[0].isdecimal()) or int(parts[0]) >= _MOST_DATABASES:
        raise ValueError(f"has a database that is no whole number below {_MOST_DATABASES}; write {form}")
    return int(parts[0]), service


def _decoded(text: str, part: str) -> str:
    if _NO_CODE.search(text):
        raise ValueError(f"has a % in the {part} that two hexadecimal digits do not follow; write % as %25")
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError(f"has a {part} that is not text in UTF-8 once its %-codes are decoded") from None
