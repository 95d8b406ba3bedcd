"""The bytes of a mail: a standard parser reads from them whatever a draft holds."""

import re
import tracemalloc
from collections import deque
from datetime import UTC, datetime
from email import message_from_string, policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import getaddresses
from itertools import islice
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from drafts import LIMITS, read_draft
from otpmail.address import Address, parse_mailbox
from otpmail.compose.attachment import Attachment
from otpmail.compose.draft import Draft, Limits
from otpmail.compose.message import compose, compose_in_steps
from otpmail.cooperate import finish
from otpmail.errors import InvalidArgument
from otpmail.model import Envelope

SENDER = Address("service@example.org", "The Service")
MESSAGE_ID = "<0123456789abcdef@example.org>"
NOW = 1_700_000_000.0
INJECTION = "=?utf-8?q?x=0D=0ABcc:_eve@evil.example?="
FAST = settings(deadline=None, max_examples=60)

_ODD = '"\\<>@,;:()[]=?_. \t-éß你😀\u00a0\u200b\u202e'
_VISIBLE = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"])
_WORDS = st.text(st.one_of(st.sampled_from(_ODD), _VISIBLE), max_size=200)
_ENCODED = st.sampled_from([INJECTION, "=?utf-8?q?a?=", "=?utf-8?b?4pyT?=", "=?utf-8?q?=00?=", "=?us-ascii?q?=0A?="])
_PHRASES = st.one_of(_WORDS, _ENCODED, st.builds("{} {}".format, _ENCODED, _WORDS))
_BODIES = st.text(st.one_of(st.sampled_from("a .\r\n\t\f\x85\u2028=é你"), _VISIBLE), max_size=1500)


def _compose(*, by: Address = SENDER, limits: Limits = LIMITS, **fields: Any) -> Envelope:
    """Compose a draft of these fields, its addresses given as text; `by` is the sender."""
    draft = read_draft(**({"subject": "Hello", "text": "Hello Ada"} | fields))
    return compose(draft, by, MESSAGE_ID, NOW, limits)


def _parse(envelope: Envelope) -> EmailMessage:
    # Parsed as text: the standard library's parser of bytes does not decode a header in UTF-8 (RFC 6532).
    return message_from_string(envelope.content.decode(), policy=policy.default)


def _names(envelope: Envelope, header: str) -> list[tuple[str, str]]:
    """Display names and addresses, by a parser that joins adjacent encoded words (RFC 2047, 6.2).

    The parser of `policy.default` leaves a space between them in a phrase.
    """
    raw = message_from_string(envelope.content.decode(), policy=policy.compat32)[header]
    return [(_squeezed(str(make_header(decode_header(name)))), spec) for name, spec in getaddresses([raw])]


def _squeezed(text: str) -> str:
    """A header's text without the white space that has no meaning: at its ends, and more than one blank between."""
    return re.sub(r"[ \t]+", " ", text).strip(" ")


def _same_lines(body: str) -> list[str]:
    return re.split(r"\r\n|\r|\n", body.removesuffix("\n").removesuffix("\r"))


def _assert_wire_form(envelope: Envelope) -> None:
    content = envelope.content
    assert content.endswith(b"\r\n")
    assert b"\r" not in content.replace(b"\r\n", b"")
    assert b"\n" not in content.replace(b"\r\n", b"")
    assert max(map(len, content.split(b"\r\n"))) <= 998  # RFC 5321, 4.5.3.1.6
    assert b"\0" not in content
    if not envelope.smtputf8:
        assert content.isascii()


def _assert_headers(message: EmailMessage, wanted: dict[str, str]) -> None:
    """Assert that the headers are those wanted, each once, and those of the content."""
    found = [(name, _squeezed(value)) for name, value in message.items() if not name.lower().startswith("content-")]
    assert sorted(found) == sorted((name, _squeezed(value)) for name, value in wanted.items())


_OWN = {
    "From": "The Service <service@example.org>",
    "Date": "Tue, 14 Nov 2023 22:13:20 +0000",
    "Message-ID": MESSAGE_ID,
    "MIME-Version": "1.0",
}


