"""Addresses: the texts that are accepted, their wire form, and the key under which a person is known."""

import contextlib
import os
import re
from typing import Any

import email_validator
import pytest
from email_validator import validate_email
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cost import seconds_of
from otpmail.address import (
    _USUAL,
    MAX_OCTETS,
    Address,
    _checked_domain,
    control_characters,
    parse_address,
    parse_mailbox,
    parse_mailboxes,
    parse_mailboxes_in_steps,
    parse_return_path,
    refuse_control_characters,
)
from otpmail.blanks import trim
from otpmail.cooperate import finish
from otpmail.errors import InvalidArgument
from otpmail.local_part import unquoted, wire_form

BLANKS = (
    " ",
    "\t",
    "\r\n",
    "\n \n",
    "\u00a0",
    "\u2003",
    "\u3000",
    "\u2028",
    "\u200b",
    "\ufeff",
    "\u202a",
    "\u2069\u00ad",
)
_NEVER = re.compile(r"[\x00-\x1f\x7f-\x9f<>\u2028\u2029\ud800-\udfff]|@.*@|@.* |^[^\"].* |=\?.*\?.*\?.*\?=")
_ODD = "aZ9.-_+@<>\"' \t\r\n\0\\[](),;:éßＡ。＠\u212a\u200b\u202e\u2028"
_PARTS = st.text(st.one_of(st.sampled_from(_ODD), st.characters()), max_size=70)
_LIKELY = st.builds("{}@{}".format, _PARTS, _PARTS | st.sampled_from(["example.org", "bücher.example", "localhost"]))


def _bare(text: str) -> str:
    """Return the text without blanks before it, those of a URL included."""
    while (shorter := trim(text).removeprefix("%20")) != text:
        text = shorter
    return text


def _without_quotes(text: str) -> str:
    local = text.rpartition("@")[0]
    return re.sub(r"\\(.)", r"\1", local[1:-1]) if local.startswith('"') else local


@settings(deadline=None, max_examples=200)
@given(st.one_of(_PARTS, _LIKELY))
@example("a@" + ".".join(["ü" * 17] * 7))
@example("a@" + ".".join(["ü" * 30] * 4) + ".org")
@example("\ud800@example.org")
def test_any_text_is_an_address_or_an_invalid_argument(text: str) -> None:
    """Any text gives InvalidArgument, or an address that can't end a line, a path or a command."""
    try:
        address = parse_address(text, "email")
    except InvalidArgument as error:
        assert error.field == "email"  # noqa: PT017  no error is right too
        return
    assert not _NEVER.search(address.spec)
    assert len(address.spec.encode()) <= MAX_OCTETS
    assert address.domain.isascii()
    assert _without_quotes(address.spec) == _without_quotes(_bare(text))


