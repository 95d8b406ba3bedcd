"""Drafts: every field has its limits, and no value can add a header or a recipient."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cost import lines_run
from drafts import ADA, read_draft
from otpmail.address import Address
from otpmail.compose.attachment import Attachment
from otpmail.compose.draft import (
    _NOT_IN_A_BODY,
    LARGE,
    Draft,
    Limits,
    check_bodies,
)
from otpmail.compose.fields import NOT_IN_A_VALUE, bare_message_id
from otpmail.cooperate import finish
from otpmail.errors import InvalidArgument
from otpmail.header_names import OWN_HEADERS

LIMITS = Limits(size=2000, recipients=5)
FILE = Attachment("a.txt", "text/plain", b"a")

Fields = dict[str, Any]


def _draft(fields: Fields) -> Draft:
    good: Fields = {"subject": "Hello", "text": "Hello Ada", "limits": LIMITS}
    return read_draft(**(good | fields))


def _with_file(**changes: str | bytes | bool) -> Fields:
    return {"attachments": (FILE, replace(FILE, **changes))}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"to": ()}, "to"),
        ({"to": ("",)}, "to[0]"),
        ({"to": (ADA, "nobody")}, "to[1]"),
        ({"cc": (f"{ADA}\r\nBcc: eve@example.org",)}, "cc[0]"),
        ({"bcc": ("a@example.org, b@example.org",)}, "bcc[0]"),
        ({"to": (ADA,) * 6}, "to"),
        ({"cc": (ADA,) * 6}, "cc"),
        ({"to": ("a@x.org",) * 2, "cc": ("b@x.org",) * 2, "bcc": ("c@x.org",) * 2}, "to"),
        ({"from_": "nobody"}, "from"),
        ({"sender": "nobody"}, "sender"),
        ({"reply_to": (ADA, "nobody")}, "reply_to[1]"),
        ({"reply_to": (ADA,) * 51, "limits": Limits(size=2000, recipients=100)}, "reply_to"),
        ({"subject": "x" * 999}, "subject"),
        ({"subject": "a\r\nBcc: eve@example.org"}, "subject"),
        ({"subject": "a\u2028b"}, "subject"),
        ({"text": "x" * 2001}, "text"),
        ({"text": "a\0b"}, "text"),
        ({"html": "x" * 2001}, "html"),
        ({"html": "a\0b"}, "html"),
        ({"headers": tuple((f"X-{number}", "") for number in range(51))}, "headers"),
        ({"headers": (("", "x"),)}, "headers['']"),
        ({"headers": (("X A", "x"),)}, "headers['X A']"),
        ({"headers": (("X:A", "x"),)}, "headers['X:A']"),
        ({"headers": (("X-Ä", "x"),)}, "headers['X-Ä']"),
        ({"headers": (("X\r\nBcc", "x"),)}, "headers['X\\r\\nBcc']"),
        ({"headers": (("X" * 65, "x"),)}, f"headers['{'X' * 64}']"),
        ({"headers": (("X-A", "x\r\nBcc: eve@example.org"),)}, "headers['X-A']"),
        ({"headers": (("X-A", "x\nb"),)}, "headers['X-A']"),
        ({"headers": (("X-A", "x" * 16_385),)}, "headers['X-A']"),
        ({"attachments": (FILE,) * 51}, "attachments"),
        ({"attachments": (replace(FILE, content=b"x" * 1001),) * 2}, "attachments"),
        (_with_file(filename="x" * 256), "attachments[1].filename"),
        (_with_file(filename='a"\r\nX-A: b'), "attachments[1].filename"),
        (_with_file(content_type="text"), "attachments[1].content_type"),
        (_with_file(content_type="text/plain charset=utf-8"), "attachments[1].content_type"),
        (_with_file(content_type="text/plain; charset"), "attachments[1].content_type"),
        (_with_file(content_type="text/plain; charset=a b"), "attachments[1].content_type"),
        (_with_file(content_type="text/plain; charset=utf-8; Charset=utf-8"), "attachments[1].content_type"),
        (_with_file(content_type="text/plain (a comment)"), "attachments[1].content_type"),
        (_with_file(content_type="text/plain; x=é"), "attachments[1].content_type"),
        (_with_file(content_type='text/plain; x="a'), "attachments[1].content_type"),
        (_with_file(content_type='text/plain; x="a\nb"'), "attachments[1].content_type"),
        (_with_file(content_type="text/plain; x=" + "y" * 500), "attachments[1].content_type"),
        (_with_file(content_type="text/plain\r\nX-A: b"), "attachments[1].content_type"),
        (_with_file(content_type="multipart/mixed"), "attachments[1].content_type"),
        (_with_file(content_type="Message/Partial; id=a"), "attachments[1].content_type"),
        (_with_file(content_id="a", alternative=True), "attachments[1].alternative"),
        ({"message_id": "<a@b>"}, "message_id"),
        ({"message_id": "a"}, "message_id"),
        ({"message_id": "a b@c"}, "message_id"),
        ({"message_id": "ä@c"}, "message_id"),
        ({"message_id": "a@b@c"}, "message_id"),
        *[({"message_id": text}, "message_id") for text in (".a@b", "a..b@c", "a.@b", "a@b..c", "a@b.", "a@", "@b")],
        *[({"message_id": text}, "message_id") for text in ('"a"@b', "a@[b", "a@[b]c", "a@[\\]", "a(c)@b", "a,b@c")],
        ({"message_id": "a@b\r\nBcc: eve@example.org"}, "message_id"),
        ({"message_id": "a" * 250 + "@b"}, "message_id"),
        (_with_file(content_id="a b"), "attachments[1].content_id"),
        (_with_file(content_id="a>\r\nX-A: b"), "attachments[1].content_id"),
        (_with_file(content_id="x" * 129), "attachments[1].content_id"),
    ],
)
def test_a_wrong_field_is_named(fields: Fields, wrong: str) -> None:
    """A field beyond its limits makes no draft, but InvalidArgument with that field's name."""
    with pytest.raises(InvalidArgument) as caught:
        _draft(fields)
    assert caught.value.field == wrong


