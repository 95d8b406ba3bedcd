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
    life: float = LIFE
    now: float = 1e9
    record: CodeRecord | None = None
    mails: dict[bytes, list[float]] = field(default_factory=dict)
    guesses: list[float] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    challenges: dict[bytes, Challenge] = field(default_factory=dict)

    def send(self, scope: bytes, device: bytes = STRANGERS) -> Challenge | None:
        """Ask for a code; None where none is mailed."""
        fresh = Challenge(self.random.randbytes(16), "k1", self.now + self.life, length=6)
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

    def guess(self, attempt: Attempt) -> Check:
        """Type six digits that are wrong, and note a guess that was compared with a short code."""
        before = _times_of(self.record)
        self.record, check = self.policy.check(self.record, self.now, Typed(), attempt)
        if check.result is CheckResult.WRONG_CODE and _times_of(self.record) != before:
            self.guesses.append(self.now)
        return check

    def _failures(self, device: bytes) -> list[tuple[float, ...]]:
        lanes = self.record.lanes if self.record is not None else ()
        return [lane.failures for lane in lanes if lane.device == device]


def _times_of(record: CodeRecord | None) -> list[int]:
    """Return how often each live challenge was tried."""
    slots = record.slots if record is not None else ()
    return [slot.challenge.attempts for slot in slots if slot.challenge is not None]


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


def _tokens(count: int) -> list[bytes]:
    return [b"token%03d" % number for number in range(count)]


def _guess_all_day(mailbox: Mailbox, devices: list[bytes]) -> None:
    """Ask for codes and guess with each of these devices and as a stranger, as often as it can be done in a day."""
    end = mailbox.now + DAY
    while mailbox.now < end:
        for device in (STRANGERS, *devices):
            mailbox.send(bytes(8), device)
            for _ in range(6):
                mailbox.guess(Attempt(device=device))
        mailbox.now += 291.0


@pytest.mark.parametrize(("count", "lanes"), [(1, 2), (40, 17)])
def test_a_day_of_an_attacker_with_tokens(count: int, lanes: int) -> None:
    """Each token gives the guesses of a lane, and forty give those of sixteen: none resets another.

    Mails are as few: those of each lane.
    """
    mailbox = Mailbox(Random(1))
    _guess_all_day(mailbox, _tokens(count))
    assert (lanes - 1) * POLICY.failures.per_day < _most_in(mailbox.guesses, DAY) <= lanes * POLICY.failures.per_day
    mails = sorted(at for times in mailbox.mails.values() for at in times)
    assert _most_in(mails, DAY) <= lanes * POLICY.sends.per_day
    assert _most_in(mails, HOUR) <= lanes * POLICY.sends.per_hour


def test_an_owner_beside_an_attacker_with_tokens() -> None:
    """A device that has a lane has its short code, while others fill the table; one without gets a long code."""
    mailbox = Mailbox(Random(2))
    first = mailbox.send(b"session1", DEVICE)
    for device in (STRANGERS, *_tokens(40)):
        mailbox.send(bytes(8), device)
        for _ in range(6):
            mailbox.guess(Attempt(device=device))
    assert first is not None
    assert mailbox.check(first, Attempt(b"session1", DEVICE)).result is CheckResult.VALID
    mailbox.guess(Attempt(device=b"token040"))  # takes the place
    mailbox.now += HOUR
    for _ in range(12):
        mailbox.now += 31.0
        mailbox.send(bytes(8), b"token000")
        mailbox.guess(Attempt(device=b"token000"))
    again = mailbox.send(b"session2", DEVICE)
    assert again is not None
    assert mailbox.check(again, Attempt(b"session2", DEVICE)).result is CheckResult.VALID


def test_a_person_with_many_devices() -> None:
    """Thirty devices that sign in one after the other each get a short code: a right one frees its place.

    So do sixteen that ask and never type, and the devices after them, which count with strangers.
    """
    mailbox = Mailbox(Random(3))
    for number in range(30):
        challenge = mailbox.send(b"session ", b"device%02d" % number)
        assert challenge is not None
        assert not challenge.is_long
        assert mailbox.check(challenge, Attempt(b"session ", b"device%02d" % number)).result is CheckResult.VALID
    assert mailbox.record is None
    asked = [mailbox.send(b"session ", b"device%02d" % number) for number in range(20)]
    assert mailbox.record is not None
    assert len(mailbox.record.lanes) == 17
    for number in (3, 18):
        mailbox.guess(Attempt(b"session ", b"device%02d" % number))
        check = mailbox.check(asked[number], Attempt(b"session ", b"device%02d" % number))
        assert check.result is CheckResult.VALID
    mailbox.now += DAY
    later = mailbox.send(b"session ", b"device19")
    assert later is not None
    assert [lane.device for lane in mailbox.record.lanes] == [b"device19"]


@pytest.mark.parametrize("most", [1, 2, 3])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_day_of_tokens_without_number(most: int, *, is_first: bool) -> None:
    """Within the limits of mails that ship no number of tokens ends a code of an owner with two, be it good for a day.

    `most` is how many codes each token asks for. An owner who is not the first has no lane of its own.
    """
    mailbox = Mailbox(Random(4), life=DAY)
    tokens = _tokens(80)

    def ask_all() -> None:
        for token in mailbox.random.sample(tokens, len(tokens)):
            for number in range(most):
                mailbox.send(b"theirs %d" % number, token)

    if not is_first:
        for token in tokens[:16]:
            mailbox.send(b"theirs 0", token)
    mine = [mailbox.send(scope, DEVICE) for scope in (b"session1", b"session2")]
    for _ in range(24):
        ask_all()
        mailbox.now += HOUR - 1
    for scope, challenge in zip((b"session1", b"session2"), mine, strict=True):
        assert challenge is not None
        assert mailbox.check(challenge, Attempt(scope, DEVICE)).result is CheckResult.VALID