@settings(deadline=None, max_examples=200)
@given(_PARTS, _LIKELY | _PARTS)
def test_any_text_is_a_mailbox_or_an_invalid_argument(name: str, spec: str) -> None:
    """A display name can hold anything but control characters, and never changes which mailbox is meant."""
    try:
        address = parse_mailbox(f"{name} <{spec}>", "to[0]")
    except InvalidArgument as error:
        assert error.field == "to[0]"  # noqa: PT017  no error is right too
        return
    assert address.spec == parse_address(spec, "to[0]").spec
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", address.name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ada",
        "@example.org",
        "ada@",
        "ada@@example.org",
        "ada@example..org",
        "ada @example.org",
        "ada%20@example.org",
        "ada%20lovelace@example.org",
        "ada@example.org..",
        "ada@.",
        "%20",
        "ada@exa\u200bmple.org",
        "ada@example.org\n\neve@example.org",
        "ada@exam ple.org",
        "ada@example.org\r\nRCPT TO:<eve@example.org>",
        "ada@example.org\0",
        "<ada@example.org>",
        "ada@example.org>",
        "ada@example.org,eve@example.org",
        "ada@example.org;eve@example.org",
        "..@example.org",
        '""@example.org',
        '"ada"lovelace@example.org',
        'ada"lovelace"@example.org',
        '"ada lovelace@example.org',
        '"ada@example.org',
        '"eve@evil.example"@example.org',
        '"eve\\@evil.example"@example.org',
        '"eve@evil.example> "@example.org',
        '"<eve"@example.org',
        '"ada\\"@example.org',
        '"ada\r\nRCPT TO:<eve"@example.org',
        '"j\u00fcrgen b"@example.org',
        '"ada"@[127.0.0.1]',
        "j\u00fcr..gen@example.org",
        "=?utf-8?q?eve=40evil.example=3e?=@example.org",
        "a=?x?y?z?=b@example.org",
        '"=?utf-8?q?a?= "@example.org',
        "ada@[127.0.0.1]",
        "ada(comment)@example.org",
        "ada\u00a0b@example.org",
        "ada\ufe0f@example.org",
        "a\u034fda@example.org",
        "ada\u3164@example.org",
        "a" * 243 + "@example.org",
        '"' + "a " * 121 + '"@example.org',
        "a@" + ".".join(["b" * 60] * 5),
        "ada@" + "b" * 64 + ".org",
        "ada＠example.org",
        "eve＠evil.example@example.org",
        "eve\ufe6bevil.example@example.org",
        "ada\uff1eb@example.org",
        "\uff02ada\uff02@example.org",
        "ad\u00e4\u2474@example.org",
        "ada@example＠evil.org",
    ],
)
def test_anything_but_a_mailbox_is_refused(text: str) -> None:
    """A text that is not one bare mailbox is InvalidArgument with the field's name."""
    with pytest.raises(InvalidArgument) as caught:
        parse_address(text, "email")
    assert caught.value.field == "email"


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("ada@example.org", "ada@example.org"),
        ("Ada+Tag@Example.ORG", "Ada+Tag@Example.ORG"),
        ("o'hara!#$%@example.org", "o'hara!#$%@example.org"),
        ("ops@localhost", "ops@localhost"),
        ("ops@mail.local", "ops@mail.local"),
        ("ada@bücher.example", "ada@xn--bcher-kva.example"),
        ("ada@BÜCHER.example", "ada@xn--bcher-kva.example"),
        ("jürgen@bücher.example", "jürgen@xn--bcher-kva.example"),
        ("ada@straße.example", "ada@xn--strae-oqa.example"),
        ("foo..bar@docomo.ne.jp", '"foo..bar"@docomo.ne.jp'),
        (".foo@docomo.ne.jp", '".foo"@docomo.ne.jp'),
        ("foo.@docomo.ne.jp", '"foo."@docomo.ne.jp'),
        ("foo.-.bar@bücher.example", "foo.-.bar@xn--bcher-kva.example"),
        ("foo..bar@bücher.example", '"foo..bar"@xn--bcher-kva.example'),
        ('"foo..bar"@docomo.ne.jp', '"foo..bar"@docomo.ne.jp'),
        ('"ada lovelace"@Example.org', '"ada lovelace"@Example.org'),
        ('"ada.lovelace"@example.org', "ada.lovelace@example.org"),
        ('"a\\d\\a"@example.org', "ada@example.org"),
        ('"a,b;c:(d)[e]"@example.org', '"a,b;c:(d)[e]"@example.org'),
        ('"a\\"b\\\\c"@example.org', '"a\\"b\\\\c"@example.org'),
        ("a=?b@example.org", "a=?b@example.org"),
        ("a" * 65 + "@example.org", "a" * 65 + "@example.org"),
        ("a" * 242 + "@example.org", "a" * 242 + "@example.org"),
        ("bounces+sa=0123456789abcdef0123456789abcdef=ada=example.org-" + "0" * 32 + "@example.org",) * 2,
    ],
)
def test_wire_form(text: str, spec: str) -> None:
    """An address is sent unchanged but for its domain, which is in A-labels, and quotes that it needs or does not need.

    A relay takes a local part over 64 octets, or refuses it itself (RFC 5321, 4.5.3.1).
    """
    address = parse_address(text, "email")
    assert address == Address(spec)
    assert address.needs_smtputf8 == ("jürgen" in text)


