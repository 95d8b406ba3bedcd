"""Reads the profiles of a caller in CALLERS_FILE: by purpose, the terms of its codes, and its test addresses."""

import datetime as dt
import re
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from otpmail.address import parse_address, parse_mailbox
from otpmail.callers import ANY_PURPOSE, FixedCode, Profile
from otpmail.errors import InvalidArgument
from otpmail.model import ALPHABET, DAY, LETTERS, LONG
from otpmail.product import Product
from otpmail.settings.duration import parse_seconds
from otpmail.settings.otp import BITS, DIGITS, LOGIN_SECONDS, MOST_ATTEMPTS, OTHER_SECONDS, OtpSettings
from otpmail.settings.problems import quoted
from otpmail.settings.product import PRODUCT_READERS, product_of

PURPOSE = re.compile(r"[a-z0-9_-]{1,32}")
LOGIN = "login"
"""The purpose of a code that names none."""

MOST_TEST_DAYS = 183
"""How many days ahead the end of a test address may be."""

Add = Callable[[tuple[str, ...], str], None]
"""Keeps what is wrong, with the keys that lead there."""

_MOST_DIGITS = 10
_LEAST_LETTERS = BITS // 5
_LEAST_SECONDS = 30
_LETTERS = frozenset(ALPHABET)
_LIMITS = ("failures_per_hour", "failures_per_day", "sends_per_hour", "sends_per_day")
_FORM = ("digits", "letters", "lifespan", "attempts", "resend")
_KEYS = (*_FORM, "from", "templates", *PRODUCT_READERS, "relay", *_LIMITS, "test_addresses")

Path_ = tuple[str, ...]
ValueT = TypeVar("ValueT")


def _check_nothing(_: Path) -> None:
    pass


@dataclass(frozen=True, slots=True)
class ProfileRules:
    """The checks of profiles: the settings that they may not exceed, the time, and a check of templates.

    `check_templates` raises ValueError for a folder that can't be used. `relays` are the names that there are, None
    where they are not known.
    """

    otp: OtpSettings = field(default_factory=OtpSettings)
    check_templates: Callable[[Path], object] = _check_nothing
    relays: Collection[str] | None = None
    now: Callable[[], float] = time.time