def test_a_text_mail() -> None:
    """The plainest mail has its headers, its envelope and nothing else."""
    envelope = _compose()
    message = _parse(envelope)
    _assert_wire_form(envelope)
    _assert_headers(message, {**_OWN, "To": "ada@example.org", "Subject": "Hello"})
    assert message.get_content_type() == "text/plain"
    assert message.get_content() == "Hello Ada\r\n"
    assert message["Date"].datetime == datetime.fromtimestamp(NOW, UTC)
    assert (envelope.sender, envelope.recipients, envelope.smtputf8) == (SENDER.spec, ("ada@example.org",), False)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"text": "a", "html": ""}, "text/plain"),
        ({"text": "", "html": ""}, "text/plain"),
        ({"text": "", "html": "<p>a"}, "text/html"),
        ({"text": "a", "html": "<p>a"}, "multipart/alternative"),
        ({"text": "a", "attachments": (Attachment("f", "", b"x"),)}, "multipart/mixed"),
        ({"text": "", "html": "<img>", "attachments": (Attachment("f", "image/png", b"x", "c"),)}, "multipart/related"),
    ],
)
def test_the_shape_follows_the_content(changes: dict[str, Any], kind: str) -> None:
    """Text, HTML, both, and files beside or inside them have the types of RFC 2046 and RFC 2387."""
    message = _parse(_compose(**changes))
    assert message.get_content_type() == kind
    assert not [defect for part in message.walk() for defect in part.defects]


def test_an_inline_file_is_beside_the_html_that_shows_it() -> None:
    """An image is part of the HTML alternative, and another file follows both alternatives."""
    files = (Attachment("p.png", "image/png", b"\x89PNG", "pic@x"), Attachment("a.pdf", "application/pdf", b"%PDF"))
    message = _parse(_compose(html='<img src="cid:pic@x">', attachments=files))
    assert [part.get_content_type() for part in message.walk()] == [
        "multipart/mixed",
        "multipart/alternative",
        "text/plain",
        "multipart/related",
        "text/html",
        "image/png",
        "application/pdf",
    ]
    image, document = list(message.walk())[-2:]
    assert image["Content-ID"] == "<pic@x>"
    assert image.get_content_disposition() == "inline"
    assert document.get_content_disposition() == "attachment"


def test_bcc_is_in_the_envelope_alone() -> None:
    """A recipient in Bcc is in the envelope, in no header, and nowhere in the content."""
    envelope = _compose(cc=("cy@example.org",), bcc=("Secret <hidden@example.org>",))
    assert envelope.recipients == ("ada@example.org", "cy@example.org", "hidden@example.org")
    assert b"hidden" not in envelope.content
    assert b"bcc" not in envelope.content.lower()
    assert _parse(envelope)["Cc"] == "cy@example.org"
    alone = _compose(to=(), bcc=("hidden@example.org",))
    assert "To" not in _parse(alone)


def test_a_mail_too_large_as_a_whole_is_refused() -> None:
    """The size counts what encoding adds, and a mail of exactly the limit is accepted."""
    size = len(_compose().content)
    assert _compose(limits=Limits(size, 1)).content
    with pytest.raises(InvalidArgument, match=str(size)):
        _compose(limits=Limits(size - 1, 1))


def test_smtputf8_only_where_an_address_needs_it() -> None:
    """A subject or a body that is not ASCII is encoded; a local part that is not ASCII can't be."""
    assert not _compose(subject="Grüße", text="Grüße", to=("Jürgen <j@bücher.example>",)).smtputf8
    envelope = _compose(to=("jürgen@bücher.example",))
    assert envelope.smtputf8
    assert envelope.recipients == ("jürgen@xn--bcher-kva.example",)
    assert "jürgen@xn--bcher-kva.example".encode() in envelope.content
    assert _parse(envelope)["To"].addresses[0].username == "jürgen"


