"""The texts of a mail: how each is encoded, and that it comes back octet for octet."""

import re
from base64 import encodebytes
from binascii import a2b_base64, a2b_qp, b2a_qp
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from otpmail.compose import transfer
from otpmail.compose.attachment import Attachment
from otpmail.compose.body import write_content
from otpmail.compose.draft import base64_size

MESSAGE_ID = "<0123456789abcdef@example.org>"
FAST = settings(deadline=None, max_examples=200)

_PIECES = st.one_of(
    st.sampled_from(
        [*("\n", "\r", "\r\n", " ", "\t", ".", "=", "=?", "\f", "\x85", "\u2028", "\u2029", "From ", "--"), "x" * 73]
    ),
    st.sampled_from(["x" * 998, "x" * 999, "é" * 40, "你好" * 30, "a b " * 300, "=20"]),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\0"), max_size=30),
)
_BODIES = st.lists(_PIECES, max_size=25).map("".join)


def _written(text: str, html: str = "") -> bytes:
    return b"".join(write_content(text, html, (), message_id=MESSAGE_ID))


def _parts(octets: bytes) -> list[EmailMessage]:
    message = message_from_bytes(octets, policy=policy.SMTP)
    assert isinstance(message, EmailMessage)
    assert not [defect for part in message.walk() for defect in part.defects]
    return [part for part in message.walk() if isinstance(part, EmailMessage) and not part.is_multipart()]


def _part(text: str) -> tuple[str, bytes, bytes]:
    """The encoding of a body alone, its octets on the wire, and its octets as a reader decodes them."""
    octets = _written(text)
    (part,) = _parts(octets)
    read = part.get_payload(decode=True)
    assert isinstance(read, bytes)
    return part["Content-Transfer-Encoding"], octets.partition(b"\r\n\r\n")[2], read


def _canonical(text: str) -> bytes:
    """The octets that a reader should find: CRLF for each line end, and one at the end."""
    lines = re.split(r"\r\n|\r|\n", text)
    return "".join(f"{line}\r\n" for line in (lines[:-1] if len(lines) > 1 and not lines[-1] else lines)).encode()


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("", "7bit"),
        ("Hello Ada", "7bit"),
        ("a = b\t\n\f.\nFrom me  \n", "7bit"),
        ("x" * 998, "7bit"),
        ("x" * 999, "quoted-printable"),
        ("Hello\n" * 500 + "x" * 999, "quoted-printable"),
        ("Grüße aus München, mit der Bitte um Antwort", "quoted-printable"),
        ("ß", "base64"),
        ("一次性验证码" * 40, "base64"),
        ("=" * 999, "base64"),
        ("one\x0btwo and some more words", "quoted-printable"),
        ("it\x92s from a word processor", "quoted-printable"),
        ("\x7f", "base64"),
        ("a\x1b[31mred", "quoted-printable"),
    ],
)
def test_the_encoding_follows_the_content(text: str, encoding: str) -> None:
    """Visible ASCII in lines of SMTP's length is 7bit, other text takes the shorter encoding, and none is 8bit."""
    assert _part(text)[0] == encoding


@FAST
@given(st.lists(st.sampled_from([0, 1, 500, 997, 998, 999, 1000, 2000]), max_size=12))
@example([998, 998])
@example([0] * 1200 + [999])
def test_a_line_of_998_octets_is_the_longest_for_7bit(lengths: list[int]) -> None:
    """A longer line, anywhere in the text, is encoded (RFC 5322, 2.1.1)."""
    encoding, octets, _ = _part("\n".join("x" * length for length in lengths))
    assert (encoding == "7bit") == (max(lengths, default=0) <= 998)
    assert max(map(len, octets.split(b"\r\n"))) <= 998


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("", b"\r\n"),
        ("\n", b"\r\n"),
        ("a", b"a\r\n"),
        ("a\n", b"a\r\n"),
        ("a\r", b"a\r\n"),
        ("a\r\n", b"a\r\n"),
        ("a\n\n", b"a\r\n\r\n"),
        ("a\rb\nc\r\nd\n\re\r\r\nf", b"a\r\nb\r\nc\r\nd\r\n\r\ne\r\n\r\nf\r\n"),
        ("a \t\n.\n..\n\f\n", b"a \t\r\n.\r\n..\r\n\f\r\n"),
        ("a\x85b\u2028c\u2029", "a\x85b\u2028c\u2029\r\n".encode()),
        ("From me\n>From you\n", b"From me\r\n>From you\r\n"),
        ("x" * 5000 + " \n", b"x" * 5000 + b" \r\n"),
    ],
)
def test_a_body_is_its_lines(text: str, read: bytes) -> None:
    """A reader finds a CRLF for each line end, one after the last line, and no other change."""
    assert _part(text)[2] == read
    if text:
        assert [part.get_payload(decode=True) for part in _parts(_written(text, text))] == [read, read]


