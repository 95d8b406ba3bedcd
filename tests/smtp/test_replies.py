"""Replies: read from a stream, and turned into results."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpmail.model import RecipientResult
from otpmail.smtp.replies import CLOSING, MAX_REPLY, MalformedReply, Reply, ReplyReader, result


@pytest.mark.parametrize(
    ("code", "text", "enhanced", "reply"),
    [
        (250, "2.1.5 Ok", "2.1.5", "Ok"),
        (250, "Ok", "", "Ok"),
        (250, "", "", ""),
        (550, "5.1.1 no such user\n5.1.1 see https://x.org", "5.1.1", "no such user see https://x.org"),
        (451, "4.7.1\ngreylisted", "4.7.1", "greylisted"),
        (450, "4.2.0", "4.2.0", ""),
        (250, "2.0.0 queued as 2.1.5 Ok", "2.0.0", "queued as 2.1.5 Ok"),
        (550, "192.0.2.1 is listed", "", "192.0.2.1 is listed"),
        (550, "5.1.1234 odd", "", "5.1.1234 odd"),
        (250, "2.0.0 a\x1b[31mb\x00c", "2.0.0", "a?[31mb?c"),
    ],
)
def test_code_and_text_come_apart(code: int, text: str, enhanced: str, reply: str) -> None:
    """The enhanced code (RFC 2034) leads each line and is kept once; the text is one printable line."""
    assert result("ada@example.org", Reply(code, text.encode())) == RecipientResult(
        "ada@example.org", code, enhanced, reply
    )


@given(st.text(max_size=3000))
def test_any_text_is_one_short_line(text: str) -> None:
    """No reply can fill a log or forge a line of it."""
    reply = result("ada@example.org", Reply(550, text.encode())).reply
    assert len(reply) <= 500
    assert reply.isprintable()


@pytest.mark.parametrize(("code", "accepted", "refused"), [(250, True, False), (451, False, False), (550, False, True)])
def test_the_meaning_of_a_code(code: int, accepted: bool, refused: bool) -> None:  # noqa: FBT001
    """2xx is accepted, 5xx is rejected, 4xx and no reply are neither."""
    found = result("ada@example.org", Reply(code, b"said"))
    assert (found.accepted, found.refused) == (accepted, refused)
    assert not RecipientResult("ada@example.org").accepted
    assert not RecipientResult("ada@example.org").refused


def test_closing() -> None:
    """421 is the goodbye reply (RFC 5321, 4.2.3)."""
    assert CLOSING == 421


# Reading a stream.


def _read(*pieces: bytes) -> tuple[list[Reply], str, ReplyReader]:
    """Feed the pieces; return the replies, the error, and the reader."""
    reader, replies = ReplyReader(), list[Reply]()
    try:
        for piece in pieces:
            reader.feed(piece, replies)
    except MalformedReply as error:
        return replies, str(error), reader
    return replies, "", reader


@pytest.mark.parametrize(
    ("stream", "replies"),
    [
        (b"250 ok\r\n", [(250, b"ok")]),
        (b"250 ok\n354 go\n", [(250, b"ok"), (354, b"go")]),
        (b"250\r\n250 \r\n", [(250, b""), (250, b"")]),
        (b"250-a\r\n250-\r\n250 c\r\n550 no\r\n", [(250, b"a\n\nc"), (550, b"no")]),
        (b"250-a\r\n250\r\n", [(250, b"a\n")]),
        (b"250 250 550-x\r\n", [(250, b"250 550-x")]),
    ],
)
def test_replies_are_read_wherever_the_stream_is_cut(stream: bytes, replies: list[tuple[int, bytes]]) -> None:
    """A reply of several lines is one, a bare LF ends a line too, and the size of the pieces makes no difference."""
    for place in range(len(stream) + 1):
        assert _read(stream[:place], stream[place:])[:2] == (replies, "")
    found, wrong, reader = _read(*(bytes([octet]) for octet in stream))
    assert (found, wrong, reader.is_partial) == (replies, "", False)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\r",
        b"25",
        b"hello",
        b"150 x",
        b"199 x",
        b"600 x",
        b"2x0 x",
        b"-50 x",
        b"250_x",
        b"2500",
        b" 250 x",
        b"\0",
    ],
)
def test_malformed_lines(line: bytes) -> None:
    """A line without a code from 200 to 599 and a space or hyphen is an error; the replies before it count."""
    replies, wrong, _ = _read(b"250 ok\r\n" + line + b"\r\n250 never read\r\n")
    assert replies == [(250, b"ok")]
    assert "no reply" in wrong
    assert wrong.isprintable()


@given(st.lists(st.sampled_from(["2.0.0", "5.1.1", "2.1.٥", "x", " ", "\t", "\n", "\r", "x" * 499]) | st.text()))
def test_the_fast_path_of_a_result_is_the_full_path(parts: list[str]) -> None:
    """A reply on one line, with an enhanced code, has the same result by both."""
    reply = Reply(250, "".join(parts).encode("utf-8", "surrogatepass"))
    with pytest.MonkeyPatch.context() as without:
        without.setattr("otpmail.smtp.replies._is_enhanced", lambda _: False)
        in_full = result("ada@example.org", reply)
    assert result("ada@example.org", reply) == in_full


def test_lines_of_one_reply_have_one_code() -> None:
    """All lines of one reply must have the same code (RFC 5321, 4.2.1)."""
    assert "250 and 550" in _read(b"250-ok\r\n550 no\r\n")[1]


@pytest.mark.parametrize("cut", [1, 1000, MAX_REPLY, 3 * MAX_REPLY])
@pytest.mark.parametrize("octets", [MAX_REPLY, MAX_REPLY + 1])
@pytest.mark.parametrize("line", [b"250 ", b"250-"])
def test_the_bound_of_a_reply_is_the_same_however_it_is_cut(line: bytes, octets: int, cut: int) -> None:
    """A reply with all its lines and line ends is bounded at 64 KiB, in one line or many, in one piece or many."""
    lines = [line + b"x" * 95 + b"\n"] * (octets // 100) if line == b"250-" else []
    last = octets - sum(map(len, lines))
    stream = b"".join(lines) + (b"250 " + b"x" * last)[: last - 1] + b"\n"
    assert len(stream) == octets
    pieces = [stream[start : start + cut] for start in range(0, octets, cut)] if cut > 1 else [stream[:-1], b"\n"]
    replies, wrong, _ = _read(*pieces)
    assert (len(replies), bool(wrong)) == ((1, False) if octets <= MAX_REPLY else (0, True))


@given(
    st.lists(st.sampled_from([b"250 ok\r\n", b"250-", b"a\n", b"421", b"\n", b"5", b"50 x\r\n"]) | st.binary()),
    st.data(),
)
def test_no_cut_changes_what_is_read(parts: list[bytes], data: st.DataObject) -> None:
    """Whole or in pieces, the replies are the same, and so is the error of the first malformed line."""
    stream = b"".join(parts)
    places = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    pieces = [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]
    assert _read(*pieces)[:2] == _read(stream)[:2]


@given(st.lists(st.sampled_from([b"250 ok", b"250 ", b"250", b"\r", b"\n", b"199 x", b"600 x", b"25", b"-"])))
def test_the_fast_path_of_a_line_is_the_full_path(parts: list[bytes]) -> None:
    """A line that is a whole reply is read the same by both."""
    stream = b"".join(parts)
    with pytest.MonkeyPatch.context() as without:
        without.setattr("otpmail.smtp.replies._usual", lambda _: None)
        in_full = _read(stream)[:2]
    assert _read(stream)[:2] == in_full


@pytest.mark.parametrize(
    ("begun", "may_be"),
    [(b"4", True), (b"42", True), (b"421-by", True), (b"421-bye\r\n4", True), (b"45", False), (b"250-a\r\n", False)],
)
def test_a_partial_reply_may_still_have_a_code(begun: bytes, may_be: bool) -> None:  # noqa: FBT001
    """A partial reply may have a code unless its first digits, or the lines that have arrived, rule it out."""
    reader = _read(b"250 ok\r\n" + begun)[2]
    assert (reader.is_partial, reader.may_be(CLOSING)) == (True, may_be)