@pytest.mark.parametrize("field", ["to", "cc", "bcc", "reply_to", "from", "sender", "return_path"])
def test_an_address_that_is_not_ascii_needs_smtputf8(field: str) -> None:
    """A local part that is not ASCII needs SMTPUTF8 wherever it stands; a domain or a display name does not."""
    for text, needed in (("jürgen@example.org", True), ("Jürgen <ada@bücher.example>", False)):
        if field == "from":
            envelope = _compose(by=parse_mailbox(text, "from"))
        else:
            value: Any = (text,)
            if field == "sender":
                value = text
            elif field == "return_path":
                value = parse_mailbox(text, "return_path").spec
            envelope = _compose(**{field: value})
        assert envelope.smtputf8 is needed
        _assert_wire_form(envelope)


@pytest.mark.parametrize(
    "fields",
    [
        {"subject": INJECTION},
        {"to": (f"{INJECTION} <ada@example.org>",)},
        {"to": (f'"{INJECTION}" <ada@example.org>',)},
        {"cc": (f"a {INJECTION} b <cy@example.org>",)},
        {"reply_to": (f"{INJECTION} <cy@example.org>",)},
        {"headers": (("X-A", INJECTION),)},
        {"attachments": (Attachment(INJECTION, "text/plain", b"x"),)},
    ],
)
def test_an_encoded_word_in_a_value_is_text(fields: dict[str, Any]) -> None:
    """Text that looks like an encoded word is not decoded: it could hold a line end, and with it a header."""
    envelope = _compose(**fields)
    assert "Bcc" not in _parse(envelope)
    assert not re.search(rb"(?im)^bcc", envelope.content)
    assert b"eve@evil.example" not in envelope.content.replace(INJECTION.encode(), b"")


def test_an_encoded_word_in_the_senders_name_is_text() -> None:
    """Text that looks like an encoded word is not decoded in EMAIL_FROM or a caller's `from` either."""
    envelope = _compose(by=Address("service@example.org", INJECTION))
    assert not re.search(rb"(?im)^bcc", envelope.content)
    assert _parse(envelope)["From"].addresses[0].addr_spec == "service@example.org"


@FAST
@given(_PHRASES)
@example("=?utf-8?q?a?=")
@example("x" * 998)
@example("é" * 998)
@example(" a  b ")
@example("a\tb")
def test_any_subject_survives(subject: str) -> None:
    """The parser reads the given subject, and no header beside it."""
    envelope = _compose(subject=subject)
    _assert_wire_form(envelope)
    _assert_headers(_parse(envelope), {**_OWN, "To": "ada@example.org", "Subject": subject})


@FAST
@given(_PHRASES)
@example('a "b" \\ c')
@example("Lovelace, Ada")
@example("eve@evil.example")
@example("你好" * 60)
def test_any_name_survives(name: str) -> None:
    """The parser reads the given display name, with any content, and the one mailbox."""
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    try:
        address = parse_mailbox(f'"{quoted}" <ada@example.org>', "to[0]")
    except InvalidArgument:
        return
    draft = Draft(limits=LIMITS, to=(address,), cc=(address, SENDER), reply_to=(address,))
    envelope = compose(draft, SENDER, MESSAGE_ID, NOW, LIMITS)
    message = _parse(envelope)
    _assert_wire_form(envelope)
    service = ("The Service", "service@example.org")
    for header, others in (("To", []), ("Cc", [service]), ("Reply-To", [])):
        assert _names(envelope, header) == [(_squeezed(name), "ada@example.org"), *others]
        assert [found.addr_spec for found in message[header].addresses] == ["ada@example.org", *(o[1] for o in others)]
    assert {header.lower() for header in message} <= {
        *("from", "to", "cc", "reply-to", "subject", "date", "message-id", "mime-version"),
        *("content-type", "content-transfer-encoding"),
    }