@FAST
@given(_BODIES)
@example("".join("x" * length + " \n" + "é" + "x" * length + "\t\n" for length in range(66, 80)) + "x" * 999)
@example("".join("é" + " " * length + "\n" for length in range(66, 80)))
@example("".join("x" * length + "é \n" + "x" * length + "é\n" for length in range(60, 80)))
@example("x" * 75 + "é\n.\n" + "x" * 74 + " " * 5)
@example("é" + "x " * 600 + "\n \n\t\n")
def test_any_body_comes_back_octet_for_octet(text: str) -> None:
    """Encoded lines have 76 octets at most and no blank at the end, which a relay may strip (RFC 2045, 6.7 and 6.8)."""
    encoding, octets, read = _part(text)
    assert read == _canonical(text)
    assert octets.isascii()
    assert octets.endswith(b"\r\n")
    lines = octets.split(b"\r\n")
    assert not re.search(rb"[\r\n]", b"".join(lines))
    if encoding != "7bit":
        assert max(map(len, lines)) <= 76
        assert not [line for line in lines if line.endswith((b" ", b"\t"))]


@pytest.mark.parametrize("character", [chr(code) for code in (*range(1, 0x20), *range(0x7F, 0xA0), 0x2028, 0xFEFF)])
@pytest.mark.parametrize("text", ["{}", "a{}b\n", "{}\n" * 2, "words before it {} and behind it", "x" * 70_000 + "{}"])
def test_a_control_character_in_a_body_survives(text: str, character: str) -> None:
    """Any control character but a NUL comes back; none but tabs, form feeds and line ends is on the wire unchanged."""
    text = text.replace("{}", character)
    _, octets, read = _part(text)
    assert read == _canonical(text)
    assert not octets.translate(None, b"\t\r\n\f" + bytes(range(32, 127)))


@FAST
@given(st.integers(0, 300), st.integers(0, 300))
def test_the_shorter_encoding_is_chosen(plain: int, escaped: int) -> None:
    """The encoding is at most a twentieth longer than the shorter one: characters are counted, not both tried."""
    text = "x" * 1000 + "a" * 10 * plain + "é" * escaped
    shortest = min(len(b2a_qp(text.encode())), len(encodebytes(text.encode())))
    assert len(_part(text)[1]) < shortest * 1.05


def test_no_part_holds_the_boundary() -> None:
    """A text with a line that could divide it from the other part is encoded, so that it has no such line."""
    first = re.search(rb'boundary="(.*)"', _written("a", "<p>"))
    assert first is not None
    mark = first[1].decode()
    for text in (f"--{mark}\n--{mark}--\n", f"a\r--{mark}\r", f"{'a' * 998}\n--{mark}"):
        octets = _written(text, "<p>")
        assert octets.count(f"--{mark}".encode()) == 3
        plain, _ = _parts(octets)
        assert plain.get_payload(decode=True) == _canonical(text)


def test_two_boundaries_differ() -> None:
    """Boundaries of two mails differ, and those in one mail, so that one can stand inside the other."""
    files = (Attachment("a", "", b"", "cid"), Attachment("b", "", b""))
    marks = [
        mark
        for message_id in (MESSAGE_ID, "<fedcba9876543210@example.org>")
        for mark in re.findall(rb'boundary="(.*)"', b"".join(write_content("a", "b", files, message_id=message_id)))
    ]
    assert len(set(marks)) == len(marks) == 6


