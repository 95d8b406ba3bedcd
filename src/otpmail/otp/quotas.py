"""The limits over many addresses that a mail with a code counts for, and how much of an address's limits is spent."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

from otpmail.callers import Caller, TableKey
from otpmail.code_record import Budget
from otpmail.limits.rules import (
    Windows,
    counts_end,
    counts_free_at,
    level_reached,
    recent_counts,
    total_of,
    with_one,
)
from otpmail.model import DAY, HOUR, Counts, Reached
from otpmail.otp.refusals import refusal
from otpmail.settings import OtpSettings
from otpmail.store.challenges import Admitted, Quota

_REMEMBERED = 1024  # callers, whose limits are at hand
_WHOLE = 100  # percent


class Quotas:
    """The limits as they are set.

    `are_usual`: each mail counts for some, also without a `client_ip`. `are_for_guesses`: each wrong code does.
    """

    def __init__(self, settings: OtpSettings) -> None:
        self._settings = settings
        self._shadows = settings.limits_in_shadow
        caps = settings.sends_per_caller_hour, settings.sends_per_service_hour
        self.are_for_guesses = settings.failures_per_caller_hour is not None
        self.are_usual = any(cap is not None for cap in caps)
        self._of_guesses = lru_cache(_REMEMBERED)(self._for_guesses)
        self._of_caller = lru_cache(_REMEMBERED)(self._for_caller)

    def __repr__(self) -> str:
        return f"<Quotas {'' if self.are_usual else 'of blocks alone'}>"

    def of_guesses(self, caller: Caller) -> tuple[Quota, ...]:
        """Return the limits of a wrong code, over all addresses of a caller."""
        return self._of_guesses(caller.name, caller.may.guesses_per_hour)

    def of(self, caller: Caller, block: str) -> tuple[Quota, ...]:
        """Return the limits of a mail for a caller, and for the block of an end user, if that is known.

        A caller learns nothing of others: a block has a limit for each caller.
        """
        quotas = self._of_caller(caller.name, caller.may.codes_per_hour)
        if not block:
            return quotas
        key = _key(f"block\0{caller.name}\0{block}")
        return (Quota("block", key, self._settings.sends_per_block_hour, "block" in self._shadows), *quotas)

    def _for_guesses(self, name: str, guesses_per_hour: int | None) -> tuple[Quota, ...]:
        most = guesses_per_hour or self._settings.failures_per_caller_hour
        if most is None:
            return ()
        return (self._warning("guesses", f"guesses\0{name}", most, _named(name, guesses_per_hour=guesses_per_hour)),)

    def _for_caller(self, name: str, codes_per_hour: int | None) -> tuple[Quota, ...]:
        found = []
        most = codes_per_hour or self._settings.sends_per_caller_hour
        if most is not None:
            named = _named(name, codes_per_hour=codes_per_hour)
            found.append(self._warning("caller", f"caller\0{name}", most, named))
        if self._settings.sends_per_service_hour is not None:
            found.append(self._warning("service", "service", self._settings.sends_per_service_hour))
        return tuple(found)

    def _warning(self, limit: str, counted: str, most: int, named: TableKey | None = None) -> Quota:
        return Quota(limit, _key(counted), most, limit in self._shadows, warns=True, named=named)


def admit(counts: Counts, quota: Quota, now: float) -> Admitted:
    """Count one mail more for a limit over many addresses. Raises LimitExceeded."""
    stretch = quota.stretch
    counts = recent_counts(counts, now, stretch)
    before, reached = total_of(counts), 0
    if before >= quota.most:
        if not quota.is_shadow:
            raise refusal(quota.limit, counts_free_at(counts, quota.most, stretch) - now, named=quota.named)
        reached = _WHOLE
    elif quota.warns:
        reached = level_reached(before, quota.most)
    counts = with_one(counts, now, stretch)
    needed = 0.0 if quota.is_shadow else counts_free_at(counts, quota.most, stretch)
    return Admitted(counts, counts_end(counts, stretch), needed, Reached(quota.limit, reached) if reached else None)


def budgets_of(kind: str, windows: Windows, times: Sequence[float], now: float) -> tuple[Budget, ...]:
    """Return how much of the limits of a kind of setting is spent by what happened at some times."""
    found = []
    for span, seconds, most in (("HOUR", HOUR, windows.per_hour), ("DAY", DAY, windows.per_day)):
        spent = [at for at in times if at + seconds > now]
        if spent:
            found.append(Budget(f"OTP_{kind}_PER_{span}", len(spent), most, spent[0] + seconds))
    return tuple(found)


def _named(name: str, **keys: int | None) -> TableKey | None:
    """Return the key that sets a limit in the table of a caller by its name, None where that does not have it."""
    [(key, most)] = keys.items()
    return None if most is None else TableKey(key, Caller(name).place)


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