@FAST
@given(_BODIES, _BODIES)
@example("From me\n.\n..\r\n.", "<p>\r.\n")
@example("x" * 2000, "é" * 2000)
@example("=" * 100, "a \nb\t\n")
@example("\x85\u2028\f\x0c", "")
def test_any_body_survives(text: str, html: str) -> None:
    """Both bodies come back line by line, with any content and lines of any length."""
    try:
        envelope = _compose(text=text, html=html)
    except InvalidArgument:
        return
    message = _parse(envelope)
    _assert_wire_form(envelope)
    _assert_headers(message, {**_OWN, "To": "ada@example.org", "Subject": "Hello"})
    for kind, body in (("plain", text), ("html", html)):
        if body:
            part = message.get_body((kind,))
            assert isinstance(part, EmailMessage)
            assert _same_lines(part.get_content()) == _same_lines(body)


@FAST
@given(st.dictionaries(st.from_regex(r"X-[A-Za-z0-9!#$%&'*+.^_`|~-]{1,40}", fullmatch=True), _PHRASES, max_size=4))
@example({"X-A": "x" * 4096})
@example({"X-A": "<https://example.org/" + "a" * 500 + ">"})
@example({"X-A": "é" * 2000})
@example({"X-A": ""})
def test_any_extra_header_survives(headers: dict[str, str]) -> None:
    """The parser reads each extra header with its value, and no other header."""
    headers = {name: value for name, value in headers.items() if len({n.lower() for n in headers}) == len(headers)}
    envelope = _compose(headers=tuple(headers.items()))
    _assert_wire_form(envelope)
    _assert_headers(_parse(envelope), {**_OWN, "To": "ada@example.org", "Subject": "Hello", **headers})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("List-Unsubscribe", "<https://example.org/unsubscribe/" + "a" * 100 + ">"),
        ("In-Reply-To", "<" + "b" * 90 + "@example.org>"),
        ("References", " ".join(f"<{'c' * 90}{number}@example.org>" for number in range(3))),
    ],
)
def test_long_ascii_values_are_not_encoded(name: str, value: str) -> None:
    """A URL or a message id stays literal: readers don't decode an encoded word inside one (RFC 2047, 5)."""
    envelope = _compose(headers=((name, value),))
    assert b"=?" not in envelope.content
    assert _parse(envelope)[name] == value


def test_a_long_content_id_is_not_encoded() -> None:
    """A Content-ID stays literal, since the HTML's `cid:` is compared with it (RFC 2392)."""
    files = (Attachment("p.png", "image/png", b"x", "c" * 128),)
    content = _compose(html="<img>", attachments=files).content
    assert f"<{'c' * 128}>".encode() in content


@FAST
@given(
    _WORDS.map(lambda text: text.replace("\t", "")[:100]),
    st.sampled_from(["text/plain", "application/pdf", "image/svg+xml", ""]),
    st.binary(max_size=300),
    st.sampled_from(["", "cid@example.org"]),
)
@example('a"b\\c;d.pdf', "application/pdf", b"\r\n.\r\n", "")
@example("Rechnung März 你好.pdf", "text/plain", b"", "")
def test_any_file_survives(filename: str, content_type: str, content: bytes, content_id: str) -> None:
    """The name, the type and every octet of a file come back."""
    files = (Attachment(filename, content_type, content, content_id),)
    envelope = _compose(html="<p>", attachments=files)
    _assert_wire_form(envelope)
    message = _parse(envelope)
    (part,) = [part for part in message.walk() if part.get_content_disposition() in {"attachment", "inline"}]
    assert part.get_payload(decode=True) == content
    assert part.get_content_type() == (content_type or "application/octet-stream")
    assert part["Content-Disposition"].params["filename"] == (filename or "attachment")
    assert part["Content-ID"] == (f"<{content_id}>" if content_id else None)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"text": "x\n" * 100_000, "html": "é" * 100_000},
        {"to": ("jürgen@bücher.example", "b@x.org"), "headers": (("X-A", "é" * 999), ("X-B", "b")), "automatic": True},
        {"html": "<p>", "attachments": (Attachment("é", "", b"x" * 99_999, "c"), Attachment("b", "", b"y" * 99_999))},
        {"cc": [f"p{number}@example.org" for number in range(99)], "reply_to": ("c@x.org",)},
        {"return_path": ""},
        {"return_path": "é@x.org"},
    ],
)
def test_a_mail_in_steps_is_the_same(fields: dict[str, Any]) -> None:
    """A mail that is written in steps has the same octets as one that is written at once."""
    draft = read_draft(**({"subject": "Hello", "text": "Hello Ada"} | fields))
    at_once = compose(draft, SENDER, MESSAGE_ID, NOW, LIMITS)
    assert finish(compose_in_steps(draft, SENDER, MESSAGE_ID, NOW, LIMITS)) == at_once
    least = Limits(len(at_once.content), 100)
    assert finish(compose_in_steps(draft, SENDER, MESSAGE_ID, NOW, least)) == at_once


