"""Holds our mails to those that the standard library's `email` writes: its parser reads the same from both."""

import os
import re
from collections.abc import Callable
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.message import EmailMessage, Message
from email.parser import BytesHeaderParser
from email.utils import parseaddr
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from drafts import ADA, LIMITS, read_draft
from otpmail.address import Address
from otpmail.compose.attachment import Attachment
from otpmail.compose.draft import Draft
from otpmail.compose.message import compose
from otpmail.errors import InvalidArgument
from otpmail.model import Envelope

MESSAGE_ID = "<0123456789abcdef@example.org>"
NOW = 1_700_000_000.0
DATE = "Tue, 14 Nov 2023 22:13:20 +0000"
SERVICE = "service@example.org"
CONTENT = {"content-type", "content-transfer-encoding"}
MANY = settings(deadline=None, max_examples=3000 if "CI" in os.environ else 300)
pytestmark = pytest.mark.timeout(300)  # seconds; so many examples take 25 s of a processor
FAST = settings(deadline=None, max_examples=100)

_VISIBLE = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"])
_VALUES = st.one_of(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=80),
    st.text(st.one_of(st.sampled_from('"\\<>@,;:()[]=?_. -éß你😀\u00a0'), _VISIBLE), max_size=80),
    st.builds("{}=?utf-8?q?x=0D=0ABcc:_eve@evil.example?= {}".format, st.text(_VISIBLE, max_size=9), st.just("y")),
)
_PIECES = st.one_of(
    st.sampled_from(
        ["\n", "\r", "\r\n", " ", "\t", ".", "=", "\f", "\x85", "\u2028", "\u2029", "From ", "\n.\n", "--"]
    ),
    st.sampled_from(["x" * 78, "x" * 998, "x" * 999, "é" * 40, "你好" * 30, "word " * 250, "\n" * 12]),
    st.text(_VISIBLE, max_size=20),
)
_BODIES = st.lists(_PIECES, max_size=12).map("".join)


def _draft(subject: str, name: str, text: str, html: str, *files: Attachment) -> Draft:
    to = (Address(ADA, name),)
    return Draft(limits=LIMITS, to=to, subject=subject, text=text, html=html, attachments=files)


def _ours(draft: Draft) -> Envelope:
    return compose(draft, Address(SERVICE), MESSAGE_ID, NOW, LIMITS)


def _theirs(draft: Draft) -> bytes:
    """Return the mail by `EmailMessage`, except for its subject and the name in To."""
    message = EmailMessage(policy=policy.SMTP)
    message["From"] = SERVICE
    message["To"], message["Subject"] = ADA, "Hello"
    message["Date"], message["Message-ID"] = DATE, MESSAGE_ID
    if draft.text or not draft.html:
        message.set_content(draft.text)
        if draft.html:
            message.add_alternative(draft.html, subtype="html")
    else:
        message.set_content(draft.html, subtype="html")
    shown = message.get_body(("html",)) or message
    assert isinstance(shown, EmailMessage)
    for inline in (file for file in draft.attachments if file.content_id):
        kind, cid = inline.content_type.split("/"), f"<{inline.content_id}>"
        shown.add_related(inline.content, *kind, filename=inline.filename, cid=cid, disposition="inline")
    for file in (file for file in draft.attachments if not file.content_id):
        message.add_attachment(file.content, *file.content_type.split("/"), filename=file.filename)
    return message.as_bytes()


def _parse(octets: bytes) -> EmailMessage:
    message = message_from_bytes(octets, policy=policy.SMTP)
    assert isinstance(message, EmailMessage)
    assert not [defect for part in message.walk() for defect in part.defects]
    return message


def _squeezed(text: str) -> str:
    """White space at either end of a header's text, and how much of it stands in between, means nothing."""
    return re.sub(r"[ \t]+", " ", text).strip(" ")


def _structure(message: EmailMessage) -> list[tuple[object, ...]]:
    """Type, charset, use and content of every part."""
    return [
        (
            kind.content_type,
            kind.params.get("charset"),
            part["Content-Disposition"],
            part["Content-ID"],
            None if kind.maintype == "multipart" else part.get_content(),
        )
        for part, kind in ((part, part["Content-Type"]) for part in message.walk() if isinstance(part, EmailMessage))
    ]


def _mailbox(octets: bytes) -> tuple[str, str]:
    """Name and address in To, read with adjacent encoded words joined (RFC 2047, 6.2), as `policy.SMTP` does not."""
    name, spec = parseaddr(BytesHeaderParser(policy=policy.compat32).parsebytes(octets)["To"])
    return _squeezed(str(make_header(decode_header(name)))), spec


