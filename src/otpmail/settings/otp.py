"""The settings of one-time codes: their form, how long they live, how often they may be tried and sent."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from otpmail.address import parse_address
from otpmail.errors import InvalidArgument
from otpmail.settings.duration import DayOrLess, DayOrLessOrZero, SecondOrMore
from otpmail.settings.problems import quoted
from otpmail.settings.secret_file import is_readable_directory
from otpmail.settings.section import Section, broken_rule

HourlyCap = Annotated[int, Field(ge=1, le=10_000_000)]

RATES = "mails_per_hour", "mails_per_day"
"""The rates of mails without codes, by their names in CALLERS_FILE and in LIMITS_MODE."""

LIMITS = ("resend", "address", "block", "caller", "service", "guesses", *RATES)
"""The limits of mails, and of wrong codes at many addresses, by their names in LIMITS_MODE."""

DIGITS, BITS = 6, 20
"""The fewest digits of a code, or bits of one of letters, that a profile may have."""

LOGIN_SECONDS, OTHER_SECONDS = 600, 86_400
"""The longest life of a code for a login, and for another purpose, that a profile may have."""

MOST_ATTEMPTS = 10
"""The most attempts at a code that a profile may allow."""

_NEVER_IN_SHADOW = ("failures", "attempts")
_MODES = "enforce", "shadow"
_LIFESPAN = 600.0
_COMPAT_LIFESPAN = 120.0


class OtpSettings(Section):
    """The form of codes, how many seconds they live, how often they may be tried and sent."""

    model_config = SettingsConfigDict(env_prefix="OTP_")

    lifespan_seconds: DayOrLess | None = None
    cleanup_seconds: SecondOrMore = 180
    digits: Annotated[int, Field(ge=4, le=10)] = 6
    attempts: Annotated[int, Field(ge=1, le=100)] = 5
    failures_per_hour: Annotated[int, Field(ge=1, le=10_000)] = 10
    failures_per_day: Annotated[int, Field(ge=1, le=10_000)] = 30
    failures_per_caller_hour: HourlyCap | None = None
    under_attack: Literal["lock", "longer"] = "longer"
    sends_per_hour: Annotated[int, Field(ge=1, le=10_000)] = 10
    sends_per_day: Annotated[int, Field(ge=1, le=10_000)] = 30
    sends_per_block_hour: HourlyCap = 30
    sends_per_caller_hour: HourlyCap | None = None
    sends_per_service_hour: HourlyCap | None = None
    limits_in_shadow: Annotated[frozenset[str], NoDecode] = Field(
        default="enforce", validation_alias="LIMITS_MODE", validate_default=True
    )
    resend_seconds: DayOrLessOrZero = 30
    keys: Annotated[SecretStr, Field(validate_default=False)] = SecretStr("")
    gmail_dots: bool = False
    return_code: bool = False
    locale: str = "en"
    templates_dir: Path | None = None
    show_reference: bool = True
    domain: str = ""
    code_header: bool = False

    @field_validator("keys")
    @classmethod
    def _keys_can_be_read(cls, value: SecretStr) -> SecretStr:
        try:
            parse_keys(value.get_secret_value())
        except ValueError as error:
            raise broken_rule(str(error)) from None
        return value

    @field_validator("limits_in_shadow", mode="before")
    @classmethod
    def _read_mode(cls, value: object) -> object:
        return limits_in_shadow(value) if isinstance(value, str) else value

    @field_validator("templates_dir")
    @classmethod
    def _is_a_directory(cls, value: Path | None) -> Path | None:
        if value is not None and not is_readable_directory(value):
            raise broken_rule("is not a directory that can be read")
        return value

    @field_validator("domain")
    @classmethod
    def _is_a_domain(cls, value: str) -> str:
        try:
            return parse_address(f"x@{value}", "").spec.removeprefix("x@") if value else value
        except InvalidArgument:
            raise broken_rule("is not a domain such as example.com") from None

    def lifespan(self, *, compat: bool) -> float:
        """How many seconds a code lives; `compat` for one of the original's contract, whose default stays."""
        return self.lifespan_seconds or (_COMPAT_LIFESPAN if compat else _LIFESPAN)

    @property
    def without_effect(self) -> Iterator[str]:
        """Yield the limits of an hour that are above those of a day, in words that open with the setting."""
        failures = "FAILURES", self.failures_per_hour, self.failures_per_day
        for kind, hour, day in (failures, ("SENDS", self.sends_per_hour, self.sends_per_day)):
            if hour > day:
                yield f"OTP_{kind}_PER_HOUR={hour}: has no effect, since OTP_{kind}_PER_DAY={day} is reached first"

    @property
    def beyond_ceilings(self) -> Iterator[str]:
        """Yield what is set beyond the ceilings of profiles, in words that open with the setting."""
        if self.digits < DIGITS:
            yield f"OTP_DIGITS={self.digits}: one of {10**self.digits:,} codes is guessed soon; {DIGITS} are usual"
        if (self.lifespan_seconds or 0) > LOGIN_SECONDS:
            yield (
                f"OTP_LIFESPAN_SECONDS={self.lifespan_seconds:g}: a code with such a long life is seen by others "
                f"than its owner; {LOGIN_SECONDS} are enough for a login"
            )
        if self.attempts > MOST_ATTEMPTS:
            yield f"OTP_ATTEMPTS={self.attempts}: more than {MOST_ATTEMPTS} attempts at a code help a guesser alone"

    @property
    def derivation_keys(self) -> dict[str, bytes]:
        """The keys by their ids, the issuing one first; empty when OTP_KEYS is not set."""
        return parse_keys(self.keys.get_secret_value())


def limits_in_shadow(text: str) -> frozenset[str]:
    """Read LIMITS_MODE: a mode for all limits, or `limit=mode` for some, separated by commas. Later ones count.

    Returns the limits in shadow. Raises the error of a validator.
    """
    shadows: set[str] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, mode = (word.strip() for word in part.lower().rpartition("="))
        if mode == "shadow" and name.removeprefix("otp_").startswith(_NEVER_IN_SHADOW):
            raise broken_rule(
                f"{quoted(part)} can't be: the limits of wrong codes of an address or a code always hold, as "
                "anybody could guess on without them; only guesses, over all addresses of a caller, can be in shadow"
            )
        if mode not in _MODES or (equals and name not in LIMITS):
            raise broken_rule(
                f"{quoted(part)} is neither enforce nor shadow, nor limit=mode, such as block=shadow; the limits are "
                f"{', '.join(LIMITS)}"
            )
        named = {name} if equals else set(LIMITS)
        shadows = shadows | named if mode == "shadow" else shadows - named
    return frozenset(shadows)


def parse_keys(text: str) -> dict[str, bytes]:
    """Read `id:base64,id:base64`.

    Raises ValueError, which names an entry by its place: what stands there as an id may be the key itself.
    """
    keys: dict[str, bytes] = {}
    for place, part in enumerate(filter(None, (p.strip() for p in text.split(","))), 1):
        key_id, colon, encoded = part.partition(":")
        if not colon or not re.fullmatch(r"[A-Za-z0-9_.-]{1,32}", key_id):
            raise ValueError(f"entry {place} is not id:base64")
        try:
            key = base64.b64decode(encoded, validate=True)
        except ValueError:  # also for what is not ASCII
            raise ValueError(f"entry {place} has a key that is not base64; an entry is id:base64") from None
        if len(key) < 32:
            raise ValueError(f"entry {place} has a key of fewer than 32 bytes")
        if key_id in keys:
            raise ValueError(f"entry {place} has the id of an earlier one")
        keys[key_id] = key
    return keys