def test_longest_address() -> None:
    """254 octets are accepted, 255 are not (RFC 5321, 4.5.3.1.3)."""
    domain = ".".join(["b" * 62] * 4)
    longest = "a@" + domain
    assert len(longest) == 253
    assert parse_address("a" + longest, "email").spec == "a" + longest
    with pytest.raises(InvalidArgument, match="254"):
        parse_address("aa" + longest, "email")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("ADA@EXAMPLE.ORG", "ada@example.org", True),
        ("ada@bücher.example", "ADA@XN--BCHER-KVA.EXAMPLE", True),
        ("ada@BÜCHER.example", "ada@bücher.example", True),
        ("A\u0308da@example.org", "\u00c4da@example.org", True),
        ("\u00c4da@example.org", "\u00e4da@example.org", False),
        ("stra\u00dfe@example.org", "strasse@example.org", False),
        ("\u0130da@example.org", "ida@example.org", False),
        ("\u017fam@example.org", "sam@example.org", False),
        ("\uff41da@example.org", "ada@example.org", False),
        ("ada@stra\u00dfe.example", "ada@strasse.example", False),
        ("ada+x@example.org", "ada@example.org", False),
        ("a.da@example.org", "ada@example.org", False),
    ],
)
def test_key_merges_spellings_and_not_people(one: str, other: str, same: bool) -> None:  # noqa: FBT001
    """ASCII case, composition and the domain's form don't matter; no Unicode case folding merges two mailboxes."""
    assert (parse_address(one, "email").key == parse_address(other, "email").key) is same


def test_key_does_not_turn_another_letter_into_an_ascii_one() -> None:
    """A relay takes the Kelvin sign for a letter of its own, so its address and one with a k are two mailboxes."""
    assert parse_address("\u212aim@example.org", "email").key != parse_address("kim@example.org", "email").key


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ada@example.org", ""),
        ("<ada@example.org>", ""),
        ("Ada Lovelace <ada@example.org>", "Ada Lovelace"),
        ("Ada Lovelace<ada@example.org>", "Ada Lovelace"),
        ("  Ada   <ada@example.org>  ", "Ada"),
        ('"Lovelace, Ada" <ada@example.org>', "Lovelace, Ada"),
        (r'"a \"quoted\" \\ name" <ada@example.org>', r'a "quoted" \ name'),
        ('"<eve@example.org>" <ada@example.org>', "<eve@example.org>"),
        ("Zoë 你好 <ada@example.org>", "Zoë 你好"),
        ("eve@example.org <ada@example.org>", "eve@example.org"),
        ("Lovelace, Ada <ada@example.org>", "Lovelace, Ada"),
        ('"eve@example.org, b" <ada@example.org>', "eve@example.org, b"),
        ('Ada "the Countess" Lovelace <ada@example.org>', 'Ada "the Countess" Lovelace'),
        ('"Ada" Lovelace <ada@example.org>', '"Ada" Lovelace'),
        ('Ada "" <ada@example.org>', 'Ada ""'),
    ],
)
def test_mailboxes_with_names(text: str, name: str) -> None:
    """A display name is text; the mailbox is the one in the last angle brackets."""
    assert parse_mailbox(text, "to[0]") == Address("ada@example.org", name)


@pytest.mark.parametrize(
    "text",
    [
        "eve@example.org, Ada <ada@example.org>",
        "Eve; eve@example.org <ada@example.org>",
        'Ada "<eve@example.org>" x <ada@example.org>',
        'Ada "a\\" <ada@example.org>',
        '"Ada" "Lovelace <ada@example.org>',
        "Ada <ada@example.org> <eve@example.org>",
        "Ada <ada@example.org>, Eve <eve@example.org>",
        "Ada <ada@example.org> eve@example.org",
        "friends: ada@example.org <ada@example.org>;",
        'Ada "quoted <ada@example.org>',
        '"Ada\\" <ada@example.org>',
        "Ada <ada@example.org",
        "Ada <>",
        "Ada <ada@example.org\r\n>",
        "Ada\r\nBcc: eve@example.org <ada@example.org>",
        "Ada\u2028 <ada@example.org>",
        "x" * 257 + " <ada@example.org>",
    ],
)
def test_anything_but_a_named_mailbox_is_refused(text: str) -> None:
    """Two mailboxes, a group, an open quote, a line end or a long name is InvalidArgument with the field's name."""
    with pytest.raises(InvalidArgument) as caught:
        parse_mailbox(text, "to[0]")
    assert caught.value.field == "to[0]"