@pytest.mark.parametrize("name", sorted(OWN_HEADERS | {"content-type", "content-id", "content-transfer-encoding"}))
def test_the_services_own_headers_are_refused(name: str) -> None:
    """A caller can't write a header, in any spelling, that the service or a relay writes or that names recipients."""
    for spelt in (name, name.title(), name.upper()):
        with pytest.raises(InvalidArgument, match="written by the service itself"):
            _draft({"headers": ((spelt, "x"),)})


def test_own_headers_are_those_that_matter() -> None:
    """A caller's headers can't say who a mail is from, who it goes to, or who else gets it."""
    wanted = {"from", "sender", "to", "cc", "bcc", "reply-to", "date", "message-id", "subject", "return-path"}
    assert wanted | {"resent-to", "resent-bcc", "received", "mime-version"} <= OWN_HEADERS


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"subject": "", "text": ""},
        {"subject": "x" * 998},
        {"subject": "tab\tand Ünïcode 你好"},
        {"text": "lines\r\nof\nany\rkind\f\x85\u2028\u2029\t"},
        {"text": "x" * 2000},
        {
            "headers": (
                ("Auto-Submitted", "auto-generated"),
                ("List-Id", "<a.example.org>"),
                ("X-A", "ü\t"),
                ("X-A", ""),
            )
        },
        {"attachments": (FILE, replace(FILE, content_id="a@b"), Attachment("", "", b""))},
        {"attachments": (replace(FILE, content=b"x" * 700),) * 2},
        {"attachments": (replace(FILE, content_type='Text/Calendar ; Method=a;b="c";', alternative=True),)},
        {"attachments": (replace(FILE, content_type="message/rfc822", content=b"x\n" * 900),)},
        {"message_id": "a.b=c+{d}@[127.0.0.1]"},
        {"message_id": "a" * 248 + "@b"},
        {"return_path": ""},
    ],
)
def test_good_fields_are_kept_unchanged(fields: Fields) -> None:
    """Limits are inclusive, text is any text, and checking changes nothing."""
    draft = _draft(fields)
    assert {name: getattr(draft, name) for name in fields} == fields