# Slices.


@FAST
@given(_BODIES, st.integers(1, 200))
@example("\r\n" * 10, 1)
@example("é\r\n.\r" * 10, 7)
@example("x" * 300, 76)
def test_a_text_in_slices_is_the_same(text: str, size: int) -> None:
    """The slices of a text are the text, and each ends behind a line if a line ends in it."""
    slices = list(transfer.canonical_slices(text, size))
    whole = transfer.canonical(text.encode())
    assert b"".join(slices) == whole
    assert not [octets for octets in slices[:-1] if b"\n" in octets and not octets.endswith(b"\n")]


@FAST
@given(_BODIES, st.integers(1, 300))
@example("".join("x" * length + " " for length in range(66, 80)) * 9, 75)
@example("é" * 500, 25)
@example("x" * 500, 76)
@example(("x" * 72 + " " * 20 + "é=\t") * 20, 77)
def test_encoded_slices_read_as_the_text(text: str, size: int) -> None:
    """Slices in either encoding read as the text, in lines of 76 octets at most; base64 is that of the whole."""
    whole = transfer.canonical(text.encode())
    quoted = b"".join(transfer.encode_slices(transfer.canonical_slices(text, size), transfer.QUOTED_PRINTABLE))
    assert a2b_qp(quoted) == whole
    assert max(map(len, quoted.split(b"\r\n"))) <= 76
    assert not re.search(rb"[ \t]\r\n|^--=_", quoted, re.MULTILINE)
    encoded = b"".join(transfer.encode_slices(transfer.canonical_slices(text, size), transfer.BASE64))
    assert encoded == transfer.base64_lines(whole)
    plain = b"".join(transfer.encode_slices(transfer.canonical_slices(text, size), transfer.SEVEN_BIT))
    assert plain == whole


_SIZE = transfer.TEXT_SLICE


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("x" * 70 + "\n", "7bit"),
        ("\n", "7bit"),
        ("\r", "7bit"),
        ("\r\n.", "7bit"),
        ("x" * 998 + "\r\n", "7bit"),
        ("x" * 999 + "\r\n", "quoted-printable"),
        ("x", "quoted-printable"),
        (" ", "quoted-printable"),
        ("=", "base64"),
        ("é", "base64"),
        ("😀\n", "base64"),
        ("Grüße aus München, mit der Bitte um Antwort\n", "quoted-printable"),
    ],
)
@pytest.mark.parametrize("last", ["", "\n", "\r", "é", "\n--=_", "x" * 1000])
def test_a_large_text_is_written_as_a_small_one(text: str, encoding: str, last: str) -> None:
    """A text of several slices has the encoding that its content wants, and comes back octet for octet."""
    text *= 3 * _SIZE // len(text) + 1
    text += last
    found, octets, read = _part(text)
    assert read == _canonical(text)
    if last in {"", "\n", "\r"} or encoding != "7bit":
        assert found == encoding
    else:
        assert found == "quoted-printable"
    assert max(map(len, octets.split(b"\r\n"))) <= 998


@pytest.mark.parametrize(
    ("text", "plain"), [("", True), ("a=b--=", True), ("--=_", False), ("a --=_ b", False), ("--==_--=_", False)]
)
def test_only_a_text_that_could_divide_parts_is_encoded(text: str, plain: bool) -> None:  # noqa: FBT001
    """An equals sign alone does not keep a text from being written unchanged, the beginning of a delimiter does."""
    assert transfer.is_plain(_canonical(text)) is plain


@pytest.mark.parametrize("size", [0, 1, 56, 57, 58, 57 * 3 - 1, 57 * 3, 57 * 7 + 5])
def test_a_file_in_slices_is_the_same(size: int) -> None:
    """A file in slices of lines is what it is in one piece; so its size is known before it is written."""
    content = bytes(range(256))[:size] * (1 + size // 256)
    encoded = transfer.base64_lines(content)
    assert b"".join(transfer.base64_slices(content, 3)) == encoded
    assert a2b_base64(encoded) == content
    assert base64_size(len(content)) == len(encoded)
