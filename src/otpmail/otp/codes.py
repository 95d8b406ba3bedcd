"""Codes as pure functions: derived from a challenge's id and a key, compared in constant time, never stored."""

import hashlib
import hmac
import secrets
import unicodedata
from collections.abc import Mapping
from typing import Self

from otpmail.blanks import is_blank
from otpmail.model import ALPHABET, FIXED_KEY, LETTERS, LONG, Challenge, IssuedCode
from otpmail.settings import OtpSettings

_CONTEXT = b"otpmail.code.v1|"
_LONG_CONTEXT = b"otpmail.code.long.v1|"
_LETTERS_CONTEXT = b"otpmail.code.letters.v1|"
_LETTER = frozenset(ALPHABET)
_NO_LENGTH = -1  # of a text that can't be a code
# Keyboards and typography write these for a hyphen, though Unicode does not have them in category Pd. They are the
# modifier, bullet, superscript, subscript, mathematical and heavy dashes, and the sound mark of Japanese keyboards.
_MORE_DASHES = frozenset("\u02d7\u2043\u207b\u208b\u2212\u2796\u30fc\uff70")
_IGNORED = frozenset({"Pd", "Mn", "Me"})
_IGNORED_ASCII = str.maketrans("", "", " -\t\n\v\f\r\x1c\x1d\x1e\x1f")
# Letters as keyboards for Chinese and Japanese write them.
_FULL_WIDTH = {chr(code): chr(code - 0xFEE0) for code in (*range(0xFF21, 0xFF3B), *range(0xFF41, 0xFF5B))}
_PROOF = b"otpmail.check.v1|"

_NOBODY = bytes(16)
_BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"  # RFC 4648, 6


def new_challenge_id() -> bytes:
    """128 random bits."""
    return secrets.token_bytes(16)


def derive(key: bytes, challenge_id: bytes, length: int) -> str:
    """The challenge's code: HMAC-SHA256 (RFC 2104) over the id, as a number modulo 10^length, zero-padded.

    256 bits modulo 10^10 leave a bias below 2^-222, so every code is as likely as any other. A code of letters has five
    of the bits for each, so a long code has 60.
    """
    if length >= LONG:
        count, context = length & ~LETTERS, _LONG_CONTEXT if length == LONG else _LETTERS_CONTEXT + bytes([length])
        bits = int.from_bytes(hmac.digest(key, context + challenge_id, "sha256")[:8])
        return "".join([ALPHABET[bits >> 5 * place & 31] for place in range(count)])
    mac = hmac.digest(key, _CONTEXT + challenge_id, "sha256")
    return f"{int.from_bytes(mac) % 10**length:0{length}d}"


def prove(key: bytes, record_key: bytes, code: str) -> bytes:
    """The digest of a code (HMAC-SHA256) in the record of an address. It leads to the code only with the key."""
    return hmac.digest(key, _PROOF + record_key + b"|" + code.encode(), "sha256")


def normalize(text: str) -> str:
    """Reduce a typed text to the code: digits of any script become ASCII digits; blanks, dashes and marks are removed.

    Full-width letters become those of ASCII. A mark is what Unicode draws over the character before it, as the keycap
    of an emoji or a line under it.
    """
    # fast path: a code is nearly always ASCII, 2 us; held to the full path by tests/otp/test_codes.py
    if text.isascii():
        return text.translate(_IGNORED_ASCII)
    return "".join([_normalized(character) for character in text])


def _normalized(character: str) -> str:
    digit = unicodedata.digit(character, None)  # category Nd, and superscript or circled digits
    if digit is not None:
        return str(digit)
    ignored = is_blank(character) or character in _MORE_DASHES or unicodedata.category(character) in _IGNORED
    return "" if ignored else _FULL_WIDTH.get(character, character)


def reference(challenge_id: bytes) -> str:
    """Four characters that tell two mails apart and give nothing away: they come from the id, not from the code."""
    bits = int.from_bytes(hashlib.sha256(b"otpmail.reference.v1|" + challenge_id).digest()[:3]) >> 4
    return "".join([_BASE32[bits >> shift & 31] for shift in (15, 10, 5, 0)])


class KeyGoneError(KeyError):
    """The key of a challenge is no longer among ours, so nobody can tell its code."""

    def __init__(self, challenge_id: bytes) -> None:
        super().__init__(challenge_id.hex())
        self.challenge_id = challenge_id