def test_a_draft_holds_addresses() -> None:
    """The addresses of a draft are parsed; a mail may go to Bcc alone."""
    draft = _draft(
        {"to": (), "bcc": ("Ada <ada@example.org>",), "reply_to": ("b@bücher.example",), "sender": "c@x.org"}
    )
    assert (draft.to, draft.bcc) == ((), (Address(ADA, "Ada"),))
    assert (draft.reply_to, draft.sender) == ((Address("b@xn--bcher-kva.example"),), Address("c@x.org"))


@pytest.mark.parametrize("character", ["\n", "\t", "a", "\u2028", "你"])
def test_a_body_is_checked_in_one_search(character: str) -> None:
    """A body of nothing but line ends is checked as fast as any other: in one search, not a step for each."""
    fields = {"text": character * 100_000, "limits": Limits(size=100_000, recipients=5)}
    assert lines_run(lambda: _draft(fields)) < 1000


@pytest.mark.parametrize(
    "fields",
    [
        {"to": ("\0" * 1000,)},
        {"reply_to": ("<" + "\0" * 1000,)},
        {"subject": "\0" * 1000},
        {"headers": (("X-A", "\0" * 20_000),)},
        {"headers": (("X-A", "\0" * 16_384),) * 13},
        _with_file(filename="\0" * 1000),
    ],
)
def test_length_is_checked_first(fields: Fields) -> None:
    """A text that is too long is refused before it is read: a request may hold ten million characters of it."""
    with pytest.raises(InvalidArgument, match="longer than"):
        _draft(fields)


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"text": "x" * 40_000, "html": "y" * 40_001, "limits": Limits(size=80_000, recipients=5)}, "html"),
        ({"text": "x" * 70_000, "html": "y" * 10_001, "limits": Limits(size=80_000, recipients=5)}, "text"),
        ({"attachments": (replace(FILE, content=b"x" * 1462),)}, "attachments"),
        ({"text": "x" * 1000, "attachments": (replace(FILE, content=b"x" * 900),)}, "text"),
    ],
)
def test_a_mail_that_can_only_be_too_large_is_no_draft(fields: Fields, wrong: str) -> None:
    """Parts are counted together, files as long as base64 makes them; the error names the largest part."""
    with pytest.raises(InvalidArgument, match=r"larger than [28]0+ octets") as caught:
        _draft(fields)
    assert caught.value.field == wrong


def test_bodies_checked_in_steps() -> None:
    """`check_bodies` refuses what a draft refuses, and a draft of bodies that it has checked takes them unchanged."""
    limits = Limits(size=300_000, recipients=5)
    good = "line\r\n\t" * 30_000
    assert len(list(check_bodies(good, "", limits))) > 2
    for text, html in (("a\0", ""), ("", "a\0"), (good + "\0", ""), ("x" * 300_001, ""), ("", "x" * 300_001)):
        with pytest.raises(InvalidArgument) as in_steps:
            finish(check_bodies(text, html, limits))
        with pytest.raises(InvalidArgument) as at_once:
            _draft({"text": text, "html": html, "limits": limits})
        assert str(in_steps.value) == str(at_once.value)
    assert _draft({"text": good, "limits": limits, "bodies_checked": True}).text == good


@pytest.mark.parametrize("length", [0, 1, LARGE - 1, LARGE, LARGE + 1, 3 * LARGE])
@pytest.mark.parametrize("character", ["a", "\u00e9"])
@pytest.mark.parametrize("last", ["\0", "\ud800"])
def test_the_last_character_of_a_long_body_is_checked(length: int, character: str, last: str) -> None:
    """A body of any length is searched to its end, in steps too, and the character is named."""
    limits = Limits(size=300_000, recipients=5)
    good = character * length
    finish(check_bodies(good, good, limits))
    for check in (
        lambda: _draft({"text": good + last, "limits": limits}),
        lambda: finish(check_bodies(good + last, "", limits)),
    ):
        with pytest.raises(InvalidArgument, match=f"U\\+{ord(last):04X}"):
            check()


