"""A head that is known again says what it says when it is parsed, and nothing else is taken for it."""

from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpmail.web.exchange import Exchange, Transport
from otpmail.web.heads import Head, KnownHead
from otpmail.web.requests import RequestReader

HEAD = b"POST /a%20b?c HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nx-one: 1\r\nauthorization: Bearer t\r\n\r\n"
REQUEST = HEAD + b"body"

Seen = list[tuple[Head, bytes | None]]


class _Reader:
    """Reads octets as a connection does, and notes each request: its head, and its body once it is whole."""

    def __init__(self) -> None:
        self._exchanges: list[tuple[Head, Exchange]] = []
        self._reader = RequestReader(self._begin)

    def _begin(self, head: Head) -> Exchange:
        exchange = Exchange(Mock(spec=Transport), *head[:4], is_old=head.version == "1.0", keep_alive=head.goes_on)
        self._exchanges.append((head, exchange))
        return exchange

    def read(self, *parts: bytes) -> tuple[int, Seen, bool]:
        """Read parts until one can't be taken. Returns its status, all requests, and whether a head has begun."""
        status = next(filter(None, map(self._reader.feed, parts)), 0)
        seen = [(head, exchange.whole_body(1 << 20)) for head, exchange in self._exchanges]
        return status, seen, self._reader.is_in_head


def _full(*parts: bytes) -> tuple[int, Seen, bool]:
    """Read parts that are cut, so that no head is known again."""
    return _Reader().read(*(piece for part in parts for piece in (part[:1], part[1:])))


def _length(octets: bytes, value: bytes, body: bytes = b"body") -> bytes:
    return octets.replace(b"Content-Length: 4", b"Content-Length: " + value).replace(
        b"\r\n\r\nbody", b"\r\n\r\n" + body
    )


LIKE = [
    REQUEST,
    _length(REQUEST, b"0", b""),
    _length(REQUEST, b"9", b"body of 9"),
    _length(REQUEST, b"12", b"a longer one"),
    _length(REQUEST, b"1234", b"x" * 1234),
    _length(REQUEST, b"12345", b"x" * 12345),
    _length(REQUEST, b"04"),
    _length(REQUEST, b"+4"),
    _length(REQUEST, b" 4 "),
    _length(REQUEST, b"4\r\ncontent-length: 4"),
    _length(REQUEST, b"4\r\ntransfer-encoding: chunked", b"4\r\nbody\r\n0\r\n\r\n"),
    _length(REQUEST, b"4\r\nexpect: 100-continue"),
    _length(REQUEST, b"4\r\nconnection: close"),
    _length(REQUEST, b"4\r\nconnection: upgrade\r\nupgrade: h2c"),
    _length(REQUEST, b"3"),
    _length(REQUEST, b"5"),
    _length(REQUEST, b"4,4"),
    REQUEST + REQUEST,
    REQUEST + REQUEST[:30],
    REQUEST[:30],
    REQUEST[30:],
    HEAD,
    b"body",
    b"",
    b"\r\n",
    b"\r\n" + REQUEST,
    REQUEST + b"\r\n",
    REQUEST.replace(b"/a%20b?c", b"/other"),
    REQUEST.replace(b"POST", b"GET"),
    REQUEST.replace(b"1.1", b"1.0"),
    REQUEST.replace(b"1.1", b"1.2"),
    REQUEST.replace(b"localhost", b"example.org"),
    REQUEST.replace(b"Host: localhost\r\n", b""),
    REQUEST.replace(b"x-one: 1", b"x-one: 1\r\n content-length: 7"),
    REQUEST.replace(b"Bearer t", b"Bearer u"),
    REQUEST.replace(b"\r\n", b"\n"),
    REQUEST.replace(b"/a%20b?c", b"http://localhost/a?b"),
    b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
]

DIFFERENT = [REQUEST.replace(b"x-one: 1", b"x-one: %d" % number) for number in range(4)]  # the last one is learned


def test_each_request_behind_a_known_head(subtests: pytest.Subtests) -> None:
    """No request is taken for the known one that differs from it in anything but its length."""
    for number, like in enumerate(LIKE):
        with subtests.test(number=number):
            for parts in ((REQUEST, like, REQUEST), (like, like, REQUEST), (*DIFFERENT, like, DIFFERENT[-1])):
                assert _Reader().read(*parts) == _full(*parts)


@given(st.lists(st.sampled_from(LIKE) | st.binary(max_size=9), max_size=6))
def test_what_is_known_is_what_is_parsed(parts: list[bytes]) -> None:
    """Parts that come one after the other are the same requests and errors, whether or not heads are known again."""
    assert _Reader().read(*parts) == _full(*parts)


def test_the_second_request_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head is parsed once, also where another length stands in it."""
    parsed: list[bytes] = []
    feed = RequestReader._feed

    def note(reader: RequestReader, data: bytes) -> int:
        parsed.append(data)
        return feed(reader, data)

    monkeypatch.setattr(RequestReader, "_feed", note)
    other = _length(REQUEST, b"12", b"a longer one")
    status, seen, _ = _Reader().read(REQUEST, REQUEST, other, REQUEST)
    assert (status, [body for _, body in seen]) == (0, [b"body", b"body", b"a longer one", b"body"])
    assert seen[2][0].headers[b"content-length"] == b"12"
    assert parsed == [REQUEST]


def test_a_client_whose_heads_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no head comes twice, none is learned any more: it would be in vain."""
    learn = Mock(wraps=KnownHead.of)
    monkeypatch.setattr(KnownHead, "of", learn)
    requests = [REQUEST.replace(b"x-one: 1", b"x-one: %d" % number) for number in range(10)]
    status, seen, _ = _Reader().read(*requests)
    assert (status, len(seen), learn.call_count) == (0, 10, 4)


def test_a_long_head_is_not_kept() -> None:
    """A connection keeps a thousand octets of a head at most."""
    request = REQUEST.replace(b"x-one: 1", b"x-one: " + b"x" * 1024)
    reader = _Reader()
    assert reader.read(request, request)[1] == _full(request, request)[1]
    assert reader._reader._known is None
