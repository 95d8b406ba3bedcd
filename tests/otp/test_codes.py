"""Codes: derived, never stored, and read as people type them."""

import re
import unicodedata
from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otpmail.model import LETTERS, LONG, Challenge
from otpmail.otp import codes

_KEYS = st.binary(min_size=32, max_size=64)
_IDS = st.binary(min_size=16, max_size=16)
_SPACES = [*" \t\n\r\v\f\x85\u00a0\u2002\u2003\u2007\u2009\u200a\u2028\u2029\u202f\u3000"]
_INVISIBLE = [*"\u00ad\u061c\u200b\u200c\u200d\u200e\u200f\u202a\u202c\u202d\u202e\u2060\u2066\u2069\ufe0f\ufeff"]
_DASHES = [*"-\u00ad\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u30fc\ufe58\ufe63\uff0d"]


@pytest.fixture(scope="module")
def digits_of() -> dict[int, list[str]]:
    """The characters of Unicode that are each of the ten digits."""
    found = defaultdict(list)
    for sign in map(chr, range(0x110000)):
        if sign.isdecimal():
            found[unicodedata.decimal(sign)].append(sign)
    return found


def _challenge(key_id: str = "k1", challenge_id: bytes = bytes(range(16))) -> Challenge:
    return Challenge(challenge_id, key_id, expires=100.0)


@settings(deadline=None)
@given(_KEYS, _IDS, st.integers(4, 10))
def test_every_code_has_the_same_width(key: bytes, challenge_id: bytes, digits: int) -> None:
    """A code is exactly so many ASCII digits, leading zeros included, and always the same for a key and an id."""
    code = codes.derive(key, challenge_id, digits)
    assert re.fullmatch(rf"[0-9]{{{digits}}}", code)
    assert codes.derive(key, challenge_id, digits) == code


def test_the_derivation_does_not_change() -> None:
    """The derivation stays HMAC-SHA256 over the context and the id, modulo 10^digits, so that old codes stay valid."""
    key = bytes(range(32))
    found = {digits: codes.derive(key, bytes(16), digits) for digits in (4, 6, 10)}
    assert found[10].endswith(found[6])
    assert found[6].endswith(found[4])
    assert found[10] == "4682020215"


def test_codes_are_spread_evenly() -> None:
    """No digit is rarer than the others at any place, the first included."""
    derived = [codes.derive(b"k" * 32, number.to_bytes(16), 6) for number in range(4000)]
    for place in range(6):
        counts = [sum(code[place] == digit for code in derived) for digit in "0123456789"]
        assert min(counts) > 300, f"place {place}: {counts}"
        assert max(counts) < 500, f"place {place}: {counts}"


def test_another_key_or_id_gives_another_code() -> None:
    """A code says nothing about another key's or challenge's."""
    derived = {codes.derive(bytes([key]) * 32, bytes([place]) * 16, 10) for key in range(20) for place in range(20)}
    assert len(derived) == 400


@settings(deadline=None)
@given(st.text(max_size=64))
def test_normalizing_twice_changes_nothing(typed: str) -> None:
    """Normalizing is idempotent."""
    once = codes.normalize(typed)
    assert codes.normalize(once) == once


@settings(deadline=None)
@given(st.text("0123456789", min_size=4, max_size=10), st.data())
def test_normalizing_forgives_how_people_type_and_paste(
    digits_of: dict[int, list[str]], code: str, data: st.DataObject
) -> None:
    """Spaces, line ends, dashes and invisible characters make no difference, and neither does the digits' script."""
    filler = st.text(st.sampled_from([*_SPACES, *_DASHES, *_INVISIBLE]), max_size=3)
    typed = "".join(data.draw(filler) + data.draw(st.sampled_from(digits_of[int(digit)])) for digit in code)
    assert codes.normalize(typed + data.draw(filler)) == code


@settings(deadline=None)
@given(st.text(st.characters(max_codepoint=127), max_size=64))
def test_ascii_is_normalized_as_any_text(typed: str) -> None:
    """The fast path for ASCII changes nothing: with another character behind it, the text is read alike."""
    assert codes.normalize(f"{typed}é") == f"{codes.normalize(typed)}é"


def test_every_dash_is_ignored() -> None:
    """Every character of Unicode's category of dashes is ignored."""
    dashes = [character for character in map(chr, range(0x110000)) if unicodedata.category(character) == "Pd"]
    assert codes.normalize(f"123{''.join(dashes)}456") == "123456"


@pytest.mark.parametrize("mark", ["\ufe0f\u20e3", "\u20e3", "\u0332", "\u20dd", "\u0336\u0332"])
def test_marks_over_digits_are_ignored(mark: str) -> None:
    """Keycap emoji, and digits that are underlined, struck or encircled by combining marks, are read as digits."""
    assert codes.normalize("".join(f"{digit}{mark}" for digit in "123456")) == "123456"


@pytest.mark.parametrize("typed", ["12345", "1234567", "12345a", "", "123.456", "123_456", "123456\0", "12345\u4e00"])
def test_normalizing_forgives_nothing_else(typed: str) -> None:
    """No digit is added, dropped or guessed."""
    assert codes.normalize(typed) != "123456"