@pytest.mark.parametrize(
    ("fields", "large"),
    [
        ({}, False),
        ({"text": "x" * LARGE}, False),
        ({"text": "x" * LARGE, "html": "y"}, True),
        ({"attachments": (replace(FILE, content=b"x" * 10_000),) * 2}, False),
        ({"attachments": (replace(FILE, content=b"x" * LARGE),)}, True),
        ({"attachments": (replace(FILE, filename="é" * 255),) * 50}, True),
        ({"attachments": (FILE,) * 50}, False),
        ({"headers": tuple((f"X-{number}", "x" * 4096) for number in range(20))}, True),
        ({"to": [f"p{number}@example.org" for number in range(300)]}, True),
        ({"cc": [f"p{number}@example.org" for number in range(100)]}, False),
    ],
)
def test_a_mail_is_large_by_whatever_takes_long(fields: Fields, large: bool) -> None:  # noqa: FBT001
    """Texts, files, names of files, headers and recipients all count."""
    assert _draft({"text": "", "limits": Limits(size=1 << 20, recipients=300), **fields}).is_large is large


def test_each_recipient_is_mailed_once() -> None:
    """A recipient in several fields gets one copy, in the order to, cc, bcc; domains are in wire form."""
    draft = _draft(
        {
            "to": ("Ada <ada@example.org>", "bob@bücher.example"),
            "cc": (ADA,),
            "bcc": ("cy@example.org", "bob@xn--bcher-kva.example"),
        }
    )
    assert draft.recipients == (ADA, "bob@xn--bcher-kva.example", "cy@example.org")


def test_domains_are_compared_without_case() -> None:
    """A domain has no case, a local part has (RFC 5321, 2.4); the first spelling is used."""
    addresses = ("A@Example.org", "A@example.ORG", "a@example.org", '"A"@example.org', '"a b"@X.org', '"a b"@x.org')
    assert _draft({"to": addresses[:3], "bcc": addresses[3:], "limits": Limits(2000, 9)}).recipients == (
        *("A@Example.org", "a@example.org", '"a b"@X.org'),
    )


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {"to": st.tuples(st.text()), "reply_to": st.tuples(st.text()), "subject": st.text(), "text": st.text()},
    )
)
def test_any_text_is_good_or_an_invalid_argument(fields: Fields) -> None:
    """No text raises anything but InvalidArgument, and a subject that passes can't end its line."""
    try:
        draft = _draft(fields)
    except InvalidArgument:
        return
    assert not set(draft.subject) & set("\0\r\n\v\f\x85\u2028\u2029")


def test_the_content_is_in_no_repr() -> None:
    """Codes travel in subject and body, so a draft shows neither."""
    draft = _draft({"subject": "Your code: 271828", "text": "271828", "html": "<p>271828</p>"})
    assert "271828" not in repr(draft)


_ODD = st.text(
    st.sampled_from("ab \t\r\n\0\x07\x0b\x0c\x1b\x7f\x80\x85\x9f\xa0\xadÄ\u2028\u2029\ud800\u200b\ue000\U0001f600")
)


@given(text=st.text() | _ODD)
@settings(max_examples=1000)
def test_the_fast_paths_refuse_as_the_patterns_do(text: str) -> None:
    """Most texts pass without a search for control characters, and the search would find none in them."""
    for field, forbidden in (("text", _NOT_IN_A_BODY), ("subject", NOT_IN_A_VALUE)):
        if forbidden.search(text):
            with pytest.raises(InvalidArgument) as refused:
                _draft({field: text})
            assert refused.value.field == field
        else:
            assert getattr(_draft({field: text}), field) == text


@pytest.mark.parametrize("text", ["a@b.org", "<a@b.org>", " <a@b.org>\r\n"])
def test_a_message_id_with_or_without_brackets(text: str) -> None:
    """Brackets and blanks around a message id are not part of it."""
    assert _draft({"message_id": bare_message_id(text)}).message_id == "a@b.org"
