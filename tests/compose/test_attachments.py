"""Files of a mail: their types with parameters, charsets, mails as files, and alternatives to text and HTML."""

import re
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from drafts import read_draft
from otpmail.address import Address
from otpmail.compose.attachment import Attachment, check_attachments
from otpmail.compose.draft import Limits
from otpmail.compose.media_type import MAX_CONTENT_TYPE, MediaType
from otpmail.compose.message import compose, compose_in_steps
from otpmail.compose.suffixes import _SUFFIXES, type_of
from otpmail.cooperate import finish
from otpmail.errors import InvalidArgument
from otpmail.model import Envelope

SENDER = Address("service@example.org")
INNER = b"From: a@example.org\r\nSubject: inner\r\n\r\nHello\r\n"
LARGE = Limits(size=8 << 20, recipients=5)


def _compose(*files: Attachment, text: str = "Hello", html: str = "", message_id: str = "<1@example.org>") -> Envelope:
    draft = read_draft(text=text, html=html, attachments=files, limits=LARGE)
    return compose(draft, SENDER, message_id, 0.0, LARGE)


def _parsed(envelope: Envelope) -> EmailMessage:
    message = message_from_bytes(envelope.content, policy=policy.SMTP)
    assert isinstance(message, EmailMessage)
    assert not [defect for part in message.walk() for defect in part.defects]
    return message


def _last(envelope: Envelope) -> EmailMessage:
    *_, part = _parsed(envelope).iter_parts()
    assert isinstance(part, EmailMessage)
    return part


# Types.


@pytest.mark.parametrize(
    ("text", "name", "parameters"),
    [
        ("application/pdf", "application/pdf", ()),
        (" Text/Calendar ; method=REQUEST", "text/calendar", (("method", "REQUEST"),)),
        ("text/plain;charset=UTF-8", "text/plain", (("charset", "UTF-8"),)),
        ('text/plain; x="a b;c=\\"d\\\\\\""', "text/plain", (("x", 'a b;c="d\\"'),)),
        ("text/plain; FORMAT = flowed ; delsp=yes;", "text/plain", (("format", "flowed"), ("delsp", "yes"))),
        ("text/plain; name*=utf-8''a%20b", "text/plain", (("name*", "utf-8''a%20b"),)),
        ('text/plain; x=""', "text/plain", (("x", ""),)),
        ('text/plain; charset=""; name=""; x=y', "text/plain", (("x", "y"),)),
    ],
)
def test_a_type_with_parameters_is_read(text: str, name: str, parameters: tuple[tuple[str, str], ...]) -> None:
    """Names are read in lower case, values unchanged, and quotes are not part of a value (RFC 2045, 5.1)."""
    assert MediaType.parse(text) == MediaType(name, parameters)


@pytest.mark.parametrize(
    "text",
    [
        *("", "text", "text/", "/plain", "text/plain/x", "te xt/plain", "text/pl ain", "text/plain x"),
        *("text/plain; x", "text/plain; =a", "text/plain; x=", "text/plain; x=a b", 'text/plain; x="a', "text/plain;;"),
        *("text/plain; x=a; X=b", "text/plain; x=(a)", "text/plain (a)", "text/plain; x=é", 'text/plain; x="a\nb"'),
        *("text/plain, text/html", "text/plain; x=a@b", "text/plain; x=" + "y" * MAX_CONTENT_TYPE),
    ],
)
def test_anything_but_a_type_is_refused(text: str) -> None:
    """A type that RFC 2045, 5.1 does not allow, or that has a parameter twice, is refused."""
    assert MediaType.parse(text) is None


_TOKENS = st.text("abcXYZ09!#$%&'*+.^_`{|}~-", min_size=1, max_size=20)
_VALUES = st.one_of(_TOKENS, st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40))


@settings(deadline=None)
@given(st.dictionaries(_TOKENS.map(str.lower), _VALUES, max_size=4))
@example({"x": 'a "b" \\ c', "y": ""})
def test_any_parameters_survive(parameters: dict[str, str]) -> None:
    """A type that is written and read again is the same."""
    kind = MediaType("text/x-a", tuple(parameters.items()))
    text = "; ".join(kind.words())
    if len(text) <= MAX_CONTENT_TYPE:
        assert MediaType.parse(text) == kind


