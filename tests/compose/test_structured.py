"""Header fields with a structure: never encoded, folded where that changes nothing, refused where they can't be."""

import os
import re
from contextlib import suppress
from email import message_from_bytes, policy

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cost import seconds_of
from drafts import LIMITS, read_draft
from otpmail.address import Address
from otpmail.compose.draft import Draft
from otpmail.compose.fields import MAX_HEADER_VALUE, MAX_HEADERS_LENGTH
from otpmail.compose.headers import structured
from otpmail.compose.message import compose
from otpmail.compose.structured import MAX_WORD, fault, is_structured, squeezed, words_of
from otpmail.errors import InvalidArgument

SENDER = Address("service@example.org")
UNSUBSCRIBE = "<https://example.org/u/dG9rZW4=?list=3>"
FAST = settings(deadline=None, max_examples=3000 if "CI" in os.environ else 300)
pytestmark = pytest.mark.timeout(300)  # seconds; so many examples take 25 s of a processor
_SIGNS = 'ab,,  \t"\\<>{}[]:;=?_%@.-/'
_ASCII = st.text(st.one_of(st.sampled_from(_SIGNS), st.characters(min_codepoint=32, max_codepoint=126)), max_size=400)
_VALUES = st.one_of(_ASCII, st.lists(_ASCII, max_size=12).map(" ".join), st.lists(_ASCII, max_size=12).map(",".join))


def _content(*headers: tuple[str, str]) -> bytes:
    return compose(read_draft(headers=headers), SENDER, "<1@example.org>", 0.0, LIMITS).content


def _unfolded(field: str) -> str:
    """The value of a field as a reader finds it (RFC 5322, 2.2.3)."""
    return re.sub(r"\r\n(?=[ \t])", "", field).removesuffix("\r\n").partition(":")[2]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("List-Unsubscribe", UNSUBSCRIBE),
        ("List-Unsubscribe", "<mailto:u@example.org?subject==?utf-8?q?a?=>"),
        ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
        ("LIST-ID", "News <news.example.org>"),
        ("References", "<a=?b?=@example.org> <c@example.org>"),
        ("In-Reply-To", "<=?utf-8?q?a?=@example.org>"),
        ("Feedback-ID", "campaign:customer:otp:example"),
        ("Auto-Submitted", "auto-replied"),
        ("precedence", "bulk"),
        ("X-SMTPAPI", '{"unique_args": {"a": "=?b?="}, "category": ["x  y"]}'),
        ("X-MC-Metadata", '{"user":"=?1?"}'),
        ("X-Mailgun-Variables", '{"token": "=?x?q?y?="}'),
        ("X-PM-Metadata-Colour", "a=?b"),
        ("X-SES-MESSAGE-TAGS", "a=1, b=2"),
        ("X-Postal-Tag", "=?a?q?b?="),
        ("X-MSYS-API", '{"options": {"open_tracking": false}}'),
        ("Disposition-Notification-To", '"Desk =?" <desk@example.org>'),
    ],
)
def test_a_structured_value_is_written_as_it_is(name: str, value: str) -> None:
    """No field with a structure is ever an encoded word, whatever is in it (RFC 2047, 5)."""
    assert f"\r\n{name}: {value}\r\n".encode() in _content((name, value))


@pytest.mark.parametrize(
    "name",
    [
        *("Message-ID-Prefix", "X-Campaign", "X-Mailer", "Organization", "Comments", "Keywords", "X-A", "X-List"),
        *("Reference", "X-Smtp", "Listing"),
    ],
)
def test_other_fields_are_text(name: str) -> None:
    """A field of any other name is text for people, encoded where it has other letters."""
    assert not is_structured(name)
    assert b"=?utf-8?b?" in _content((name, "März"))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("  <a@x.org>\t\t <b@x.org> ", "<a@x.org> <b@x.org>"),
        ('{"a  b":   "c\t d"}', '{"a  b": "c\t d"}'),
        ('"a \\"  b"  c', '"a \\"  b" c'),
        ('open  "quote  ', 'open "quote'),
        ("a,b", "a,b"),
    ],
)
def test_blanks_outside_quotes_are_one(value: str, written: str) -> None:
    """Blanks mean nothing between the parts of a value, and are kept within quotes."""
    assert structured("X-SMTPAPI", value) == f"X-SMTPAPI: {written}\r\n"


def test_a_long_thread_keeps_its_messages() -> None:
    """References holds the ids of a hundred messages, on lines of 78 characters where an id fits one."""
    value = " ".join([f"<{number:040}@mail.prod.example.org>" for number in range(100)])
    (field,) = re.findall(r"References:.*?\r\n(?=\S)", _content(("References", value)).decode(), re.DOTALL)
    assert _unfolded(field) == f" {value}"
    assert max(map(len, field.split("\r\n"))) <= 78


def test_where_a_line_may_end() -> None:
    """A line ends at a blank or behind a comma, but not in an address, a URL or a string."""
    url = f"<https://example.org/{'a,' * 30}>"
    assert structured("List-Unsubscribe", f"{url},{url}") == f"List-Unsubscribe: {url},\r\n {url}\r\n"
    string = '"' + "a, " * 30 + '"'
    assert structured("X-SMTPAPI", f"{string}, {string}") == f"X-SMTPAPI: {string},\r\n {string}\r\n"
    bare = f"https://example.org/{'a,' * 30}"
    assert structured("List-Help", f"{bare} {bare}") == f"List-Help: {bare}\r\n {bare}\r\n"
    many = ",".join([f"t{number:02}" for number in range(30)])
    assert structured("X-MC-Tags", many).split("\r\n")[1] == " " + ",".join([f"t{number}" for number in range(16, 30)])