@pytest.mark.parametrize(
    "text", ["%20ada@example.org", " %20%20ada@example.org%20\n", "ada@example.org.", "ada@example.org\u3002 "]
)
def test_what_a_page_or_a_sentence_adds_is_ignored(text: str) -> None:
    """The blank of a URL around a mailbox, and the dot of the root behind its domain, make no other mailbox of it."""
    assert parse_address(text, "email") == Address("ada@example.org")
    assert parse_mailbox(f"Ada <{text.strip()}>", "to") == Address("ada@example.org", "Ada")
    assert parse_mailboxes([text], "to", most=1) == (Address("ada@example.org"),)


@pytest.mark.parametrize("blank", BLANKS, ids=lambda blank: "+".join(f"U+{ord(part):04X}" for part in blank))
@pytest.mark.parametrize("place", ["{}{}", "{1}{0}", "{1}{0}{1}"])
def test_blanks_around_a_mailbox_are_ignored(blank: str, place: str) -> None:
    """Every kind of space, line end and invisible character around a mailbox is ignored, with a name and without."""
    assert parse_address(place.format("ada@example.org", blank), "email") == Address("ada@example.org")
    assert parse_mailbox(place.format("ada@example.org", blank), "to") == Address("ada@example.org")
    assert parse_mailbox(place.format("Ada <ada@example.org>", blank), "to") == Address("ada@example.org", "Ada")
    assert parse_mailboxes([place.format("ada@example.org", blank)], "to", most=1) == (Address("ada@example.org"),)


@pytest.mark.parametrize("blank", BLANKS, ids=lambda blank: "+".join(f"U+{ord(part):04X}" for part in blank))
def test_blanks_alone_are_an_empty_address(blank: str) -> None:
    """A text of blanks alone is as empty as an empty one."""
    with pytest.raises(InvalidArgument, match="is empty"):
        parse_address(blank, "email")


def test_only_so_many_blanks_are_looked_at() -> None:
    """A text of a million blanks is refused by its length."""
    with pytest.raises(InvalidArgument, match="longer than"):
        parse_address(" " * 1_000_000 + "ada@example.org", "email")


def test_a_text_far_too_long_is_not_parsed() -> None:
    """Length is checked first: no text longer than a name and an address reaches a pattern that backtracks."""
    with pytest.raises(InvalidArgument, match="longer than"):
        parse_mailbox("a" + " " * 5000 + '"<ada@example.org>', "to[0]")


@pytest.mark.parametrize("character", ["\0", "\t", "\r", "\n", "\x1b", "\x7f", "\x85", "\u2028", "\u2029"])
def test_control_characters_are_named(character: str) -> None:
    """A control character is named by its code point, unless the pattern permits it."""
    with pytest.raises(InvalidArgument, match=f"U\\+{ord(character):04X}") as caught:
        refuse_control_characters(f"a{character}b", "subject")
    assert caught.value.field == "subject"
    others = control_characters(but=character)
    refuse_control_characters(f"a{character}b", "subject", others)
    for wrong in ("\x01", "\ud800"):
        with pytest.raises(InvalidArgument, match=f"U\\+{ord(wrong):04X}"):
            refuse_control_characters(f"{character}{wrong}", "subject", others)


_LOCAL = st.text("abcXYZ019!#$%&'*+/=?^_`{|}~.-é\"@ ", min_size=0, max_size=70)
_DOMAIN = st.text("abXZ09.-éß", min_size=0, max_size=70)