def test_the_parameters_of_a_file_are_kept() -> None:
    """A file's type is written with the caller's parameters, on lines of 78 characters."""
    kind = "text/csv; charset=windows-1252; header=present; profile=" + "x" * 60
    part = _last(_compose(Attachment("März.csv", kind, b"\xe4")))
    assert dict(part["Content-Type"].params) == {
        "charset": "windows-1252",
        "header": "present",
        "profile": "x" * 60,
        "name": "März.csv",
    }
    assert part.get_payload(decode=True) == b"\xe4"


def test_a_name_in_the_type_is_the_files_name() -> None:
    """A `name` in the type is the file's name where there is no other, and is not written twice."""
    named = _compose(Attachment("", 'application/pdf; name="a b.pdf"', b""))
    assert _last(named).get_filename() == "a b.pdf"
    assert named.content.count(b"name=") == 2
    both = _last(_compose(Attachment("é.pdf", 'application/pdf; name="a.pdf"', b"")))
    assert (both.get_filename(), both["Content-Type"].params["name"]) == ("é.pdf", "a.pdf")
    extended = _compose(Attachment("", "application/pdf; name*=utf-8''M%C3%A4rz.pdf", b""))
    assert _last(extended).get_filename() == "März.pdf"
    assert _last(extended).get_content_disposition() == "attachment"


@pytest.mark.parametrize(
    "kind", ['text/plain; charset=""', "text/plain; charset*=us-ascii''utf-8", "text/plain; name*0=a"]
)
@pytest.mark.parametrize("is_alternative", [False, True])
def test_no_parameter_is_written_twice(kind: str, *, is_alternative: bool) -> None:
    """The service adds nothing to a type that is there already, in whatever form (RFC 2045, 5.1; RFC 2231)."""
    content = _compose(Attachment("é.txt", kind, b"a", alternative=is_alternative)).content.decode()
    field = content[content.rindex("Content-Type:") :].partition("Content-Transfer-Encoding")[0]
    names = [re.split(r"[*=]", parameter.strip())[0] for parameter in field.split(";")[1:]]
    assert sorted(names) == ["charset", "name"]