@pytest.mark.parametrize(
    ("fields", "wrong", "steps"),
    [
        ({"text": "é" * 40_000}, "text", 2),
        ({"html": "x" * 70_000}, "html", 0),
        ({"attachments": (Attachment("a", "", b"x" * 60_000),)}, "attachments", 0),
        ({"headers": tuple((f"X-{number}", "é" * 4096) for number in range(10))}, "headers", 8),
    ],
)
def test_a_large_mail_beyond_the_limit_is_refused_early(fields: dict[str, Any], wrong: str, steps: int) -> None:
    """A mail that is sure to be too large is refused before a step, any other once it is too large."""
    draft = read_draft(**fields)
    work = compose_in_steps(draft, SENDER, MESSAGE_ID, NOW, Limits(1 << 16, 100))
    with pytest.raises(InvalidArgument, match="makes the mail larger than 65536 octets") as caught:
        deque(islice(work, steps + 1), maxlen=0)
    assert caught.value.field == wrong


def test_the_octets_of_a_large_mail_exist_once() -> None:
    """Writing a file of 8 MB in steps takes the mail's own size in memory, and little more."""
    limits = Limits(16 << 20, 1)
    draft = read_draft(attachments=(Attachment("a", "", b"x" * 8_000_000),), limits=limits)
    tracemalloc.start()
    try:
        envelope = finish(compose_in_steps(draft, SENDER, MESSAGE_ID, NOW, limits))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.3 * len(envelope.content)  # a buffer grows by an eighth


def test_a_mail_says_that_it_is_automatic() -> None:
    """A mail that a program sends says so, and none other does (RFC 3834, 5)."""
    assert _parse(_compose(automatic=True))["Auto-Submitted"] == "auto-generated"
    assert "Auto-Submitted" not in _parse(_compose())


def test_the_same_draft_gives_the_same_message_id_and_date() -> None:
    """A mail's identity is passed in: writing it again gives the same."""
    first, again = (_parse(_compose()) for _ in range(2))
    assert first["Message-ID"] == again["Message-ID"] == MESSAGE_ID
    assert first["Date"] == again["Date"]


def test_an_envelope_shows_no_content() -> None:
    """The bytes may hold a code, so the repr of an envelope lacks them."""
    envelope = _compose(subject="271828", text="271828")
    assert b"271828" in envelope.content
    assert "271828" not in repr(envelope)


def test_who_a_mail_is_from() -> None:
    """From, Sender and Reply-To are headers of their own; bounces go to From unless a return path is given."""
    draft = read_draft(
        from_="Boss <boss@example.org>", sender="Desk <desk@example.org>", reply_to=("a@x.org", "B <b@x.org>")
    )
    envelope = compose(draft, parse_mailbox("Boss <boss@example.org>", "from"), MESSAGE_ID, NOW, LIMITS)
    message = _parse(envelope)
    assert (message["From"], message["Sender"]) == ("Boss <boss@example.org>", "Desk <desk@example.org>")
    assert message["Reply-To"] == "a@x.org, B <b@x.org>"
    assert envelope.sender == "boss@example.org"


@pytest.mark.parametrize("path", ["", "bounce+ada=example.org@example.org", "b@xn--bcher-kva.example"])
def test_a_return_path_is_in_the_envelope_alone(path: str) -> None:
    """Bounces go to the return path, or nowhere (RFC 5321, 4.5.5); no header says so, as the last relay writes it."""
    envelope = _compose(return_path=path)
    assert envelope.sender == path
    assert "Return-Path" not in _parse(envelope)