@settings(max_examples=3000 if "CI" in os.environ else 500, deadline=None)
@given(st.builds("{}@{}{}".format, _LOCAL, _DOMAIN, st.sampled_from(["", ".org", ".c", ".xn--p1ai", ".a-b", ".123"])))
@example("a..b@example.org")
@example(".a@example.org")
@example("a.@example.org")
@example("a@-b.org")
@example("a@b-.org")
@example("a@xn--b.org")
@example(f"{'a' * 65}@example.org")
@example("=?a?b?c?=@example.org")
@example(f"a@{'b' * 64}.org")
def test_the_fast_path_agrees_with_the_library(text: str) -> None:
    """The library accepts each address that the pattern reads, and leaves it unchanged."""
    if _USUAL.fullmatch(text):
        checked = validate_email(text, check_deliverability=False, globally_deliverable=False)
        assert checked.ascii_local_part == text.rpartition("@")[0]
        assert parse_address(text, "to") == Address(text)


_LAST_LABELS = [
    "local",
    "LOCALHOST",
    "test",
    "invalid",
    "onion",
    "arpa",
    "home.arpa",
    "local.",
    "xlocal",
    "locale",
    "",
    "ｌｏｃａｌ",
    "x。Local",
]


@settings(max_examples=1000 if "CI" in os.environ else 200, deadline=None)
@given(
    st.builds("{}@{}{}".format, _LOCAL, st.one_of(_DOMAIN, _DOMAIN.map("{}.".format)), st.sampled_from(_LAST_LABELS))
)
@example("ops@localhost")
@example("%20ops@localhost.")
@example("ops%20@mail.local")
@example("ops@mail.local")
@example("ops@bücher.LOCAL")
@example("ops@a--b.local")
@example("ops@xn--bcher-kva.test")
@example("ops@xn--b.test")
@example("@local")
@example("local")
@example("ops@.local")
@example("ops@" + ".".join(["b" * 62] * 4) + ".test")
def test_special_use_domains_are_the_relays_to_know(text: str) -> None:
    """A name that RFC 6761 reserves is read as the library would read it without its list of such names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(email_validator, "SPECIAL_USE_DOMAIN_NAMES", [])
        given, _, domain = re.sub(r"(?<=\w)\.$", "", _bare(text)).rpartition("@")
        try:
            bare = unquoted(given)
            local = given if bare is None else wire_form(bare)
            shown = f"{given if bare is None else 'x'}@{domain}"
            checked = validate_email(shown, check_deliverability=False, globally_deliverable=False)
        except ValueError:  # of the library too
            spec = None
        else:
            spec = f"{local}@{domain if domain.isascii() else checked.ascii_domain}"
    try:
        address = parse_address(text, "to")
    except InvalidArgument:
        assert spec is None
    else:
        assert address == Address(spec or "")


_LOCALS = st.one_of(st.text('ab.-+é"@ ', max_size=8), st.integers(1, 70).map("x".__mul__))
_DOMAINS = st.sampled_from(
    [
        *(
            "bücher.example",
            "BÜCHER.example",
            "xn--bcher-kva.example",
            "a--b.org",
            "localhost",
            "bücher.local",
            "1.אב.com",
        ),
        *(f"{'ü' * 50}.{'ü' * 40}.org", f"{'ü' * 55}.{'ü' * 55}.{'ü' * 9}.org", ".".join(["b" * 62] * 3 + ["é" * 9])),
        *("b\u0308ucher.example", "ﷺ.example", "xn--b.org", "", "-a.org", "a..org", "ＢÜcher。example"),
    ]
)


@settings(max_examples=2000 if "CI" in os.environ else 300, deadline=None)
@given(_LOCALS, _DOMAINS)
@example("x" * 63, f"{'ü' * 55}.{'ü' * 55}.{'ü' * 9}.org")
@example("x" * 64, f"{'ü' * 55}.{'ü' * 55}.{'ü' * 9}.org")
def test_a_domain_that_was_read_before_is_read_the_same(local: str, domain: str) -> None:
    """An address is read alike, or refused with the same words, whether or not its domain is remembered."""
    text, read = trim(f"{local}@{domain}"), []
    local = text.rpartition("@")[0]
    for _ in range(2):
        try:
            read.append(str(parse_address(text, "to")))
        except InvalidArgument as error:
            read.append(str(error))
    try:
        read.append(str(Address(f"{text.rpartition('@')[0]}@{_checked_domain(text, 'to')}")))
    except InvalidArgument as error:
        read.append(str(error))
    is_odd = local.startswith('"') or unquoted(local) is not None  # the library does not read these
    if not (domain.isascii() or is_odd) and len(text.encode()) <= MAX_OCTETS:
        assert read[0] == read[1] == read[2]
    assert read[0] == read[1]


def test_a_domain_is_read_by_the_library_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred addresses of one domain cost one look at it, whatever stands before the @."""
    calls = []

    def by_library(text: str, **how: Any) -> Any:
        calls.append(text)
        return validate_email(text, **how)

    monkeypatch.setattr(email_validator, "validate_email", by_library)
    for number in range(100):
        assert parse_address(f"p{number}@once-read-é.example", "to").spec == f"p{number}@xn--once-read--k7a.example"
    assert calls == ["x@once-read-é.example"]