class ProfileReader:
    """Reads profiles whose paths begin in `folder`. `unknown` keeps a key that there is not."""

    def __init__(
        self, rules: ProfileRules, folder: Path, add: Add, unknown: Callable[[str, Collection[str], Path_], None]
    ) -> None:
        self._otp = rules.otp
        self._folder = folder
        self._now = rules.now()
        self._check_templates = rules.check_templates
        self._relays = rules.relays
        self._add = add
        self._unknown = unknown

    def __repr__(self) -> str:
        return f"<ProfileReader {self._folder}>"

    def read(self, path: Path_, table: object) -> Mapping[str, Profile] | None:
        """Return the profiles of a table by their purposes, None where it has none."""
        if not isinstance(table, dict) or not table:
            self._add(path, "is no table; write a table for each purpose, such as profiles.login")
            return None
        for purpose in table:
            if purpose != ANY_PURPOSE and not PURPOSE.fullmatch(purpose):
                self._add((*path, purpose), 'is no purpose: 1 to 32 of a-z, 0-9, _ and -, or "*" for any')
        may_log_in = {LOGIN} if LOGIN in table else {ANY_PURPOSE}
        return {
            purpose: self._profile((*path, purpose), profile, is_login=purpose in may_log_in)
            for purpose, profile in table.items()
        }

    def _profile(self, path: Path_, table: object, *, is_login: bool) -> Profile:
        if not isinstance(table, dict):
            self._add(path, "is no table")
            return Profile()
        for key in table:
            if key not in _KEYS:
                self._unknown(key, _KEYS, path)
        length = self._length(path, table)
        most = LOGIN_SECONDS if is_login else OTHER_SECONDS
        lifespan = self._seconds(path, table, "lifespan", (_LEAST_SECONDS, most), "for a login" if is_login else "")
        longest = lifespan or self._otp.lifespan(compat=False)
        resend = self._seconds(path, table, "resend", (0, longest), "the lifespan of its codes")
        limits = {key: self._limit(path, table, key) for key in _LIMITS}
        self._compare_limits(path, limits)
        return Profile(
            length=length,
            lifespan=lifespan,
            attempts=self._count(path, table, "attempts", MOST_ATTEMPTS),
            resend=resend,
            sender=self._try(path, table, "from", lambda text: parse_mailbox(text, "from")),
            templates=self._try(path, table, "templates", self._read_templates),
            product=self._product(path, table),
            relay=self._try(path, table, "relay", self._read_relay) or "",
            test_addresses=self._test_addresses(path, table, length or self._otp.digits),
            **limits,
        )

    def _length(self, path: Path_, table: Mapping[str, Any]) -> int | None:
        """Return the length of codes as a challenge has it."""
        if {"digits", "letters"} <= table.keys():
            self._add((*path, "letters"), "has no effect beside digits; write one of the two")
        digits = self._count(path, table, "digits", _MOST_DIGITS, least=DIGITS)
        letters = self._count(path, table, "letters", LONG, least=_LEAST_LETTERS)
        if letters is not None:
            return LONG if letters == LONG else LETTERS + letters
        return digits

    def _limit(self, path: Path_, table: Mapping[str, Any], key: str) -> int | None:
        setting = f"OTP_{key.upper()}"
        return self._count(path, table, key, getattr(self._otp, key), why=f", which {setting} allows over all purposes")

    def _compare_limits(self, path: Path_, limits: Mapping[str, int | None]) -> None:
        for kind in ("failures", "sends"):
            hour, day = limits[f"{kind}_per_hour"], limits[f"{kind}_per_day"]
            if hour is not None and day is not None and hour > day:
                self._add((*path, f"{kind}_per_hour"), f"has no effect, as it is above {kind}_per_day")

    def _count(
        self, path: Path_, table: Mapping[str, Any], key: str, most: int, *, least: int = 1, why: str = ""
    ) -> int | None:
        """Return a whole number within bounds, None where it is not given."""
        count = table.get(key)
        if count is None or (isinstance(count, int) and not isinstance(count, bool) and least <= count <= most):
            return count
        self._add((*path, key), f"must be a whole number from {least} to {most}{why}")
        return None

    def _seconds(
        self, path: Path_, table: Mapping[str, Any], key: str, bounds: tuple[float, float], why: str
    ) -> float | None:
        """Return a time within bounds in seconds, None where it is not given."""
        value, (least, most) = table.get(key), bounds
        if value is None:
            return None
        with suppress(ValueError):
            seconds = parse_seconds(value) if isinstance(value, str) else value
            if isinstance(seconds, int | float) and not isinstance(seconds, bool) and least <= seconds <= most:
                return float(seconds)
        words = f", {why}" if why else ""
        self._add((*path, key), f'must be a time such as 90 or "5m", from {least:g} to {most:g} seconds{words}')
        return None

    def _try(self, path: Path_, table: Mapping[str, Any], key: str, read: Callable[[str], ValueT]) -> ValueT | None:
        """Return what `read` makes of a text; it raises ValueError or InvalidArgument."""
        value = table.get(key)
        if value is None:
            return None
        if not isinstance(value, str):
            self._add((*path, key), "is no text in quotes")
            return None
        try:
            return read(value)
        except InvalidArgument as error:
            self._add((*path, key), error.description)
        except ValueError as error:
            self._add((*path, key), str(error))
        return None

    def _product(self, path: Path_, table: Mapping[str, Any]) -> Product | None:
        values = {key: self._try(path, table, key, read) or "" for key, read in PRODUCT_READERS.items()}
        return product_of(values) if any(values.values()) else None

    def _read_templates(self, text: str) -> Path:
        folder = self._folder / text
        self._check_templates(folder)
        return folder

    def _read_relay(self, text: str) -> str:
        if self._relays is not None and text not in self._relays:
            raise ValueError(f"is no relay of this service; there are {', '.join(self._relays)}")
        return text

    def _test_addresses(self, path: Path_, table: Mapping[str, Any], length: int) -> Mapping[str, FixedCode]:
        addresses = table.get("test_addresses", {})
        path = (*path, "test_addresses")
        if not isinstance(addresses, dict):
            self._add(path, 'is no table; write "ada@example.org" = { code = "...", until = 2027-01-31 }')
            return {}
        if addresses and path[-2] == ANY_PURPOSE:
            self._add(path, "must be in the profile of a purpose by its name, so that they are good for no other")
        if addresses and length == LONG:  # at which tries need no limit
            self._add(path, f"must have shorter codes: those of {LONG} letters may be tried without a limit")
        found: dict[str, FixedCode] = {}
        for text, entry in addresses.items():
            try:
                key = parse_address(text, "email").key
            except InvalidArgument:
                self._add((*path, text), f"{quoted(text)} is no address")
                continue
            if key in found:
                self._add((*path, text), "is an address that stands there twice")
            if (fixed := self._fixed_code((*path, text), entry, length)) is not None:
                found[key] = fixed
        return found

    def _fixed_code(self, path: Path_, entry: object, length: int) -> FixedCode | None:
        """Return the code of a test address. No mistake shows it."""
        known = ("code", "until")
        if not isinstance(entry, dict) or not entry.keys() >= set(known):
            self._add(path, 'must have a code and its last day: { code = "...", until = 2027-01-31 }')
            return None
        for key in entry:
            if key not in known:
                self._unknown(key, known, path)
        code, until = entry["code"], entry["until"]
        if not isinstance(code, str) or not _is_of(code := code.upper(), length):
            kind = "digits" if length < LONG else "letters of the alphabet of codes"
            self._add((*path, "code"), f"must be a text of {length & ~LETTERS} {kind}, as codes of this profile")
            return None
        if not isinstance(until, dt.date) or isinstance(until, dt.datetime):
            self._add((*path, "until"), "must be a day without quotes, such as 2027-01-31")
            return None
        midnight = dt.datetime(until.year, until.month, until.day, tzinfo=dt.UTC)
        ends = midnight.timestamp() + DAY
        if ends > self._now + MOST_TEST_DAYS * DAY + DAY:
            self._add((*path, "until"), f"is more than {MOST_TEST_DAYS} days ahead; a test address ends before that")
            return None
        return FixedCode(code, ends)


def _is_of(code: str, length: int) -> bool:
    """Whether a text could be a code of that length."""
    is_good = code.isascii() and code.isdecimal() if length < LONG else _LETTERS.issuperset(code)
    return is_good and len(code) == length & ~LETTERS