@pytest.mark.parametrize(
    ("typed", "lengths"),
    [
        ("123456", (6, -1)),
        ("234567", (6, LETTERS + 6)),
        ("12345", (5, -1)),
        ("", (-1, -1)),
        ("12345a", (-1, -1)),
        ("2345-ab", (-1, LETTERS + 6)),
        ("12345678901", (11, -1)),
        ("234567892345", (-1, LONG)),
        ("abcd-EFGH jklm", (-1, LONG)),
        ("abcdefghijkl", (-1, -1)),
        ("ABCDEFGHJKL0", (-1, -1)),
        ("ABCDEFGHJKLMN", (-1, -1)),
    ],
)
def test_a_guess_knows_what_code_it_can_be(typed: str, lengths: tuple[int, int]) -> None:
    """Digits can be a code of as many digits, and letters of the alphabet one of as many; nothing else is a code."""
    assert codes.CodeBook({"k1": b"1" * 32}, digits=6).guess(typed).lengths == lengths


def test_a_long_code_has_sixty_bits() -> None:
    """Each letter of a long code is any of 32, and none of them looks like another."""
    book = codes.CodeBook({"k1": b"1" * 32}, digits=6)
    found = [book.code(Challenge(number.to_bytes(16), "k1", 0.0, length=LONG)) for number in range(2000)]
    assert {len(code) for code in found} == {12}
    for letters in zip(*found, strict=True):
        assert len(set(letters)) == 32
        assert not set("01IO") & set(letters)
    assert len(set(found)) == 2000


@pytest.mark.parametrize("form", ["{}", "{:}\n", "lower", "dashed", "full-width", "full-width lower"])
def test_a_long_code_is_read_as_people_type_it(form: str) -> None:
    """Case, dashes, blanks and full width are forgiven; another letter is not, and nor is a short code."""
    book = codes.CodeBook({"k1": b"1" * 32}, digits=6)
    challenge = Challenge(bytes(16), "k1", 0.0, length=LONG)
    code = book.code(challenge)
    forms = {
        "lower": code.lower(),
        "dashed": f"{code[:4]}-{code[4:8]} \u2013{code[8:]}",
        "full-width": _full_width(code),
        "full-width lower": _full_width(code.lower()),
    }
    typed = forms.get(form, form.format(code))
    assert book.guess(typed).matches(challenge)
    other = "3" if code[0] == "2" else "2"
    assert not book.guess(other + code[1:]).matches(challenge)
    assert not book.guess(book.code(replace(challenge, length=6))).matches(challenge)


def _full_width(text: str) -> str:
    """Return a text as keyboards for Japanese may write it."""
    return "".join(chr(ord(character) + 0xFEE0) for character in text)


def test_a_book_knows_its_codes() -> None:
    """The right code matches, any other does not, and neither does one of another length."""
    book = codes.CodeBook({"k1": b"1" * 32}, digits=6)
    code = book.code(_challenge())
    assert book.matches(_challenge(), code)
    assert not book.matches(_challenge(), f"{(int(code) + 1) % 10**6:06d}")
    assert not book.matches(_challenge(), "0" + code)
    assert not book.matches(_challenge(), code[1:])
    assert not book.matches(_challenge(challenge_id=bytes(16)), code)
    assert not book.matches(_challenge(), "é" * 6)


def test_nothing_matches_without_a_live_challenge() -> None:
    """Without a challenge, or where its key is gone, no code is right: not even that of the stand-in."""
    book = codes.CodeBook({"k1": b"1" * 32}, digits=6)
    stand_in = codes.derive(b"1" * 32, bytes(16), 6)
    assert not book.matches(None, stand_in)
    assert not book.matches(_challenge("gone", bytes(16)), stand_in)
    with pytest.raises(KeyError):
        book.code(_challenge("gone"))


def test_keys_change_without_losing_codes() -> None:
    """The first key issues; codes of the others still check."""
    before = codes.CodeBook({"old": b"1" * 32}, digits=6)
    after = codes.CodeBook({"new": b"2" * 32, "old": b"1" * 32}, digits=6)
    assert before.issuing_key == "old"
    assert after.issuing_key == "new"
    assert after.matches(_challenge("old"), before.code(_challenge("old")))
    assert not after.matches(_challenge("new"), before.code(_challenge("old")))


def test_without_keys_each_book_makes_its_own() -> None:
    """A book without a key makes a random one, so that no two processes share codes by a built-in secret."""
    books = [codes.CodeBook({}, digits=10) for _ in range(2)]
    assert books[0].issuing_key == books[1].issuing_key
    first, second = (book.code(_challenge(book.issuing_key)) for book in books)
    assert first != second


def test_a_book_shows_no_key() -> None:
    """The repr says how many keys there are, and neither keys nor ids: in a swapped entry the id is the key."""
    key = b"very secret key, very secret key"
    shown = repr(codes.CodeBook({"k1": key}, digits=6))
    assert shown == "<CodeBook 6 digits, 1 keys>"
    assert "secret" not in shown
    assert key.hex() not in shown


def test_references_tell_mails_apart_and_give_nothing_away() -> None:
    """A reference is four characters that come from the id alone, not from the key."""
    ids = [codes.new_challenge_id() for _ in range(50)]
    assert all(len(challenge_id) == 16 for challenge_id in ids)
    assert len(set(ids)) == 50
    assert all(re.fullmatch(r"[A-Z2-7]{4}", codes.reference(challenge_id)) for challenge_id in ids)
    assert len({codes.reference(challenge_id) for challenge_id in ids}) > 45
