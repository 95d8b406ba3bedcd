"""A day of an attacker against one mailbox, on a fake clock: nobody guesses, floods, or keeps the owner out."""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from random import Random

import pytest

from otp.trying import Typed
from otpmail.code_record import STRANGERS, CodeRecord
from otpmail.errors import LimitExceeded
from otpmail.limits.rules import Windows
from otpmail.model import DAY, HOUR, Challenge, Check, CheckResult
from otpmail.otp.policy import Policy
from otpmail.store.challenges import Attempt, Send

POLICY = Policy(attempts=5, failures=Windows(10, 30), sends=Windows(10, 30), resend=30.0)
DEVICE = b"owner's0"
LOGINS = 100
LIFE = 600.0


@dataclass
class Mailbox:
    """One address, whose mails only its owner reads. Counts what reaches it, and what is guessed."""

    random: Random
    policy: Policy = POLICY
    now: float = 1e9
    record: CodeRecord | None = None
    mails: dict[bytes, list[float]] = field(default_factory=dict)
    guesses: list[float] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    challenges: dict[bytes, Challenge] = field(default_factory=dict)

    def send(self, scope: bytes, device: bytes = STRANGERS) -> Challenge | None:
        """Ask for a code; None where none is mailed."""
        fresh = Challenge(self.random.randbytes(16), "k1", self.now + LIFE, length=6)
        try:
            self.record, sending = self.policy.send(self.record, Send(b"", self.now, fresh, scope=scope, device=device))
        except LimitExceeded as error:
            self.refused[str(error)] += 1
            assert error.retry_after > 0  # noqa: PT017  it is the whole answer
            return None
        self.mails.setdefault(device, []).append(self.now)
        self.challenges[sending.challenge.id] = sending.challenge
        return sending.challenge

    def check(self, challenge: Challenge | None, attempt: Attempt) -> Check:
        """Type the code of a challenge, or six digits that are wrong."""
        typed = Typed(challenge.id, challenge.length) if challenge is not None else Typed()
        before = self._failures(attempt.device)
        self.record, check = self.policy.check(self.record, self.now, typed, attempt)
        if challenge is None and attempt.device == STRANGERS and check.result is CheckResult.WRONG_CODE:
            live = (
                {slot.challenge for slot in self.record.slots if slot.scope == attempt.scope} if self.record else set()
            )
            if any(one is not None and not one.is_long for one in live):
                self.guesses.append(self.now)
                assert self._failures(attempt.device) != before
        return check

    def _failures(self, device: bytes) -> list[tuple[float, ...]]:
        lanes = self.record.lanes if self.record is not None else ()
        return [lane.failures for lane in lanes if lane.device == device]


class Attacker:
    """Asks for codes and guesses, from sessions and addresses of origin without number, as often as it can."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._scopes = [bytes(8)]

    def act(self) -> None:
        """Do a few things at once."""
        mailbox, random = self._mailbox, self._mailbox.random
        for _ in range(random.randrange(1, 12)):
            if random.random() < 0.3:
                self._scopes.append(random.choice([bytes(8), random.randbytes(8)]))
                mailbox.send(self._scopes[-1])
            check = mailbox.check(None, Attempt(random.choice(self._scopes[-20:])))
            assert check.result is not CheckResult.VALID


def _most_in(times: list[float], seconds: int) -> int:
    return max([bisect_left(times, at + seconds) - place for place, at in enumerate(times)], default=0)


def _log_in(mailbox: Mailbox, attacker: Attacker, device: bytes = STRANGERS) -> bool | None:
    """Ask for a code, and type it half a minute later, twice if need be. None where no mail could be had."""
    scope = mailbox.random.randbytes(8)
    for _ in range(2):
        challenge = mailbox.send(scope, device)
        if challenge is None:
            return None
        for _ in range(3):
            mailbox.now += 11.0
            attacker.act()
        check = mailbox.check(challenge, Attempt(scope, device))
        if check.result is CheckResult.VALID:
            return True
        assert not challenge.is_long, f"a long code was refused: {check}"
    return False


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("device", [DEVICE, STRANGERS])
def test_a_day_of_an_attack(seed: int, device: bytes) -> None:
    """An owner with a token gets in each time, one without whenever a mail may be sent; strangers only guess 30 times.

    The attacker has no rest, and asks for codes in sessions without number. A long code is never refused.
    """
    mailbox = Mailbox(Random(seed))
    attacker = Attacker(mailbox)
    entered = Counter[bool | None]()
    for _ in range(LOGINS):
        end = mailbox.now + DAY / LOGINS
        entered[_log_in(mailbox, attacker, device)] += 1
        while mailbox.now < end:
            mailbox.now += 20.0
            attacker.act()
    if device == DEVICE:
        assert entered == {True: LOGINS}
    else:
        assert entered[False] == 0
        assert entered[True] > 0
    assert 0 < _most_in(mailbox.guesses, DAY) <= POLICY.failures.per_day
    assert _most_in(mailbox.guesses, HOUR) <= POLICY.failures.per_hour
    assert 0 < _most_in(mailbox.mails[STRANGERS], DAY) <= POLICY.sends.per_day
    assert _most_in(mailbox.mails[STRANGERS], HOUR) <= POLICY.sends.per_hour
