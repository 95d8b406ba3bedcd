"""Drafts: every field has its limits, and no value can add a header or a recipient."""

import sys
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otpmail.address import Address
from otpmail.compose.draft import (
    _NOT_IN_A_BODY,
    _NOT_IN_A_VALUE,
    OWN_HEADERS,
    Attachment,
    CheckedDraft,
    Draft,
    Limits,
    check,
)
from otpmail.errors import InvalidArgument

LIMITS = Limits(size=2000, recipients=5)
SENDER = Address("service@example.org")
GOOD = Draft(to=("ada@example.org",), subject="Hello", text="Hello Ada")
FILE = Attachment("a.txt", "text/plain", b"a")


def _check(draft: Draft) -> CheckedDraft:
    return check(draft, sender=SENDER, limits=LIMITS)


def _with_file(**changes: str | bytes) -> Draft:
    return replace(GOOD, attachments=(FILE, replace(FILE, **changes)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("draft", "field"),
    [
        (replace(GOOD, to=()), "to"),
        (replace(GOOD, to=("",)), "to[0]"),
        (replace(GOOD, to=("ada@example.org", "nobody")), "to[1]"),
        (replace(GOOD, cc=("ada@example.org\r\nBcc: eve@example.org",)), "cc[0]"),
        (replace(GOOD, bcc=("a@example.org, b@example.org",)), "bcc[0]"),
        (replace(GOOD, to=("ada@example.org",) * 6), "to"),
        (replace(GOOD, cc=("ada@example.org",) * 6), "cc"),
        (replace(GOOD, to=("a@x.org",) * 2, cc=("b@x.org",) * 2, bcc=("c@x.org",) * 2), "to"),
        (replace(GOOD, reply_to="nobody"), "reply_to"),
        (replace(GOOD, subject="x" * 999), "subject"),
        (replace(GOOD, subject="a\r\nBcc: eve@example.org"), "subject"),
        (replace(GOOD, subject="a\u2028b"), "subject"),
        (replace(GOOD, text="x" * 2001), "text"),
        (replace(GOOD, text="a\0b"), "text"),
        (replace(GOOD, html="x" * 2001), "html"),
        (replace(GOOD, html="a\x1bb"), "html"),
        (replace(GOOD, headers={f"X-{number}": "" for number in range(51)}), "headers"),
        (replace(GOOD, headers={"": "x"}), "headers['']"),
        (replace(GOOD, headers={"X A": "x"}), "headers['X A']"),
        (replace(GOOD, headers={"X:A": "x"}), "headers['X:A']"),
        (replace(GOOD, headers={"X-Ä": "x"}), "headers['X-Ä']"),
        (replace(GOOD, headers={"X\r\nBcc": "x"}), "headers['X\\r\\nBcc']"),
        (replace(GOOD, headers={"X" * 65: "x"}), f"headers['{'X' * 64}']"),
        (replace(GOOD, headers={"X-A": "x\r\nBcc: eve@example.org"}), "headers['X-A']"),
        (replace(GOOD, headers={"X-A": "x\nb"}), "headers['X-A']"),
        (replace(GOOD, headers={"X-A": "x" * 4097}), "headers['X-A']"),
        (replace(GOOD, attachments=(FILE,) * 51), "attachments"),
        (replace(GOOD, attachments=(replace(FILE, content=b"x" * 1001),) * 2), "attachments"),
        (_with_file(filename="x" * 256), "attachments[1].filename"),
        (_with_file(filename='a"\r\nX-A: b'), "attachments[1].filename"),
        (_with_file(content_type="text"), "attachments[1].content_type"),
        (_with_file(content_type="text/plain; charset=utf-8"), "attachments[1].content_type"),
        (_with_file(content_type="text/plain\r\nX-A: b"), "attachments[1].content_type"),
        (_with_file(content_type="multipart/mixed"), "attachments[1].content_type"),
        (_with_file(content_type="Message/rfc822"), "attachments[1].content_type"),
        (_with_file(content_id="a b"), "attachments[1].content_id"),
        (_with_file(content_id="a>\r\nX-A: b"), "attachments[1].content_id"),
        (_with_file(content_id="x" * 129), "attachments[1].content_id"),
    ],
)
def test_what_is_wrong_is_named(draft: Draft, field: str) -> None:
    """Each field that is not what it may be is InvalidArgument with that field's name."""
    with pytest.raises(InvalidArgument) as caught:
        _check(draft)
    assert caught.value.field == field


@pytest.mark.parametrize("name", sorted(OWN_HEADERS | {"content-type", "content-id", "content-transfer-encoding"}))
def test_the_services_own_headers_are_refused(name: str) -> None:
    """What the service or a relay writes, or what says who a mail goes to, no caller writes; in no spelling."""
    for spelt in (name, name.title(), name.upper()):
        with pytest.raises(InvalidArgument, match="written by the service itself"):
            _check(replace(GOOD, headers={spelt: "x"}))


def test_own_headers_are_those_that_matter() -> None:
    """The ways to say who a mail is from, who it goes to, and who else: none is left to callers."""
    wanted = {"from", "sender", "to", "cc", "bcc", "reply-to", "date", "message-id", "subject", "return-path"}
    assert wanted | {"resent-to", "resent-bcc", "received", "mime-version"} <= OWN_HEADERS


@pytest.mark.parametrize(
    "draft",
    [
        GOOD,
        replace(GOOD, subject="", text=""),
        replace(GOOD, subject="x" * 998),
        replace(GOOD, subject="tab\tand Ünïcode 你好"),
        replace(GOOD, text="lines\r\nof\nany\rkind\f\x85\u2028\u2029\t"),
        replace(GOOD, text="x" * 2000),
        replace(GOOD, to=(), bcc=("ada@example.org",)),
        replace(
            GOOD, headers={"Auto-Submitted": "auto-generated", "List-Id": "<a.example.org>", "X-Ä"[:2] + "A": "ü\t"}
        ),
        replace(GOOD, attachments=(FILE, replace(FILE, content_id="a@b"), Attachment("", "", b""))),
        replace(GOOD, attachments=(replace(FILE, content=b"x" * 1000),) * 2),
    ],
)
def test_what_is_good_is_taken_as_it_is(draft: Draft) -> None:
    """Limits are inclusive, text is any text, and checking changes nothing."""
    assert _check(draft).draft is draft


def _lines_run(act: Callable[[], object]) -> int:
    """How many lines of Python `act` runs through: what it costs, whatever the machine."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("character", ["\n", "\t", "a", "\u2028", "你"])
def test_what_a_body_may_hold_is_not_walked_through(character: str) -> None:
    """A body of nothing but line ends is checked as fast as any other: in one search, not a step for each."""
    limits = Limits(size=100_000, recipients=5)
    draft = replace(GOOD, text=character * 100_000)
    assert _lines_run(lambda: check(draft, sender=SENDER, limits=limits)) < 1000


@pytest.mark.parametrize(
    "draft",
    [
        replace(GOOD, to=("\0" * 1000,)),
        replace(GOOD, reply_to="<" + "\0" * 1000),
        replace(GOOD, subject="\0" * 1000),
        replace(GOOD, headers={"X-A": "\0" * 5000}),
        _with_file(filename="\0" * 1000),
    ],
)
def test_length_is_looked_at_first(draft: Draft) -> None:
    """What is too long is refused for that, before it is read: a request may hold ten million characters of it."""
    with pytest.raises(InvalidArgument, match="longer than"):
        _check(draft)


def test_each_recipient_is_mailed_once() -> None:
    """Whoever stands in several fields gets one copy; the order is to, cc, bcc; domains are in wire form."""
    draft = replace(
        GOOD,
        to=("Ada <ada@example.org>", "bob@bücher.example"),
        cc=("ada@example.org",),
        bcc=("cy@example.org", "bob@xn--bcher-kva.example"),
    )
    assert _check(draft).recipients == ("ada@example.org", "bob@xn--bcher-kva.example", "cy@example.org")


@pytest.mark.parametrize("field", ["to", "cc", "bcc", "reply_to"])
def test_a_local_part_that_is_not_ascii_needs_smtputf8(field: str) -> None:
    """Any address that a header or the envelope shows counts; a domain or a display name does not."""
    international: dict[str, str | tuple[str, ...]] = {field: "jürgen@example.org"}
    plain: dict[str, str | tuple[str, ...]] = {field: "Jürgen <ada@bücher.example>"}
    for values in (international, plain):
        if field != "reply_to":
            values[field] = (str(values[field]),)
    assert _check(replace(GOOD, **international)).needs_smtputf8  # type: ignore[arg-type]
    assert not _check(replace(GOOD, **plain)).needs_smtputf8  # type: ignore[arg-type]
    assert check(GOOD, sender=Address("ü@example.org"), limits=LIMITS).needs_smtputf8


@settings(deadline=None)
@given(st.builds(Draft, to=st.tuples(st.text()), subject=st.text(), text=st.text(), reply_to=st.text()))
def test_any_text_is_good_or_an_invalid_argument(draft: Draft) -> None:
    """No text makes anything but InvalidArgument, and a subject that passes can't end its line."""
    try:
        checked = _check(draft)
    except InvalidArgument:
        return
    assert not set(checked.draft.subject) & set("\0\r\n\v\f\x85\u2028\u2029")


def test_what_a_mail_says_is_in_no_repr() -> None:
    """Codes travel in subject and body: neither a draft nor a checked one shows them."""
    draft = replace(GOOD, subject="Your code: 271828", text="271828", html="<p>271828</p>")
    assert "271828" not in repr(draft)
    assert "271828" not in repr(_check(draft))


_ODD = st.text(
    st.sampled_from("ab \t\r\n\0\x07\x0b\x0c\x1b\x7f\x80\x85\x9f\xa0\xadÄ\u2028\u2029\ud800\u200b\ue000\U0001f600")
)


@given(text=st.text() | _ODD)
@settings(max_examples=1000)
def test_the_short_ways_refuse_what_the_patterns_do(text: str) -> None:
    """Most texts are told to be good without the patterns; they agree, whatever the text."""
    for field, draft, forbidden in (
        ("text", replace(GOOD, text=text), _NOT_IN_A_BODY),
        ("subject", replace(GOOD, subject=text), _NOT_IN_A_VALUE),
    ):
        if forbidden.search(text):
            with pytest.raises(InvalidArgument) as refused:
                _check(draft)
            assert refused.value.field == field
        else:
            _check(draft)