class CodeBook:
    """Derives and checks codes of `digits` with a set of keys by id: the first one issues, the others still check."""

    def __init__(self, keys: Mapping[str, bytes], *, digits: int) -> None:
        self._keys = dict(keys) or {"random": secrets.token_bytes(32)}
        self.digits = digits
        self.issuing_key = next(iter(self._keys))

    @classmethod
    def of(cls, settings: OtpSettings) -> Self:
        """Return the codes of the keys that are set."""
        return cls(settings.derivation_keys, digits=settings.digits)

    def __repr__(self) -> str:
        return f"<CodeBook {self.digits} digits, {len(self._keys)} keys>"

    def subkeys(self, purpose: bytes) -> list[bytes]:
        """Return a key of its own for a purpose from each of our keys, the issuing one first (HKDF, RFC 5869)."""
        extracted = [hmac.digest(bytes(32), key, "sha256") for key in self._keys.values()]
        return [hmac.digest(key, purpose + b"\x01", "sha256") for key in extracted]

    def code(self, challenge: Challenge) -> str:
        """The challenge's code. Raises KeyGoneError when its key is no longer among ours."""
        key = self._keys.get(challenge.key_id)
        if key is None:
            raise KeyGoneError(challenge.id)
        return derive(key, challenge.id, challenge.length or self.digits)

    def code_of(self, issued: IssuedCode) -> str:
        """Return the code of a challenge, empty if its key is no longer among ours: it can't be checked either then."""
        challenge = issued.challenge
        key = self._keys.get(challenge.key_id)
        return "" if key is None else derive(key, challenge.id, challenge.length or self.digits)

    def guess(self, typed: str) -> "Guess":
        """Return what was typed, normalized, to be compared with challenges."""
        return Guess(self, normalize(typed))

    def proof(self, record_key: bytes, challenge: Challenge) -> bytes:
        """Return what a server compares in place of the challenge's code. Raises KeyError when its key is gone."""
        if challenge.key_id == FIXED_KEY:
            return self._fixed_proof(record_key)
        return prove(self._keys[challenge.key_id], record_key, self.code(challenge))

    def proofs(self, record_key: bytes, typed: str) -> list[tuple[str, bytes]]:
        """Return for each of our keys, by its id, what `proof` gives where `typed` is the code."""
        return [(key_id, prove(key, record_key, typed)) for key_id, key in self._keys.items()]

    def guess_fixed(self, typed: str, fixed: str) -> "FixedGuess":
        """Return what was typed where a fixed code is asked for."""
        return FixedGuess(self, normalize(typed), fixed)

    def fixed_proofs(self, record_key: bytes, *, is_right: bool) -> list[tuple[str, bytes]]:
        """Return what `proofs` gives for a fixed code, which stays the same whatever code is fixed."""
        proof = self._fixed_proof(record_key)
        return [(FIXED_KEY, proof if is_right else bytes(len(proof)))]

    def _fixed_proof(self, record_key: bytes) -> bytes:
        return prove(self._keys[self.issuing_key], record_key, FIXED_KEY)

    def matches(self, challenge: Challenge | None, typed: str) -> bool:
        """Whether `typed` (already normalized) is the challenge's code.

        Without a challenge, or if its key is gone, the same work is done and the answer is no. So the time of a check
        does not tell whether a code is live.
        """
        key = None if challenge is None else self._keys.get(challenge.key_id)
        if challenge is None or key is None:
            hmac.compare_digest(derive(self._keys[self.issuing_key], _NOBODY, self.digits).encode(), typed.encode())
            return False
        return hmac.compare_digest(derive(key, challenge.id, challenge.length or self.digits).encode(), typed.encode())


class Guess:
    """A text that was typed as a code, ready to be compared (see `store.challenges.Guess`)."""

    __slots__ = ("_book", "_typed", "lengths")

    def __init__(self, book: CodeBook, typed: str) -> None:
        self._book = book
        count, number, letters = len(typed), _NO_LENGTH, _NO_LENGTH
        if count <= LONG:
            if count < LONG and typed.isascii() and typed.isdecimal():
                number = count
            typed = typed.upper()
            if typed and _LETTER.issuperset(typed):
                letters = LONG if count == LONG else LETTERS + count
        self.lengths = number, letters
        self._typed = typed

    def __repr__(self) -> str:
        return f"<Guess lengths={self.lengths}>"

    def matches(self, challenge: Challenge | None) -> bool:
        """Whether it is the challenge's code; the same work is done without one."""
        return self._book.matches(challenge, self._typed)

    def proofs(self, key: bytes) -> list[tuple[str, bytes]]:
        """Return for each of our keys, by its id, what a server is to compare for the record `key`."""
        return self._book.proofs(key, self._typed)


class FixedGuess(Guess):
    """A text that was typed at a test address: it is compared with the fixed code where the challenge has one."""

    __slots__ = ("_is_right",)

    def __init__(self, book: CodeBook, typed: str, fixed: str) -> None:
        super().__init__(book, typed)
        self._is_right = hmac.compare_digest(self._typed.encode(), fixed.encode())

    def matches(self, challenge: Challenge | None) -> bool:
        """Whether it is the challenge's code; the same work is done for each."""
        matches = super().matches(challenge)
        return self._is_right if challenge is not None and challenge.key_id == FIXED_KEY else matches

    def proofs(self, key: bytes) -> list[tuple[str, bytes]]:
        """Return for each of our keys, and for the fixed code, what a server is to compare for the record `key`."""
        return super().proofs(key) + self._book.fixed_proofs(key, is_right=self._is_right)