@FAST
@given(_VALUES)
@example('"' + "a " * 600 + '"')
@example("<" + "a " * 600 + ">")
@example("a" * MAX_WORD)
@example(",".join(["a" * 90] * 40))
@example("0" * 63 + '<">,"')
@example("\\" * 999 + " b")
@example("https://a.example/" + "b," * 600)
def test_a_structured_value_keeps_what_it_means(value: str) -> None:
    """A reader finds the value with its blanks squeezed; a blank is added only where a line ends behind a comma."""
    value = value[:MAX_HEADER_VALUE]
    if fault(value):
        return
    field = structured("X-SMTPAPI", value)
    lines = field.removesuffix("\r\n").split("\r\n")
    assert max(map(len, lines)) <= 998
    assert all(line.startswith((" ", "\t")) and line.strip(" \t") for line in lines[1:])
    ended_at_commas = re.sub(r",\r\n (?=[^ \t])", ",", field)  # or at a blank that was there
    wanted = squeezed(value)
    assert {_unfolded(field)[1:], _unfolded(ended_at_commas)[1:]} & {wanted} or (
        _unfolded(field).replace(" ", "") == f" {wanted}".replace(" ", "")
    )
    if "<" not in value:  # within angle brackets a quote is a sign like any other
        assert all(part in _unfolded(field) for part in re.findall(r'"(?:[^"\\]|\\.)*"', wanted))


@FAST
@given(_VALUES)
def test_the_words_of_a_value_are_the_value(value: str) -> None:
    """No character is lost between two words, and none is changed."""
    value = squeezed(value)
    assert "".join(words_of(value)) == value


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("References", "<é@example.org>", "not ASCII"),
        ("List-Unsubscribe", "<https://bücher.example/>", "not ASCII"),
        ("Disposition-Notification-To", "Jürgen <j@example.org>", "not ASCII"),
        ("Feedback-ID", "", "is empty"),
        ("Feedback-ID", " \t ", "is empty"),
        ("List-Unsubscribe", "<" + "a" * MAX_WORD + ">", "997"),
        ("List-Unsubscribe", "<" + "a," * 500 + ">", "997"),
        ("X-SMTPAPI", "a " * 9 + "b" * (MAX_WORD + 1), "997"),
        ("X-SMTPAPI", '"' + "a," * 500 + '"', "997"),
        ("X-SMTPAPI", "a " * 999 + '"' + "a," * 500 + '"', "997"),
    ],
)
def test_a_value_that_can_not_be_written_is_refused(name: str, value: str, said: str) -> None:
    """A value beyond ASCII, or without a place for a line to end, is InvalidArgument with the header's name."""
    with pytest.raises(InvalidArgument, match=said) as caught:
        read_draft(headers=(("X-A", "b"), (name, value)))
    assert caught.value.field == f"headers[{name!r}]"


@pytest.mark.parametrize("name", ["References", "in-reply-to", "List-Unsubscribe", "Auto-Submitted"])
def test_some_fields_come_once(name: str) -> None:
    """A mail has at most one of these (RFC 5322, 3.6; RFC 2369, 3), in whatever spelling."""
    with pytest.raises(InvalidArgument, match="only once") as caught:
        read_draft(headers=((name, "<a@b>"), ("X-A", "b"), ("X-A", "b"), (name.upper(), "<a@b>")))
    assert caught.value.field == f"headers[{name!r}]"


def test_a_long_word_behind_a_long_name() -> None:
    """A value that fits no line with its name has a line of its own; others never do (RFC 5322, 2.1.1)."""
    name = "X-Mailgun-" + "a" * 54
    for length, lines in ((932, 1), (933, 2), (MAX_WORD, 2)):
        written = structured(name, "b" * length).removesuffix("\r\n").split("\r\n")
        assert len(written) == lines
        assert max(map(len, written)) <= 998
    parsed = message_from_bytes(_content((name, "b" * MAX_WORD)), policy=policy.default)
    assert parsed[name].strip() == "b" * MAX_WORD  # that parser keeps the blank


@pytest.mark.parametrize(
    "pattern", [*(",", "<a>,", '"",', '"', "<", '"\\', "a", "a ", '<"', '\\"', "\\", ", ", ">", '" ')]
)
def test_the_longest_values_are_read_once(pattern: str) -> None:
    """The most headers of the longest values take a few milliseconds to check, whatever is in them."""
    headers = tuple(
        (f"X-SES-{number}", (pattern * MAX_HEADER_VALUE)[:MAX_HEADER_VALUE])
        for number in range(MAX_HEADERS_LENGTH // MAX_HEADER_VALUE)
    )
    drafts: list[Draft] = []

    def read() -> None:
        with suppress(InvalidArgument):
            drafts.append(read_draft(headers=headers))

    assert seconds_of(read) < 0.1
    assert all(draft.is_large for draft in drafts)  # so it is written in steps, a step for each header


@FAST
@given(st.lists(st.sampled_from(["a" * 498, "b" * 500, ",", " ", '"', "<", ">", "c"]), max_size=9).map("".join))
@example("a" * 998)
@example("a" * 997 + " " + "b" * 997)
@example("," * 998)
@example('"' + "a" * 498 + " " + "b" * 500 + '"')
@example('"' + " " * 1000 + '"')
@example('"  ' + "a" * 996 + '"')
@example("https://example.org/?" + "a," * 600)
@example("https://example.org/?" + "a" * 998 + ",b")
@example(" " * 1000 + "a" * 996)
def test_a_value_has_a_fault_where_a_line_would_be_too_long(value: str) -> None:
    """A value is refused exactly where writing it would take a line of more than 998 characters."""
    if not value.strip():
        return
    lines = structured("X-SMTPAPI", value).split("\r\n")
    assert bool(fault(value)) == (max(map(len, lines)) > 998)