@pytest.mark.parametrize(
    "text",
    [
        "a" + " " * 254 + "b <ada@example.org>",
        "a" + " " * 700 + "<",
        '"' + " " * 700,
        '"a" ' + " " * 700 + "b<",
        "a b" * 80,
    ],
)
def test_a_name_of_blanks_is_read_once(text: str) -> None:
    """A display name takes time by its length: no text makes the pattern go back over its blanks again and again."""

    def read() -> None:
        for _ in range(100):
            with contextlib.suppress(InvalidArgument):
                parse_mailbox(text, "to[0]")

    assert seconds_of(read) < 0.1


def test_mailboxes_in_steps() -> None:
    """Mailboxes are read in steps as at once, one in each step, and the same are refused."""
    texts = ["ada@example.org", "Bob <bob@bücher.example>"]
    steps = parse_mailboxes_in_steps(texts, "cc", most=2)
    assert len(list(steps)) == 2
    assert finish(parse_mailboxes_in_steps(texts, "cc", most=2)) == parse_mailboxes(texts, "cc", most=2)
    for wrong, most in (([*texts, "nobody"], 3), (texts, 1)):
        with pytest.raises(InvalidArgument) as in_steps:
            finish(parse_mailboxes_in_steps(wrong, "cc", most=most))
        with pytest.raises(InvalidArgument) as at_once:
            parse_mailboxes(wrong, "cc", most=most)
        assert str(in_steps.value) == str(at_once.value)


def test_usual_addresses_take_the_fast_path() -> None:
    """The pattern reads what nearly every address looks like."""
    for text in ("ada@example.org", "a.b+c_d@mail.example.co.uk", "O'Neil@x-y.de", "1@2.com"):
        assert _USUAL.fullmatch(text)


def test_a_list_of_mailboxes() -> None:
    """A list keeps its order, and an error names the place of the mailbox."""
    texts = ["ada@example.org", "Bob <bob@localhost>"]
    assert parse_mailboxes(texts, "cc", most=2) == (Address("ada@example.org"), Address("bob@localhost", "Bob"))
    with pytest.raises(InvalidArgument) as caught:
        parse_mailboxes([*texts, "nobody"], "cc", most=3)
    assert caught.value.field == "cc[2]"
    with pytest.raises(InvalidArgument, match="cc: holds more than 2"):
        parse_mailboxes([*texts, "nobody"], "cc", most=2)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("<>", ""),
        (" <> ", ""),
        ("b@example.org", "b@example.org"),
        ("<b@example.org>", "b@example.org"),
        ("b+ada=x.org@bücher.example", "b+ada=x.org@xn--bcher-kva.example"),
    ],
)
def test_a_return_path(text: str, path: str) -> None:
    """A return path is an address in wire form, or the null sender, for which a relay sends no bounces."""
    assert parse_return_path(text, "return_path") == path


@pytest.mark.parametrize(
    "text", ["", "<", "< >", "<<>>", "Ada <b@example.org>", "<b@example.org", "b", "<b@x.org> SIZE=1"]
)
def test_anything_but_a_return_path_is_refused(text: str) -> None:
    """A display name, an empty text and an open bracket are InvalidArgument with the field's name."""
    with pytest.raises(InvalidArgument) as caught:
        parse_return_path(text, "return_path")
    assert caught.value.field == "return_path"