@pytest.mark.parametrize(
    ("filename", "kind"),
    [
        ("a.pdf", "application/pdf"),
        ("A.PDF", "application/pdf"),
        ("a.tar.gz", "application/gzip"),
        ("invite.ics", "text/calendar"),
        ("a.docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        ("a.eml", "application/octet-stream"),
        ("pdf", "application/octet-stream"),
        ("a.unknown", "application/octet-stream"),
        ("a.", "application/octet-stream"),
        ("", "application/octet-stream"),
    ],
)
def test_a_file_without_a_type_has_that_of_its_name(filename: str, kind: str) -> None:
    """The end of the name tells the type; a mail as a file has its own type only where that is asked for."""
    assert type_of(filename) == kind
    assert _last(_compose(Attachment(filename, "", b"x"))).get_content_type() == kind


# Charsets.


@pytest.mark.parametrize(
    ("content", "charset"),
    [
        (b"", "us-ascii"),
        (b"a\n\0\x7f", "us-ascii"),
        ("é你".encode(), "utf-8"),
        (b"\xef\xbb\xbfa", "utf-8"),
        (b"a" * 65_535 + "é".encode(), "utf-8"),
        (b"a" * 65_535 + "é".encode() + b"\xff", "unknown-8bit"),
        ("é".encode()[:1], "unknown-8bit"),
        (b"M\xe4rz", "unknown-8bit"),
        ("é".encode("utf-16"), "utf-16"),
        ("é".encode("utf-32"), "utf-32"),
    ],
)
def test_a_file_of_text_says_its_charset(content: bytes, charset: str) -> None:
    """A text file has the charset that its octets are in, also where that is not known (RFC 2046, 4.1.2; RFC 1428)."""
    part = _last(_compose(Attachment("a.csv", "text/csv", content)))
    assert part.get_content_charset() == charset
    assert part.get_payload(decode=True) == content


@pytest.mark.parametrize("is_alternative", [False, True])
@pytest.mark.parametrize("kind", ["text/calendar; method=REQUEST", "text/vcard"])
def test_a_calendar_is_utf_8(kind: str, *, is_alternative: bool) -> None:
    """A calendar and a card are UTF-8, also where a folded line divides a character (RFC 5545, 3.1; RFC 6350, 3.2)."""
    content = b"SUMMARY:M\xc3\r\n \xa4rz\r\n"
    part = _last(_compose(Attachment("", kind, content, alternative=is_alternative)))
    assert part.get_content_charset() == "utf-8"
    assert part.get_payload(decode=True) == content


def test_a_callers_charset_is_kept() -> None:
    """The caller knows the charset of its text better than its octets tell it, and no other type has one."""
    assert _last(_compose(Attachment("", "text/csv; Charset=koi8-r", b"\xe4"))).get_content_charset() == "koi8-r"
    assert b"charset" not in _compose(Attachment("a.pdf", "", b"a")).content.partition(b"application/pdf")[2]


# Mails as files.


@pytest.mark.parametrize(
    ("content", "written", "encoding"),
    [
        (INNER, INNER, "7bit"),
        (INNER.replace(b"\r\n", b"\n"), INNER, "7bit"),
        (INNER.replace(b"\r\n", b"\r"), INNER, "7bit"),
        (INNER[:-2], INNER, "7bit"),
        (b"", b"\r\n", "7bit"),
        (INNER + "é".encode(), INNER + "é\r\n".encode(), "8bit"),
        (INNER + b"x" * 998, INNER + b"x" * 998 + b"\r\n", "7bit"),
        (INNER + b".\r\n" * 50_000, INNER + b".\r\n" * 50_000, "7bit"),
        (INNER + b"\r" * 150_000 + b"\xff", INNER + b"\r\n" * 150_000 + b"\xff\r\n", "8bit"),
    ],
)
def test_a_mail_as_a_file_is_written_as_it_is(content: bytes, written: bytes, encoding: str) -> None:
    """A mail is never base64 nor quoted-printable (RFC 2046, 5.2.1); its lines end with CRLF."""
    draft = read_draft(attachments=(Attachment("", "message/rfc822", content),), limits=LARGE)
    envelope = compose(draft, SENDER, "<1@example.org>", 0.0, LARGE)
    head, _, rest = envelope.content.partition(b"Content-Type: message/rfc822\r\n")
    assert rest.startswith(f"Content-Transfer-Encoding: {encoding}\r\n".encode())
    assert b'filename="message.eml"' in rest
    assert rest.partition(b"\r\n\r\n")[2].startswith(written + b"\r\n--=_")
    assert (b"Content-Transfer-Encoding: 8bit" in head) is (encoding == "8bit")
    assert finish(compose_in_steps(draft, SENDER, "<1@example.org>", 0.0, LARGE)) == envelope


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (INNER + b"\0", "NUL"),
        (INNER + b"x" * 999, "998"),
        (INNER + b"x" * 999 + b"\r\n", "998"),
        (INNER + "é".encode() * 500, "998"),
        (INNER + b"a\r\n" * 50_000 + b"x" * 100_000, "998"),
        (b"x" * 200_000, "998"),
    ],
)
def test_a_mail_that_can_not_be_a_file_is_refused(content: bytes, said: str) -> None:
    """A NUL or a line over 998 octets would need BINARYMIME: the error names the file, and a type for it."""
    files = (Attachment("a.txt", "text/plain", b""), Attachment("", "message/rfc822", content))
    with pytest.raises(InvalidArgument, match=rf"{said}.*application/octet-stream") as caught:
        _compose(*files)
    assert caught.value.field == "attachments[1].content"


def test_a_mail_of_ours_can_be_a_file_of_another() -> None:
    """No mail as a file holds a boundary of the mail that it is in, also with the same Message-ID again and again."""
    inner = _compose(Attachment("a.pdf", "", b"x"), html="<p>").content
    for _ in range(3):
        files = (Attachment("", "message/rfc822", inner), Attachment("b.pdf", "application/pdf", b"y"))
        outer = _compose(*files, html="<p>")
        marks = re.findall(rb'boundary="(.*)"', outer.content)
        assert len(set(marks)) == len(marks)
        _, found, pdf = _parsed(outer).iter_parts()
        assert isinstance(found, EmailMessage)
        assert found.get_content_type() == "message/rfc822"
        assert found.get_content()["Message-ID"] == "<1@example.org>"
        assert isinstance(pdf, EmailMessage)
        assert pdf.get_content() == b"y"
        inner = outer.content


# Alternatives.

INVITE = Attachment("", "text/calendar; method=REQUEST", b"BEGIN:VCALENDAR\r\n")
AMP = Attachment("", "text/x-amp-html; charset=utf-8", b"<html amp4email>")


