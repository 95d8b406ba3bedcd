"""Keeps web pages away from a service on loopback, and lets the origins in that a setting names (Fetch, section 3.2).

A page can send simple requests to any address, so the methods take bodies of JSON and protobuf only. By DNS rebinding a
page's own name can lead to loopback, so there the Host of a request must be a name of loopback.
"""

from collections.abc import Collection

from otpmail.callers import TRACE_KEYS
from otpmail.settings.hosts import is_loopback
from otpmail.web.exchange import Headers

_LONGEST = 300
_MOST_KNOWN = 64
_HEADERS = b", ".join(
    (
        b"authorization",
        b"content-type",
        b"content-encoding",
        b"connect-protocol-version",
        b"connect-timeout-ms",
        *(key.encode() for key in TRACE_KEYS),
    )
)


class Gate:
    """Decides by Host and Origin. With `on_loopback` only names of loopback may be the Host, or one of `hosts`.

    `origins` are those whose pages may call.
    """

    def __init__(self, *, on_loopback: bool, hosts: Collection[str] = (), origins: Collection[str] = ()) -> None:
        self.is_on_loopback = on_loopback
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origin.encode() for origin in origins)
        self._known: set[bytes] = set()  # values of Host that are good

    def __repr__(self) -> str:
        return f"<Gate{' on loopback' * self.is_on_loopback}, {len(self._origins)} origins>"

    def problem(self, headers: Headers) -> str:
        """Return why a request is not answered, empty where it is."""
        host = headers.get(b"host", b"")
        if self.is_on_loopback and host not in self._known and not self._is_ours(host):
            return "the Host of this request is no name of this machine's loopback"
        origin = headers.get(b"origin")
        if origin is not None and origin not in self._origins and not self._is_same(origin, host):
            return "pages of this origin may not call; HTTP_CORS_ORIGINS names those that may"
        return ""

    def cors(self, headers: Headers) -> tuple[tuple[bytes, bytes], ...]:
        """Return the fields of an answer that let the pages of its origin read it."""
        if not self._origins:
            return ()
        origin = headers.get(b"origin")
        if origin not in self._origins or origin is None:
            return ((b"vary", b"origin"),)
        return (
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", b"retry-after"),
            (b"vary", b"origin"),
        )

    def preflight(self, headers: Headers) -> tuple[tuple[bytes, bytes], ...] | None:
        """Return the fields that answer the preflight of a page, None for an origin whose pages may not call."""
        origin = headers.get(b"origin")
        if origin not in self._origins or origin is None:
            return None
        return (
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-methods", b"POST"),
            (b"access-control-allow-headers", _HEADERS),
            (b"access-control-max-age", b"7200"),
            (b"vary", b"origin"),
        )

    def _is_ours(self, host: bytes) -> bool:
        name = _name_of(host)
        if not (name and (is_loopback(name) or name == "localhost" or name in self._hosts)):
            return False
        if len(self._known) < _MOST_KNOWN:
            self._known.add(host)
        return True

    @staticmethod
    def _is_same(origin: bytes, host: bytes) -> bool:
        return bool(host) and origin in (b"http://" + host, b"https://" + host)


def _name_of(host: bytes) -> str:
    """Return the name in a Host, in lower case and without its port; empty without a name."""
    if len(host) > _LONGEST or not host.isascii():
        return ""
    text = host.decode().lower()
    if text.startswith("["):
        name, bracket, rest = text[1:].partition("]")
        return name if bracket and (not rest or (rest[0] == ":" and rest[1:].isdecimal())) else ""
    name, colon, port = text.partition(":")
    return name if not colon or port.isdecimal() else ""
