"""The rules about sending and trying codes, as pure functions on one record. The time is always passed in.

A store applies a rule to a record in one step, so a rule sees every attempt before it. A server of Redis does so with
scripts of its own, which say the same (`store/redis/scripts`). Times are in seconds since the epoch.
"""

from dataclasses import replace
from typing import Self

from otpmail.errors import LimitExceeded, MemoryFull
from otpmail.model import (
    CALL,
    FAILURE_WINDOW,
    NO_CALL,
    Challenge,
    Check,
    CheckResult,
    CodeRecord,
    Replaced,
    Sending,
)
from otpmail.settings import OtpSettings
from otpmail.store.challenges import Guess
from otpmail.values import frozen

_NEEDED_SECONDS = 60.0
_MOST_MAILS = 8  # that a record knows, of a challenge that replaced another: of more, one was sent for sure
_RECORDS_FULL = "codes of other addresses take their half"

# An attempt at an address without a record is tried on these, which is as much work as with one.
_NO_CHALLENGE = Challenge(bytes(16), "", 0.0)
_NOBODY = CodeRecord(Challenge(bytes(16), "", 1e18), (1e18,))


@frozen()
class Attempt:
    """The answer of the rules to an attempt. `challenge` is there when there is something to compare with."""

    challenge: Challenge | None
    attempts_left: int = 0
    exhausted: bool = False
    retry: float = 0.0  # with `exhausted`: when a new code may be asked for