@pytest.mark.parametrize(
    ("text", "html", "files", "types"),
    [
        ("a", "<p>", (INVITE,), ["multipart/alternative", "text/plain", "text/html", "text/calendar"]),
        ("a", "", (INVITE,), ["multipart/alternative", "text/plain", "text/calendar"]),
        ("", "<p>", (INVITE,), ["multipart/alternative", "text/html", "text/calendar"]),
        ("", "", (INVITE,), ["text/calendar"]),
        (
            "a",
            "<p>",
            (INVITE, AMP),
            ["multipart/alternative", "text/plain", "text/x-amp-html", "text/html", "text/calendar"],
        ),
        (
            "a",
            "<p>",
            (Attachment("a.pdf", "", b""), INVITE, Attachment("", "image/png", b"", "c")),
            [
                *("multipart/mixed", "multipart/alternative", "text/plain"),
                *("multipart/related", "text/html", "image/png", "text/calendar", "application/pdf"),
            ],
        ),
    ],
)
def test_alternatives_stand_beside_text_and_html(
    text: str, html: str, files: tuple[Attachment, ...], types: list[str]
) -> None:
    """An invitation is the last alternative, since readers show the last one they know (RFC 2046, 5.1.4)."""
    files = tuple(
        Attachment(f.filename, f.content_type, f.content, f.content_id, not f.content_id and not f.filename)
        for f in files
    )
    message = _parsed(_compose(*files, text=text, html=html))
    assert [part.get_content_type() for part in message.walk()] == types
    (invite,) = [part for part in message.walk() if part.get_content_type() == "text/calendar"]
    assert invite["Content-Type"].params == {"method": "REQUEST", "charset": "us-ascii"}
    assert invite["Content-Disposition"] is None
    assert invite.get_payload(decode=True) == INVITE.content


@pytest.mark.parametrize(
    ("kind", "content", "encoding", "read"),
    [
        (
            "text/calendar; method=REQUEST",
            b"BEGIN:VCALENDAR\nEND:VCALENDAR",
            "7bit",
            b"BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n",
        ),
        ("text/calendar; charset=UTF-8", b"a\r\n", "7bit", b"a\r\n"),
        ("text/calendar", "SUMMARY:Prüfung und weitere Worte\r\n".encode(), "quoted-printable", None),
        ("text/calendar; charset=utf-8", "你好\r\n".encode(), "base64", None),
        ("text/calendar", b"x" * 999 + b"\r\n", "quoted-printable", None),
        ("text/calendar; charset=us-ascii", "é".encode(), "base64", None),
        ("text/calendar; charset=iso-8859-1", b"\xe4", "base64", None),
        ("text/calendar", b"\xe4", "base64", None),
        ("text/calendar", b"a\0", "base64", None),
        ("text/calendar", b"a" * 70_000, "base64", None),
        ("application/json", b"{}", "base64", None),
    ],
)
def test_a_text_that_is_an_alternative_is_legible(kind: str, content: bytes, encoding: str, read: bytes | None) -> None:
    """A small text in ASCII or UTF-8 is written as a body is, and nothing else changes; some readers need it so."""
    part = _last(_compose(Attachment("", kind, content, alternative=True)))
    assert part["Content-Transfer-Encoding"] == encoding
    assert part.get_payload(decode=True) == (content if read is None else read)


def test_an_alternative_may_have_a_name() -> None:
    """A file's name is written where there is one, and makes no attachment of an alternative."""
    part = _last(_compose(Attachment("invite.ics", "", b"BEGIN:VCALENDAR", alternative=True)))
    assert (part.get_content_disposition(), part.get_filename()) == ("inline", "invite.ics")


def test_every_type_of_a_name_is_a_type() -> None:
    """The table has types that a file may have, and each end of a name once."""
    suffixes = " ".join(_SUFFIXES.values()).split()
    assert len(set(suffixes)) == len(suffixes)
    for name in _SUFFIXES:
        assert MediaType.parse(name) == MediaType(name)
        assert not name.startswith(("multipart/", "message/"))


def test_two_files_with_one_content_id() -> None:
    """HTML can show one file as `cid:...` only, so a second one with that content id is refused by its field."""
    files = (Attachment("a.png", "", b"a", content_id="logo"), Attachment("b.png", "", b"b"))
    check_attachments((*files, Attachment("c.png", "", b"c", content_id="LOGO")))
    with pytest.raises(InvalidArgument, match="another file") as raised:
        check_attachments((*files, Attachment("d.png", "", b"d", content_id="logo")))
    assert raised.value.field == "attachments[2].content_id"
