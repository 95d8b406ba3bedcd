"""How soon and how often codes may be mailed, and which challenge a mail is for. Pure, as `otp.policy`."""

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from operator import itemgetter
from typing import Self

from otpmail.callers import TableKey
from otpmail.code_record import STRANGERS, Lane, Replaced, Slot
from otpmail.errors import LimitExceeded
from otpmail.limits.rules import Windows
from otpmail.model import FIXED_KEY, LONG, Challenge, Reached, Sending
from otpmail.otp.refusals import refusal
from otpmail.settings import OtpSettings
from otpmail.store.challenges import Attempt, Quota, Send
from otpmail.values import frozen

_NEEDED_SECONDS = 60.0
_FREE_AT = itemgetter(0)
_MOST_MAILS = 8  # that a record knows, of a challenge that replaced another: of more, one was sent for sure


@frozen()
class SendingRules:
    """How often codes may be tried, how soon and how often they may be mailed.

    `locks`: a lane without failures left gets no code; otherwise it gets a long one. `digits` is how long others are.
    `shadows` names the limits of mails that refuse nothing: `address` and `resend`. Records count by `resend`. A
    profile may set two mails of a slot further apart, or closer: `wait` is by how many seconds.
    """

    attempts: int
    failures: Windows
    sends: Windows
    resend: float
    locks: bool = False
    digits: int = 6
    shadows: frozenset[str] = frozenset()
    wait: float = 0.0
    table_keys: Mapping[str, TableKey] = field(default_factory=dict, hash=False)
    """The keys of CALLERS_FILE that set limits in place of the settings, by the names of these limits in scripts."""

    @classmethod
    def of(cls, settings: OtpSettings) -> Self:
        """Return the rules as they are set."""
        return cls(
            settings.attempts,
            Windows(settings.failures_per_hour, settings.failures_per_day),
            Windows(settings.sends_per_hour, settings.sends_per_day),
            settings.resend_seconds,
            settings.under_attack == "lock",
            settings.digits,
            settings.limits_in_shadow,
        )

    @property
    def numbers(self) -> Sequence[float]:
        """The settings as scripts read them (`redis/scripts/codes.lua`)."""
        failures, sends = self.failures, self.sends
        limits = (failures.per_hour, failures.per_day, sends.per_hour, sends.per_day)
        shadows = [int(name in self.shadows) for name in ("address", "resend")]
        kept = failures.most, sends.most
        return (self.attempts, *limits, *kept, self.resend, self.wait, int(self.locks), *shadows, self.digits)

    def refusal(self, name: str, *, device: bool, retry_after: float, quotas: Sequence[Quota] = ()) -> LimitExceeded:
        """Return the error for a limit by its name in scripts, which may be one of `quotas`."""
        named = {quota.limit: quota.named for quota in quotas}.get(name) or self.table_keys.get(name)
        return refusal(name, retry_after, device=device, named=named)

    def _refuse(self, slot: Slot, lane: Lane, send: Send, *, attacked: bool, spaced: bool) -> tuple[Reached, ...]:
        """Raise LimitExceeded where no mail may be sent now. Returns the limits in shadow that would refuse it.

        Of several limits that refuse it, the error is for the one that lasts longest: no other refuses a retry then.
        The original's contract knows no wait between two mails, and the limits of an address are in shadow there.
        """
        now, sends = send.now, lane.sends
        reached: tuple[Reached, ...] = ()
        refused: list[tuple[float, str]] = []
        if attacked and (self.locks or send.compat):
            refused.append((self.failures.free_at(lane.failures), self.used_up(lane, by_failures=True)))
        if spaced and sends and (free := self.sends.free_at(sends) - self.resend) > now:
            if send.compat or "address" in self.shadows:
                reached = (Reached("address", 100),)
            else:
                refused.append((free, "sends_per_day" if self.sends.is_daily(sends) else "sends_per_hour"))
        if spaced and slot.next_send + self.wait > now and not send.compat:
            if "resend" in self.shadows:
                reached = (*reached, Reached("resend", 100))
            else:
                refused.append((slot.next_send + self.wait, "resend"))
        if refused:
            free, name = max(refused, key=_FREE_AT)
            raise self.refusal(name, device=lane.device != STRANGERS, retry_after=free - now)
        return reached

    def used_up(self, lane: Lane, *, by_failures: bool) -> str:
        """Return which limit of wrong codes is used up, by its name: of a lane's the one that lasts longest."""
        if not by_failures:
            return "attempts"
        return "failures_per_day" if self.failures.is_daily(lane.failures) else "failures_per_hour"

    def _spent_until(self, sends: Sequence[float], send: Send) -> float:
        """Return when one more is within the limits of an address that these mails have used up, 0.0 for none.

        The wait between two mails is not one of them.
        """
        if len(sends) < self.sends.fewest or send.compat or "address" in self.shadows:
            return 0.0
        free = self.sends.free_at(sends) - self.resend
        return free if free > send.now else 0.0

    def next_code_at(self, slot: Slot, lane: Lane, now: float, asked: Attempt, *, lock: float) -> float:
        """Return when a code may be requested again, where the lane gets none before `lock`.

        The limits of mails are in shadow for the original's contract.
        """
        mails = 0.0 if asked.compat or "address" in self.shadows else self.sends.free_at(lane.sends) - self.resend
        return lock if asked.compat and lock else max(now, lock, mails, asked.mails_at, slot.next_send + self.wait)

    def _choose(self, slot: Slot, now: float, fresh: Challenge, *, attacked: bool) -> tuple[Sending, Replaced | None]:
        """Return the challenge that is mailed now, and the one that it has replaced, now or earlier."""
        live, replaced = slot.challenge, slot.replaced
        next_send = now + self.resend
        if attacked:
            fresh = replace(fresh, length=LONG)
        if (
            live is None
            or live.attempts >= (live.most or self.attempts)
            or (attacked and not live.is_long)
            or (live.key_id == FIXED_KEY) is not (fresh.key_id == FIXED_KEY)  # a test address since, or no longer
        ):
            return Sending(fresh, next_send), None
        if live.expires - now < _near_end(fresh.expires - now):
            older = Replaced(replace(live, attempts=0), ())
            live, replaced = replace(fresh, attempts=live.attempts, most=live.most), older
        if replaced is not None:
            mails = (*replaced.mails, next_send)
            replaced = None if len(mails) > _MOST_MAILS else Replaced(replaced.challenge, mails)
        return Sending(live, next_send), replaced


def _near_end(lifespan: float) -> float:
    """Return with how many seconds left a code is replaced rather than mailed again, where a new one lives `lifespan`.

    A mail and a person need a minute. Codes that never have more than that are replaced at half of their life.
    """
    return max(lifespan / 2, _NEEDED_SECONDS) if lifespan > _NEEDED_SECONDS else lifespan / 2
