"""Header fields on their own; `test_message.py` holds whole mails to what a parser reads."""

import re
from base64 import b64decode
from email import message_from_string, policy
from email.header import decode_header, make_header
from email.message import EmailMessage, Message

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cost import lines_run
from otpmail.address import Address
from otpmail.compose.headers import content_type, disposition, mailboxes, unstructured
from otpmail.compose.media_type import MediaType

_VISIBLE = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"])
_SIGNS = st.sampled_from("ab 1.-_()=?*'%\"\\;:<>@/é你😀\u00a0")


def _read(field: str) -> EmailMessage:
    message = message_from_string(f"{field}\r\n", policy=policy.default)
    assert isinstance(message, EmailMessage)
    assert list(message) == ["Content-Disposition"]
    assert not message["Content-Disposition"].defects
    return message


@settings(deadline=None, max_examples=300)
@given(st.text(st.one_of(_SIGNS, _VISIBLE), min_size=1, max_size=255), st.sampled_from(["attachment", "inline"]))
@example("a.pdf", "attachment")
@example("=?utf-8?q?a?=", "attachment")
@example(" a  b ", "attachment")
@example("utf-8''a", "attachment")
@example("x" * 255, "inline")
@example("😀" * 255, "inline")
def test_any_file_name_survives(filename: str, kind: str) -> None:
    """Both parsers of the standard library read the file name that was given, in lines of at most 78 characters."""
    field = disposition(kind, filename)
    message = _read(field)
    assert message["Content-Disposition"].params == {"filename": filename}
    assert message.get_content_disposition() == kind
    older: Message = message_from_string(f"{field}\r\n", policy=policy.compat32)
    assert older.get_filename() == filename.strip()  # that method strips a name of any form
    assert field.endswith("\r\n")
    assert max(map(len, field.split("\r\n"))) <= 78
    assert field.isascii()


def _by_encoded_words(parameter: str) -> str:
    """A parameter's value as readers without RFC 2231 show it: they decode encoded words there too."""
    return str(make_header(decode_header(parameter)))


@settings(deadline=None, max_examples=300)
@given(st.text(st.one_of(_SIGNS, _VISIBLE), min_size=1, max_size=255))
@example("=?utf-8?q?a?=")
@example(' a  "b"\\ ')
@example("x" * 255)
@example("😀" * 255)
def test_readers_without_rfc_2231_find_the_name_in_the_type(filename: str) -> None:
    """A name that is not legible in Content-Disposition stands in Content-Type as encoded words, on short lines."""
    field = content_type(MediaType("application/pdf"), filename)
    older: Message = message_from_string(f"{field}\r\n", policy=policy.compat32)
    assert older.get_content_type() == "application/pdf"
    name = older.get_param("name")
    if name is None:
        assert f'filename="{filename}"' in disposition("attachment", filename)
    else:
        assert isinstance(name, str)
        assert _by_encoded_words(name) == filename
    assert field.endswith("\r\n")
    assert max(map(len, field.split("\r\n"))) <= 78
    assert field.isascii()


@pytest.mark.parametrize("filename", ["é" * 255, "😀" * 255, "x" * 255, '"' * 255, "%" * 255, "a" * 43 + "€" * 9])
def test_a_long_name_costs_little(filename: str) -> None:
    """The longest names take a few lines of Python each, not some for each character."""
    assert lines_run(lambda: disposition("attachment", filename)) < 2000


@pytest.mark.parametrize(
    ("filename", "written"),
    [
        ("report 2026.pdf", 'filename="report 2026.pdf"'),
        ("a;b.pdf", "filename*=utf-8''a%3Bb.pdf"),
        ("März.pdf", "filename*=utf-8''M%C3%A4rz.pdf"),
        ("你" * 20, "filename*0*=utf-8''" + "%E4%BD%A0" * 5 + ";"),
    ],
)
def test_forms_of_a_file_name(filename: str, written: str) -> None:
    """A plain name stays legible to readers without RFC 2231; others are encoded, and long ones in sections."""
    assert f" {written}\r\n" in disposition("attachment", filename)


def test_forms_of_a_content_type() -> None:
    """A plain name stands in Content-Disposition alone; no type is followed by a parameter then."""
    assert content_type(MediaType("image/png"), "report 2026.pdf") == "Content-Type: image/png\r\n"
    assert (
        content_type(MediaType("image/png"), "März.pdf")
        == 'Content-Type: image/png; name="=?utf-8?b?TcOkcnoucGRm?="\r\n'
    )


_NAMES = st.from_regex(r"X-[A-Za-z]{1,62}", fullmatch=True)
_LETTERS = st.text(st.one_of(st.sampled_from("é你😀ß a"), _VISIBLE), min_size=1, max_size=300)


def _assert_lines_of_encoded_words(field: str, most: int = 76) -> None:
    lines = field.removesuffix("\r\n").split("\r\n")
    assert max(map(len, (line for line in lines if "=?" in line))) <= most
    for word in re.findall(r"=\?[^ ]*\?=", field):
        assert len(word) <= 75
        b64decode(word.split("?")[3]).decode()


@settings(deadline=None, max_examples=300)
@given(_NAMES, _LETTERS)
@example("X-" + "a" * 52, "😀" * 99)
@example("X-" + "a" * 53, "😀" * 99)
@example("X-" + "a" * 62, "é")
def test_a_line_with_an_encoded_word_has_76_characters(name: str, value: str) -> None:
    """Lines with encoded words have 76 characters, words 75 (RFC 2047, 2), and none divides a character (5)."""
    for spelt in (name, "Subject"):
        field = unstructured(spelt, f"é{value}")
        _assert_lines_of_encoded_words(field)
        older: Message = message_from_string(f"{field}\r\n", policy=policy.compat32)
        assert str(make_header(decode_header(older[spelt]))) == f"é{value}"


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(_LETTERS.map(lambda text: text[:256]), st.sampled_from([1, 9, 60, 240])), min_size=1, max_size=4)
)
@example([("é" * 256, 240), ("a", 240), ("é", 1)])
def test_lines_of_mailboxes_with_encoded_names(people: list[tuple[str, int]]) -> None:
    """The names of mailboxes are encoded in lines of 76 too, with an address of any length behind them."""
    addresses = [Address(f"{'a' * length}@example.org", f"é{name}") for name, length in people]
    for header in ("To", "From", "Reply-To"):
        _assert_lines_of_encoded_words(mailboxes(header, addresses))


@settings(deadline=None, max_examples=200)
@given(_LETTERS)
def test_lines_of_file_names_in_encoded_words(filename: str) -> None:
    """A file's name in the type keeps to these lines as well."""
    _assert_lines_of_encoded_words(content_type(MediaType("application/pdf"), f"é{filename}"[:255]))


@pytest.mark.parametrize(
    ("value", "literal"),
    [
        ("Is 1=?2 or 3?", True),
        ("https://example.org/?a==?b", True),
        ("=?a?b?=", True),
        ("?= and =?a?b?", True),
        ("=?utf-8?q?a?=", False),
        ("a=?utf-8*en?Q?a b?= c", False),
        ("=?x?y?z?=", False),
        ("=? ?b?a?=", False),
        ("=?utf-8?b??=", False),
    ],
)
def test_only_what_a_reader_may_decode_is_encoded(value: str, literal: bool) -> None:  # noqa: FBT001
    """Text that looks like an encoded word to the least strict reader is encoded, other ASCII stays legible."""
    assert (unstructured("Subject", value) == f"Subject: {value}\r\n") is literal
    message = message_from_string(unstructured("Subject", value) + "\r\n", policy=policy.default)
    assert message["Subject"] == value