@frozen()
class Policy:
    """How often codes may be tried, how soon they may be mailed again."""

    attempts: int
    failures_per_hour: int
    resend: float

    @classmethod
    def of(cls, settings: OtpSettings) -> Self:
        """Return the rules as they are set."""
        return cls(settings.attempts, settings.failures_per_hour, settings.resend_seconds)

    def send(
        self, record: CodeRecord | None, now: float, fresh: Challenge, *, spaced: bool, room: bool = True
    ) -> tuple[CodeRecord, Sending]:
        """Decide which challenge to mail now: the live one, or `fresh`. `spaced` holds mails `resend` seconds apart.

        A live one near its end is replaced, and `fresh` takes over its attempts: guesses at both are within the rules.
        A call that asks again with the same `fresh`, since the answer was lost, has the first answer.
        Raises LimitExceeded when the last mail is too recent, or the address has no failures left to spend. Raises
        MemoryFull for an address without a record while there is no `room` for one.
        """
        if record is None and not room:
            raise MemoryFull(_RECORDS_FULL)
        kept, record = record, self._recent(record, now)
        call = fresh.id[CALL]
        is_again = record.call == call != NO_CALL
        if is_again and record.challenge is not None:  # nothing changes, also not what time has taken away
            return kept or record, Sending(record.challenge, record.next_send)
        blocked_until = self._blocked_until(record, now)
        if blocked_until > now:
            raise LimitExceeded("address", "too many wrong codes for this address", retry_after=blocked_until - now)
        if spaced and record.next_send > now and not is_again:
            raise LimitExceeded(
                "address", "a code was mailed to this address just now", retry_after=record.next_send - now
            )
        sending, replaced = self._choose(record, now, fresh)
        return CodeRecord(sending.challenge, record.failures, sending.next_send, call, replaced), sending

    def check(
        self, record: CodeRecord | None, now: float, guess: Guess, only: bytes | None = None
    ) -> tuple[CodeRecord | None, Check]:
        """Count an attempt, compare, and use the code up if it is right. `only` binds it to one challenge's id.

        Its work takes as long in each case, so that the time of an answer tells no case from another.
        """
        counted, attempt = self.attempt(record, now, only, counts=guess.counts)
        challenge = attempt.challenge
        matches = guess.matches(challenge)
        if attempt.exhausted:
            return counted, Check(CheckResult.TOO_MANY_ATTEMPTS, 0, attempt.retry)
        if challenge is None:
            return counted, Check(CheckResult.NO_LIVE_CODE)
        if not matches:
            return counted, Check(CheckResult.WRONG_CODE, attempt.attempts_left)
        after, _ = self.succeed(counted, challenge.id)
        return after, Check(CheckResult.VALID)

    def attempt(
        self, record: CodeRecord | None, now: float, only: bytes | None = None, *, counts: bool = True
    ) -> tuple[CodeRecord | None, Attempt]:
        """Count an attempt as failed, before anybody compares. `only` binds it to one challenge's id.

        A success takes the count back (`succeed`). `counts` is False for a text that can't be a code: comparing it
        tells nothing, so it costs nothing.
        """
        # All that a counted attempt needs is made in every case, so that the time tells none from another.
        recent = self._recent(_NOBODY if record is None else record, now)
        blocked_until = self._blocked_until(recent, now)
        challenge = recent.challenge or _NO_CHALLENGE
        counted = Challenge(challenge.id, challenge.key_id, challenge.expires, challenge.attempts + 1)
        failures = (*recent.failures, now)[-self.failures_per_hour :]
        after = CodeRecord(counted, failures, recent.next_send, recent.call, recent.replaced)
        left = self.attempts - counted.attempts
        if record is None:
            return None, Attempt(None, 0, exhausted=False, retry=0.0)
        if blocked_until > now:
            return record, Attempt(None, 0, exhausted=True, retry=blocked_until)
        if challenge is _NO_CHALLENGE or only not in (None, challenge.id):
            return record, Attempt(None, 0, exhausted=False, retry=0.0)
        if left < 0:
            return record, Attempt(None, 0, exhausted=True, retry=max(now, record.next_send))
        if not counts:
            return record, Attempt(challenge, left + 1, exhausted=False, retry=0.0)
        return after, Attempt(counted, left, exhausted=False, retry=0.0)

    def succeed(self, record: CodeRecord | None, challenge_id: bytes) -> tuple[CodeRecord | None, bool]:
        """Use the challenge up: True for exactly one caller. A success clears every budget of the address."""
        if record is None or record.challenge is None or record.challenge.id != challenge_id:
            return record, False
        return None, True

    def void(self, record: CodeRecord | None, challenge_id: bytes | None) -> tuple[CodeRecord | None, None]:
        """End the live challenge (any, or only that one) unused. Failures stay, since nobody has shown the code."""
        if record is None or record.challenge is None or challenge_id not in (None, record.challenge.id):
            return record, None
        return replace(record, challenge=None, replaced=None), None

    def unsend(self, record: CodeRecord | None, sending: Sending) -> tuple[CodeRecord | None, None]:
        """Undo `send`, whose mail was not sent: the next may be sent at once, unless another was sent since.

        Once no mail with the challenge was sent, the one that it replaced is live again, since a person may have its
        code. The attempts stay.
        """
        if record is None or record.challenge is None or record.challenge.id != sending.challenge.id:
            return record, None
        challenge, replaced = record.challenge, record.replaced
        if replaced is not None and sending.next_send in replaced.mails:
            place = replaced.mails.index(sending.next_send)
            mails = replaced.mails[:place] + replaced.mails[place + 1 :]
            if not mails:
                return CodeRecord(replace(replaced.challenge, attempts=challenge.attempts), record.failures), None
            record = replace(record, replaced=Replaced(replaced.challenge, mails))
        if record.next_send not in (sending.next_send, 0.0):  # 0 since the latest mail was not sent either
            return record, None
        return CodeRecord(challenge, record.failures, replaced=record.replaced), None

    def withdraw(self, record: CodeRecord | None, call: bytes) -> tuple[CodeRecord | None, None]:
        """Undo `send` by the mark of its call, where nobody has its answer: no mail was sent for it.

        Nothing changes where another call has asked since.
        """
        if record is None or not record.call == call != NO_CALL:
            return record, None
        if record.challenge is None:
            return CodeRecord(None, record.failures), None
        return self.unsend(record, Sending(record.challenge, record.next_send))

    def refuse(self, record: CodeRecord | None, sending: Sending) -> tuple[CodeRecord | None, None]:
        """The relay refused the address for good: no challenge is live any more, and the mail counts as not sent."""
        if record is None or record.challenge is None or record.challenge.id != sending.challenge.id:
            return record, None
        after, _ = self.unsend(record, sending)
        return self.void(after, None)

    def _choose(self, record: CodeRecord, now: float, fresh: Challenge) -> tuple[Sending, Replaced | None]:
        """Return the challenge that is mailed now, and the one that it has replaced, now or earlier."""
        live, replaced = record.challenge, record.replaced
        next_send = now + self.resend
        if live is None or live.attempts >= self.attempts:
            return Sending(fresh, next_send), None
        if live.expires - now < _near_end(fresh.expires - now):
            live, replaced = replace(fresh, attempts=live.attempts), Replaced(replace(live, attempts=0), ())
        if replaced is not None:
            mails = (*replaced.mails, next_send)
            replaced = None if len(mails) > _MOST_MAILS else Replaced(replaced.challenge, mails)
        return Sending(live, next_send), replaced

    def _recent(self, record: CodeRecord | None, now: float) -> CodeRecord:
        """The record without what time has taken away: an expired challenge, failures over an hour old."""
        if record is None:
            return CodeRecord()
        challenge, failures = record.challenge, record.failures
        ended = challenge is not None and challenge.expires <= now
        left = tuple([failure for failure in failures if failure > now - FAILURE_WINDOW])
        replaced = None if ended else record.replaced
        # In any case, as `attempt` says.
        recent = CodeRecord(None if ended else challenge, left, record.next_send, record.call, replaced)
        return recent if ended or len(left) < len(failures) else record

    def _blocked_until(self, record: CodeRecord, now: float) -> float:
        if len(record.failures) < self.failures_per_hour:
            return now
        return record.failures[-self.failures_per_hour] + FAILURE_WINDOW


def _near_end(lifespan: float) -> float:
    """Return with how many seconds left a code is replaced rather than mailed again, where a new one lives `lifespan`.

    A mail and a person need a minute. Codes that never have more than that are replaced at half of their life.
    """
    return max(lifespan / 2, _NEEDED_SECONDS) if lifespan > _NEEDED_SECONDS else lifespan / 2