def _fields(message: Message) -> list[str]:
    return sorted(name.lower() for name in message)


def _assert_wire_form(envelope: Envelope) -> None:
    content = envelope.content
    assert not envelope.smtputf8
    assert content.isascii()
    assert content.endswith(b"\r\n")
    assert b"\0" not in content
    lines = content.split(b"\r\n")
    assert not re.search(rb"[\r\n]", b"".join(lines))
    assert max(map(len, lines)) <= 998  # RFC 5321, 4.5.3.1.6


@MANY
@given(_VALUES, _VALUES, _BODIES, _BODIES)
@example("", "", "", "")
@example("Hello", "Lovelace, Ada", "From me\n.\n..\r\n.", "<p>\r.\n")
@example("é" * 998, "你好" * 60, "x" * 999, "é" * 999)
def test_any_mail_reads_as_the_standard_librarys(subject: str, name: str, text: str, html: str) -> None:
    """Headers, structure and contents are the library's, in lines that every relay accepts.

    Subject and name are held to the given ones instead. The library decodes what looks like an encoded word in them,
    and may lose or add a space where it folds. Our parts have no MIME-Version; the library writes it into some.
    """
    draft = _draft(subject, name, text, html)
    envelope = _ours(draft)
    ours, theirs = _parse(envelope.content), _parse(_theirs(draft))
    _assert_wire_form(envelope)
    assert _structure(ours) == _structure(theirs)
    assert _fields(ours) == _fields(theirs)
    assert all(_fields(part) == sorted(CONTENT) for part in ours.iter_parts())
    for header in ("From", "Date", "Message-ID", "MIME-Version"):
        assert ours[header] == theirs[header]
    assert _squeezed(ours["Subject"]) == _squeezed(subject)
    assert _mailbox(envelope.content) == (_squeezed(name), ADA)
    assert [address.addr_spec for address in ours["To"].addresses] == [ADA]


_FILES = st.lists(
    st.builds(
        Attachment,
        st.sampled_from(["a.bin", "two words.txt"]),
        st.sampled_from(["application/pdf", "audio/ogg", "image/svg+xml"]),
        st.sampled_from([b"", b"\r\n.\r\n", b"x" * 57, b"x" * 58, bytes(range(256))]),
        st.sampled_from(["", "", "one@example.org", "two@example.org"]),
    ),
    max_size=4,
    unique_by=lambda file: file.content_id or object(),  # two files with one id are refused
)


@FAST
@given(_BODIES, _BODIES, _FILES)
@example("x" * 999, "é" * 999, [Attachment("a", "image/png", b"", "c"), Attachment("d", "application/zip", b"")])
def test_files_stand_where_the_standard_library_puts_them(text: str, html: str, files: list[Attachment]) -> None:
    """Inline files are beside the HTML, or the text without it. Other files follow; the texts do not change."""
    draft = _draft("Hello", "Ada", text, html, *files)
    envelope = _ours(draft)
    _assert_wire_form(envelope)
    assert _structure(_parse(envelope.content)) == _structure(_parse(_theirs(draft)))
    assert envelope.content.count(b"MIME-Version") == 1


@pytest.mark.parametrize("character", ["\0", "\x0b", "\x7f", "\x9f", "\ud800"])
@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("subject", lambda value: {"subject": value}),
        ("to[0]", lambda value: {"to": (f"{value} <{ADA}>",)}),
        ("cc[0]", lambda value: {"cc": (f"{value}@example.org",)}),
        ("reply_to[0]", lambda value: {"reply_to": (f"{value} <{ADA}>",)}),
        ("headers['X-A']", lambda value: {"headers": (("X-A", value),)}),
        ("attachments[0].filename", lambda value: {"attachments": (Attachment(value, "", b""),)}),
    ],
)
def test_a_control_character_makes_no_draft(
    field: str, changes: Callable[[str], dict[str, Any]], character: str
) -> None:
    """A control character or a lone surrogate is refused with the field's name, before there are bytes to write."""
    with pytest.raises(InvalidArgument, match=rf"^{re.escape(field)}: holds the control character"):
        read_draft(**changes(f"a{character}b"))


@pytest.mark.parametrize("character", ["\0", "\ud800"])
@pytest.mark.parametrize("field", ["text", "html"])
def test_a_nul_makes_no_draft(field: str, character: str) -> None:
    """A NUL or a lone surrogate in a body is refused: no mail can hold one (RFC 5322, 4)."""
    with pytest.raises(InvalidArgument, match=rf"^{field}: holds the control character"):
        read_draft(**dict[str, Any]({field: f"a{character}b"}))