def test_no_sender_where_it_is_the_author() -> None:
    """Sender is left out where it is the mailbox in From (RFC 5322, 3.6.2)."""
    assert "Sender" not in _parse(_compose(sender=SENDER.spec))


def test_headers_come_in_their_order_and_may_come_twice() -> None:
    """A caller's headers are written in the given order, each as often as it is given."""
    headers = (("X-Tag", "b"), ("X-A", "1"), ("x-tag", "a"), ("X-Tag", "b"))
    message = _parse(_compose(headers=headers))
    assert [(name, value) for name, value in message.items() if name.lower().startswith("x-")] == list(headers)


def test_the_head_of_a_mail_for_a_relay_without_smtputf8() -> None:
    """An address that only SMTPUTF8 carries becomes an empty group with its text, so that others get the mail."""
    envelope = _compose(
        to=("J\u00fcrgen <j\u00fcrgen@b\u00fccher.example>", "Zo\u00eb <zoe@x.org>"),
        cc=("\u00fc@x.org",),
        subject="M\u00e4rz",
    )
    assert envelope.smtputf8
    adapted = envelope.without_smtputf8()
    _assert_wire_form(adapted)
    assert (adapted.smtputf8, adapted.recipients) == (False, envelope.recipients)
    before, after = _parse(envelope), _parse(adapted)
    assert [address.addr_spec for address in after["To"].addresses] == ["zoe@x.org"]
    assert [group.display_name for group in after["To"].groups] == [
        "J\u00fcrgen <j\u00fcrgen@xn--bcher-kva.example>",
        None,
    ]
    assert after["Cc"].groups[0].display_name == "\u00fc@x.org"
    assert before.get_content() == after.get_content()
    for header in ("From", "Subject", "Date", "Message-ID", "MIME-Version"):
        assert before[header] == after[header]


@pytest.mark.parametrize(
    ("fields", "can"),
    [
        ({"bcc": ("\u00fc@x.org",)}, True),
        ({"to": ("\u00fc@x.org", "a@x.org")}, True),
        ({"to": ("\u00fc@x.org",)}, False),
        ({"cc": ("\u00fc@x.org",), "reply_to": ("\u00fc@x.org",)}, False),
        ({"reply_to": ("\u00fc@x.org",)}, False),
        ({"sender": "\u00fc@x.org"}, False),
        ({"return_path": "\u00fc@x.org"}, False),
        ({"by": Address("\u00fc@x.org")}, False),
    ],
)
def test_whether_a_mail_can_go_without_smtputf8(fields: dict[str, Any], can: bool) -> None:  # noqa: FBT001
    """A mail can go to the others unless it is from someone who needs SMTPUTF8, or an answer would go there."""
    envelope = _compose(**fields)
    assert envelope.smtputf8
    assert (envelope.ascii_head is not None) is can
    assert envelope.without_smtputf8().smtputf8 is not can
    assert (
        envelope.only(envelope.recipients[:1]).ascii_head == envelope.with_code("1").ascii_head == envelope.ascii_head
    )


def test_an_address_in_quotes_stands_in_brackets() -> None:
    """An address with quotes is not mistaken for a name."""
    envelope = _compose(to=("foo..bar@docomo.ne.jp", '"a b"@x.org', 'C "x" <"c, d"@x.org>'), reply_to=('"e f"@x.org',))
    assert envelope.recipients == ('"foo..bar"@docomo.ne.jp', '"a b"@x.org', '"c, d"@x.org')
    message = _parse(envelope)
    assert [address.username for address in message["To"].addresses] == ["foo..bar", "a b", "c, d"]
    assert message["To"].addresses[2].display_name == 'C "x"'
    assert b'To: <"foo..bar"@docomo.ne.jp>, <"a b"@x.org>,' in envelope.content
    assert b'Reply-To: <"e f"@x.org>' in envelope.content
