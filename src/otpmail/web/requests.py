"""Reads the requests of one connection, by llhttp, with limits. It neither waits nor writes."""

from collections.abc import Callable

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser, parse_url

from otpmail.web.exchange import Exchange
from otpmail.web.heads import Head, KnownHead

HEAD_OCTETS = 64 << 10
"""The most of a request's line and fields, as much as gRPC takes of metadata. It holds for trailers too."""

MOST_FIELDS = 100

_SLICE = 16 << 10
"""Octets that are parsed at once: of one slice, the end of a body may count for the head behind it."""

_VERSIONS = frozenset(("1.0", "1.1"))

_BLANKS = b" \t"

_UPGRADE = frozenset((b"upgrade", b"http2-settings"))
"""The fields, and the tokens of Connection, in which a client offers another protocol."""

_MOST_HEADS = 4  # that are learned one after the other, and each time in vain

Begin = Callable[[Head], Exchange | None]
"""Begins to answer a request by its head. None where too many requests wait for their answers."""

_ENDED = HttpRequestParser(object())  # in place of the parser of a connection that has ended: it calls nobody


class RequestReader:
    """Reads octets. `begin` is called for each request once its head is read; its exchange then takes the body."""

    def __init__(self, begin: Begin) -> None:
        self._begin = begin
        self._parser = self._new_parser()
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self.latest: Exchange | None = None
        """The request whose body is being read."""
        self.is_in_head = True
        """Whether a head is being read, or the first one is to come."""
        self._head_octets = 0
        self._fields = 0  # of the head and of the trailers
        self._has_upgrade = False  # whether the request is to be read again, without its Upgrade
        self._had_body = False  # whether the latest octets held any of a body
        self._status = 400  # of the request that can't be read
        self._is_between = True  # two requests, or before the first one
        self._begun = 0  # requests
        self._head: Head | None = None  # of the latest request
        self._known: KnownHead | None = None
        self._learned = 0  # heads since the latest request whose head was known

    def __repr__(self) -> str:
        return f"<RequestReader{' in a head' * self.is_in_head}>"

    def close(self) -> None:
        """Read no more, and hold nothing of the connection, whose memory is free without a collection of garbage."""
        self._begin, self.latest = _refuse, None
        self._parser = _ENDED

    def feed(self, data: bytes) -> int:
        """Read octets. Returns the status of a request that can't be taken, after which nothing is read; else 0."""
        # fast path: a head that is known is not parsed, 5 us; held to the full path by tests/web/test_heads.py
        if self._is_between and self._known is not None and (request := self._known.read(data)) is not None:
            return self._begin_known(*request)
        if len(data) <= _SLICE:
            return self._feed(data) if self._learned == _MOST_HEADS else self._feed_and_learn(data)
        slices = (data[start : start + _SLICE] for start in range(0, len(data), _SLICE))
        return next(filter(None, map(self._feed, slices)), 0)

    def _begin_known(self, head: Head, body: bytes) -> int:
        """Answer a whole request; see `feed`."""
        self._learned = self._head_octets = 0
        if (exchange := self._begin(head)) is None:
            return 429
        exchange.add(body)
        exchange.complete()
        return 0

    def _feed_and_learn(self, data: bytes) -> int:
        """Read a slice, and know its head again where it is one request."""
        is_first, begun = self._is_between, self._begun
        status = self._feed(data)
        if not status and is_first and self._is_between and self._begun == begun + 1 and self._head is not None:
            self._known = KnownHead.of(data, self._head, self._url)
            self._learned += 1
        return status

    def _feed(self, data: bytes) -> int:
        """Read a slice.

        A request that offers another protocol is read again without its offer (RFC 9110, 7.8). httptools takes all that
        follows the head of such a request for the other protocol, its body included.
        """
        self._had_body, octets = False, len(data)
        while True:
            try:
                self._parser.feed_data(data)
            except HttpParserError:
                return self._status
            except HttpParserUpgrade as upgrade:
                data = self._head_without_upgrade() + data[upgrade.args[0] :]
                self._parser = self._new_parser()
                continue
            break
        self._head_octets = 0 if self._had_body and not self.is_in_head else self._head_octets + octets
        return 431 if self._head_octets > HEAD_OCTETS else 0

    def _new_parser(self) -> HttpRequestParser:
        parser = HttpRequestParser(self)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)  # the answer before it is not to be cut
        return parser

    def _head_without_upgrade(self) -> bytes:
        """Return the head of the latest request as its client would have written it without an offer."""
        method, version = self._parser.get_method(), self._parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (method, self._url, version)]
        for name, value in self._headers.items():
            if name == b"connection":
                tokens = (token.strip() for token in value.split(b","))
                kept = b", ".join(token for token in tokens if token.lower() not in _UPGRADE)
                lines.append(b"connection: " + kept)
            elif name not in _UPGRADE:
                lines.append(name + b": " + value)
        return b"\r\n".join((*lines, b"", b""))

    def _octets_of_head(self) -> int:
        return len(self._url) + sum(len(name) + len(value) + 4 for name, value in self._headers.items())

    # Callbacks of the parser. A ValueError in one ends the connection.

    def on_message_begin(self) -> None:
        """Begin to read the head of a request."""
        self._url, self._headers = b"", {}
        self.is_in_head, self._has_upgrade, self._is_between = True, False, False
        self._begun += 1
        self._head_octets = self._fields = 0

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one field. Raises ValueError for too many, and for a second Host (RFC 9112, 3.2).

        Blanks behind a value are no part of it (RFC 9112, 5.1), and llhttp leaves them there. A trailer is only
        counted: merged into the head it would be a field that nobody has checked (RFC 9110, 6.5.1).
        """
        if self._fields == MOST_FIELDS:
            self._status = 431
            raise ValueError
        self._fields += 1
        if self.is_in_head:
            name, value, headers = name.lower(), value.rstrip(_BLANKS), self._headers
            if name not in headers:
                headers[name] = value
            elif name == b"host":
                raise ValueError
            else:
                headers[name] += b", " + value

    def on_headers_complete(self) -> None:
        """Begin to answer.

        Raises ValueError for CONNECT, another version than HTTP/1.0 and 1.1, no Host in HTTP/1.1 (RFC 9112, 3.2), or
        a target without a path. It does too for a body whose ends others may see elsewhere, and for too many requests
        that wait for their answers.
        """
        parser = self._parser
        version = parser.get_http_version()
        if version not in _VERSIONS:
            self._status = 505
            raise ValueError
        if b"host" not in self._headers and version != "1.0":
            raise ValueError
        if (codings := self._headers.get(b"transfer-encoding")) is not None:
            self._check_codings(codings, version)
        method = parser.get_method().decode("ascii")
        if method == "CONNECT":
            self._status = 405
            raise ValueError
        if b"upgrade" in self._headers and parser.should_upgrade():
            self._has_upgrade = True
            return
        if self._head_octets > HEAD_OCTETS - _SLICE and self._octets_of_head() > HEAD_OCTETS:
            self._status = 431
            raise ValueError
        self.is_in_head = False
        self._head = Head(
            method, *_target_of(self._url, self._headers), self._headers, version, parser.should_keep_alive()
        )
        self.latest = self._begin(self._head)
        if self.latest is None:
            self._status = 429
            raise ValueError

    def _check_codings(self, codings: bytes, version: str) -> None:
        """Raise ValueError for another Transfer-Encoding than chunked, which llhttp passes over if chunked is the last.

        The body would be read without it (RFC 9112, 6.1). Readers of HTTP/1.0 know no Transfer-Encoding at all, and a
        proxy that does not would see another end of the body.
        """
        known = [coding for part in codings.lower().split(b",") if (coding := part.strip(_BLANKS))]
        if version == "1.0":
            raise ValueError
        if known != [b"chunked"]:
            self._status = 501
            raise ValueError

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._had_body = True
        if self.latest is not None:
            self.latest.add(body)

    def on_message_complete(self) -> None:
        """End the request, unless it is to be read again."""
        if not self._has_upgrade and self.latest is not None:
            self.latest.complete()
            self.latest = None
            self._is_between = self._head is not None and self._head.goes_on  # else the parser reads no more


def _target_of(url: bytes, headers: dict[bytes, bytes]) -> tuple[str, bytes]:
    """Return the path and the query of a request's target. Raises ValueError for a target that has none.

    The path is as it was written, so that a proxy in front sees the same one: `%2F` for a slash would be another name
    of a method, which a proxy's rules for that method may not cover. The host of a whole URL counts in place of Host
    (RFC 9112, 3.2.2).
    """
    if url.startswith(b"/"):
        raw, _, query = url.partition(b"#")[0].partition(b"?")
    else:
        parsed = parse_url(url)
        raw, query = parsed.path or b"/", parsed.query or b""
        if parsed.host is not None:
            name = b"[%b]" % parsed.host if b":" in parsed.host else parsed.host
            headers[b"host"] = name if parsed.port is None else b"%b:%d" % (name, parsed.port)
    return raw.decode("ascii"), query


def _refuse(_: Head) -> None:
    """Begin no request any more."""
