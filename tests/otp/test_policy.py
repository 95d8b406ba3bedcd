"""The rules about sending and trying codes, on one record and with the time passed in."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otpmail.errors import LimitExceeded, MemoryFull
from otpmail.model import FAILURE_WINDOW, Challenge, Check, CheckResult, CodeRecord, Replaced, Sending
from otpmail.otp.policy import Attempt, Policy

POLICY = Policy(attempts=3, failures_per_hour=5, resend=30.0)
LIFESPAN = 120.0


def _fresh(name: str, now: float = 0.0) -> Challenge:
    return Challenge(name.encode(), "k1", now + LIFESPAN)


def _sent(now: float = 0.0, name: str = "a") -> CodeRecord:
    return POLICY.send(None, now, _fresh(name, now), spaced=True)[0]


def _fail(standing: CodeRecord | None, now: float, times: int) -> CodeRecord | None:
    for _ in range(times):
        standing, attempt = POLICY.attempt(standing, now)
        assert attempt.challenge is not None
    return standing


def test_a_first_send_issues_the_fresh_challenge() -> None:
    """Without a live code the fresh challenge is mailed, and the next mail may go `resend` seconds later."""
    standing, sending = POLICY.send(None, 10.0, _fresh("a", 10.0), spaced=True)
    assert sending == Sending(_fresh("a", 10.0), 40.0)
    assert standing == CodeRecord(sending.challenge, (), 40.0, call=b"a")


def test_a_resend_mails_the_live_challenge_as_it_is() -> None:
    """A resend mails the same code: its expiry is not extended and its failed attempts are not forgiven."""
    standing = _fail(_sent(), 1.0, 2)
    _, sending = POLICY.send(standing, 31.0, _fresh("b", 31.0), spaced=True)
    assert sending == Sending(Challenge(b"a", "k1", expires=120.0, attempts=2), 61.0)


@pytest.mark.parametrize(
    ("lifespan", "left", "name"),
    [
        (120.0, 60.0, b"a"),
        (120.0, 59.9, b"b"),
        (600.0, 300.0, b"a"),
        (600.0, 299.9, b"b"),
        (90.0, 60.0, b"a"),
        (90.0, 59.9, b"b"),
        (61.0, 60.0, b"a"),
        (60.0, 59.9, b"a"),
        (60.0, 30.0, b"a"),
        (60.0, 29.9, b"b"),
        (2.0, 1.0, b"a"),
        (2.0, 0.9, b"b"),
    ],
)
def test_a_challenge_near_its_end_is_replaced(lifespan: float, left: float, name: bytes) -> None:
    """A resend issues a new code with less than half of a life or a minute left, or half of a life of a minute."""
    standing, _ = POLICY.send(None, 0.0, Challenge(b"a", "k1", lifespan), spaced=True)
    now = lifespan - left
    after, sending = POLICY.send(standing, now, Challenge(b"b", "k1", now + lifespan), spaced=False)
    assert after.challenge == sending.challenge
    assert sending.challenge.id == name
    assert after.replaced == (Replaced(Challenge(b"a", "k1", lifespan), (now + 30,)) if name == b"b" else None)


def test_the_rule_is_that_of_the_contract_that_asks() -> None:
    """A code that lives longer than a new one would is mailed again, and one that lives shorter is replaced."""
    long_lived, _ = POLICY.send(None, 0.0, Challenge(b"a", "k1", 600.0), spaced=True)
    assert POLICY.send(long_lived, 400.0, Challenge(b"b", "k1", 520.0), spaced=False)[1].challenge.id == b"a"
    short_lived, _ = POLICY.send(None, 0.0, Challenge(b"a", "k1", 120.0), spaced=False)
    assert POLICY.send(short_lived, 31.0, Challenge(b"b", "k1", 631.0), spaced=True)[1].challenge.id == b"b"


def test_a_challenge_that_replaces_another_takes_over_its_attempts() -> None:
    """The older code is no code any more, and guesses at it count for the new one: over both there are N."""
    standing = _fail(_sent(), 1.0, 2)
    standing, sending = POLICY.send(standing, 70.0, _fresh("b", 70.0), spaced=True)
    assert sending.challenge == Challenge(b"b", "k1", expires=190.0, attempts=2)
    assert standing.failures == (1.0, 1.0)
    assert POLICY.attempt(standing, 71.0, b"a")[1] == Attempt(None)
    after, attempt = POLICY.attempt(standing, 71.0)
    assert attempt.attempts_left == 0
    assert POLICY.attempt(after, 71.0)[1].exhausted


def test_an_expired_challenge_leaves_no_attempts() -> None:
    """From the moment of its expiry on a challenge is not replaced but gone, and the next has all attempts."""
    standing = _fail(_sent(), 1.0, 2)
    _, sending = POLICY.send(standing, 120.0, _fresh("b", 120.0), spaced=True)
    assert sending == Sending(_fresh("b", 120.0), 150.0)


def test_a_challenge_without_attempts_left_is_replaced() -> None:
    """A code without attempts left is not mailed again."""
    standing = _fail(_sent(), 1.0, POLICY.attempts)
    _, sending = POLICY.send(standing, 31.0, _fresh("b", 31.0), spaced=True)
    assert sending == Sending(_fresh("b", 31.0), 61.0)


def test_mails_are_spaced() -> None:
    """A second mail too soon is refused with the time that is left, unless spacing is not asked for."""
    standing = _sent()
    with pytest.raises(LimitExceeded) as caught:
        POLICY.send(standing, 29.0, _fresh("b"), spaced=True)
    assert caught.value.retry_after == pytest.approx(1.0)
    assert caught.value.subject == "address"
    assert POLICY.send(standing, 29.0, _fresh("b"), spaced=False)[1].challenge.id == b"a"
    assert POLICY.send(standing, 30.0, _fresh("b"), spaced=True)[1].challenge.id == b"a"


def test_exactly_n_attempts() -> None:
    """The policy compares attempt N, refuses attempt N+1, and says when a new code may be asked for."""
    standing: CodeRecord | None = _sent()
    left = []
    for _ in range(POLICY.attempts):
        standing, attempt = POLICY.attempt(standing, 1.0)
        assert attempt.challenge is not None
        left.append(attempt.attempts_left)
    assert left == [2, 1, 0]
    after, attempt = POLICY.attempt(standing, 1.0)
    assert attempt == Attempt(None, exhausted=True, retry=30.0)
    assert after == standing


def test_the_attempt_is_counted_before_anybody_compares() -> None:
    """The record that `attempt` returns has the attempt as a failure, so a crash never gives one back."""
    standing, attempt = POLICY.attempt(_sent(), 1.0)
    assert standing is not None
    assert standing.challenge == attempt.challenge
    assert attempt.challenge is not None
    assert attempt.challenge.attempts == 1
    assert standing.failures == (1.0,)


def test_the_failure_budget_outlives_the_code() -> None:
    """A new code does not reset the failures: once they are spent, nothing is mailed or compared."""
    standing = _fail(_sent(), 1.0, 3)
    standing, _ = POLICY.send(standing, 31.0, _fresh("b", 31.0), spaced=True)
    standing = _fail(standing, 32.0, 2)
    with pytest.raises(LimitExceeded) as caught:
        POLICY.send(standing, 100.0, _fresh("c", 100.0), spaced=True)
    assert caught.value.retry_after == pytest.approx(1.0 + FAILURE_WINDOW - 100.0)
    after, attempt = POLICY.attempt(standing, 33.0)
    assert attempt == Attempt(None, exhausted=True, retry=1.0 + FAILURE_WINDOW)
    assert after is not None
    assert standing is not None
    assert after.failures == standing.failures


def test_the_failure_window_rolls() -> None:
    """Each failure counts for an hour from its own time, no longer and no shorter."""
    standing = _fail(_sent(), 1.0, 3)
    standing, _ = POLICY.send(standing, 31.0, _fresh("b", 31.0), spaced=True)
    standing = _fail(standing, 32.0, 2)
    now = 1.0 + FAILURE_WINDOW
    with pytest.raises(LimitExceeded):
        POLICY.send(standing, now - 0.1, _fresh("c", now), spaced=True)
    standing, sending = POLICY.send(standing, now, _fresh("c", now), spaced=True)
    assert sending.challenge.id == b"c"
    standing = _fail(standing, now, 3)
    assert POLICY.attempt(standing, now)[1].exhausted


@pytest.mark.parametrize("standing", [None, CodeRecord(), CodeRecord(failures=(1.0,)), CodeRecord(_fresh("a"))])
def test_nothing_live_is_not_counted(standing: CodeRecord | None) -> None:
    """Without a live code there is nothing to try, and nothing is spent."""
    after, attempt = POLICY.attempt(standing, 500.0)
    assert attempt == Attempt(None)
    assert (after.failures if after else ()) == (standing.failures if standing else ())


def test_an_attempt_bound_to_another_challenge_is_not_compared() -> None:
    """An attempt with a challenge id tries that challenge only."""
    standing = _sent()
    assert POLICY.attempt(standing, 1.0, b"b") == (standing, Attempt(None))
    assert POLICY.attempt(standing, 1.0, b"a")[1].challenge is not None


def test_a_text_that_can_not_be_a_code_costs_nothing() -> None:
    """The policy compares such a text like any other, and neither the code nor its address loses an attempt by it."""
    standing = _fail(_sent(), 1.0, 1)
    assert standing is not None
    after, attempt = POLICY.attempt(standing, 2.0, counts=False)
    assert after == standing
    assert attempt == Attempt(standing.challenge, attempts_left=2)
    spent = _fail(standing, 2.0, 2)
    assert POLICY.attempt(spent, 3.0, counts=False)[1].exhausted
    assert POLICY.attempt(standing, 500.0, counts=False)[1] == Attempt(None)


def test_a_success_is_for_one_and_clears_everything() -> None:
    """The first to succeed uses the code up and clears the budgets; a second finds nothing."""
    standing = _fail(_sent(), 1.0, 2)
    assert POLICY.succeed(standing, b"b") == (standing, False)
    after, used = POLICY.succeed(standing, b"a")
    assert (after, used) == (None, True)
    assert POLICY.succeed(after, b"a") == (None, False)
    assert POLICY.send(after, 2.0, _fresh("b", 2.0), spaced=True)[1].challenge.id == b"b"


@dataclass
class _Guess:
    """Typed text that is the code of one challenge, or of none."""

    right: bytes | None = None
    counts: bool = True

    def matches(self, challenge: Challenge | None) -> bool:
        """Whether it is the challenge's code."""
        return challenge is not None and challenge.id == self.right

    def proofs(self, key: bytes) -> list[tuple[str, bytes]]:
        """Return nothing: the rules compare."""
        del key
        return []


def test_a_check_counts_compares_and_uses_up() -> None:
    """One step of the rules counts a wrong code, and uses up a right one for a single caller."""
    standing = _fail(_sent(), 1.0, 1)
    after, check = POLICY.check(standing, 2.0, _Guess())
    assert check == Check(CheckResult.WRONG_CODE, attempts_left=1)
    assert after == _fail(standing, 2.0, 1)
    assert POLICY.check(standing, 2.0, _Guess(counts=False)) == (standing, Check(CheckResult.WRONG_CODE, 2))
    assert POLICY.check(standing, 2.0, _Guess(b"a"), b"b") == (standing, Check(CheckResult.NO_LIVE_CODE))
    assert POLICY.check(standing, 2.0, _Guess(b"a")) == (None, Check(CheckResult.VALID))
    assert POLICY.check(None, 2.0, _Guess(b"a")) == (None, Check(CheckResult.NO_LIVE_CODE))
    spent = _fail(standing, 2.0, 2)
    assert POLICY.check(spent, 3.0, _Guess(b"a")) == (spent, Check(CheckResult.TOO_MANY_ATTEMPTS, 0, 30.0))


def test_an_address_without_a_record_needs_room() -> None:
    """Without room for another record only addresses that have one may get a code."""
    with pytest.raises(MemoryFull):
        POLICY.send(None, 0.0, _fresh("a"), spaced=True, room=False)
    assert POLICY.send(_sent(), 30.0, _fresh("b"), spaced=True, room=False)[1].challenge.id == b"a"


def test_voiding_ends_the_code_and_keeps_the_failures() -> None:
    """A void code is gone; it was not shown, so the failures stay."""
    standing = _fail(_sent(), 1.0, 2)
    assert POLICY.void(standing, b"b") == (standing, None)
    for only in (None, b"a"):
        after, _ = POLICY.void(standing, only)
        assert after is not None
        assert after.challenge is None
        assert after.failures == (1.0, 1.0)
    assert POLICY.void(None, None) == (None, None)


def test_a_mail_that_did_not_leave_is_not_waited_for() -> None:
    """After `unsend` the same code may be mailed at once; another challenge's mail changes nothing."""
    standing, sending = POLICY.send(None, 0.0, _fresh("a"), spaced=True)
    assert POLICY.unsend(standing, Sending(_fresh("b"), sending.next_send)) == (standing, None)
    assert POLICY.unsend(standing, Sending(_fresh("a"), sending.next_send - 1)) == (standing, None)  # one left since
    after, _ = POLICY.unsend(standing, sending)
    assert POLICY.send(after, 1.0, _fresh("b", 1.0), spaced=True)[1].challenge == _fresh("a")
    assert POLICY.unsend(None, sending) == (None, None)


def test_a_replaced_challenge_returns_where_the_new_ones_mail_did_not_leave() -> None:
    """The code that a person has is valid again if no newer one was mailed; attempts at the newer one stay counted."""
    standing = _fail(_sent(), 1.0, 1)
    standing, sending = POLICY.send(standing, 70.0, _fresh("b", 70.0), spaced=True)
    tried = _fail(standing, 71.0, 1)
    after, _ = POLICY.unsend(tried, sending)
    assert after is not None
    assert after.challenge == Challenge(b"a", "k1", expires=120.0, attempts=2)
    assert (after.failures, after.next_send) == ((1.0, 71.0), 0.0)
    again, resent = POLICY.send(standing, 71.0, _fresh("c", 71.0), spaced=False)
    assert again.replaced == Replaced(Challenge(b"a", "k1", expires=120.0), (100.0, 101.0))
    kept, _ = POLICY.unsend(again, sending)  # the newer one was mailed since
    assert kept == replace(again, replaced=Replaced(Challenge(b"a", "k1", expires=120.0), (101.0,)))
    assert POLICY.unsend(kept, sending) == (kept, None)  # it is undone once
    after, _ = POLICY.unsend(kept, resent)
    assert after is not None
    assert after.challenge == Challenge(b"a", "k1", expires=120.0, attempts=1)


def test_a_replaced_challenge_stays_ended_once_a_newer_one_may_have_been_sent() -> None:
    """While one mail of the newer code is not known to be unsent, the older code does not return."""
    standing, first = POLICY.send(_sent(), 70.0, _fresh("b", 70.0), spaced=True)
    standing, second = POLICY.send(standing, 100.0, _fresh("c", 100.0), spaced=True)
    after, _ = POLICY.unsend(standing, second)
    assert after is not None
    assert (after.challenge, after.next_send) == (first.challenge, 0.0)
    many = standing
    for number in range(20):
        many, _ = POLICY.send(many, 101.0 + number / 4, _fresh(f"d{number}", 101.0), spaced=False)
    assert many.replaced is None  # a record that many mails are asked for does not grow


def test_a_call_that_asks_again_has_the_first_answer() -> None:
    """A call whose answer was lost is not refused over its own mail, whichever code that holds."""
    standing, sending = POLICY.send(_sent(), 31.0, _fresh("b", 31.0), spaced=True)
    assert sending.challenge.id == b"a"
    assert POLICY.send(standing, 31.5, _fresh("b", 31.5), spaced=True) == (standing, sending)
    with pytest.raises(LimitExceeded):
        POLICY.send(standing, 31.5, _fresh("c", 31.5), spaced=True)
    ended, _ = POLICY.void(standing, None)
    assert POLICY.send(ended, 32.0, _fresh("b", 32.0), spaced=True)[1].challenge == _fresh("b", 32.0)


def test_a_call_that_sends_no_mail_is_withdrawn() -> None:
    """After a call without an answer the next one need not wait, and a code that it replaced is live again."""
    standing, _ = POLICY.send(_sent(), 31.0, _fresh("b", 31.0), spaced=True)
    assert POLICY.withdraw(standing, b"c") == (standing, None)
    after, _ = POLICY.withdraw(standing, b"b")
    assert POLICY.send(after, 32.0, _fresh("c", 32.0), spaced=True)[1].challenge.id == b"a"
    replacing, _ = POLICY.send(standing, 70.0, _fresh("d", 70.0), spaced=True)
    after, _ = POLICY.withdraw(replacing, b"d")
    assert after == CodeRecord(Challenge(b"a", "k1", expires=120.0))
    assert POLICY.withdraw(after, b"d") == (after, None)
    assert POLICY.withdraw(None, b"d") == (None, None)
    assert POLICY.withdraw(POLICY.void(standing, None)[0], b"b") == (CodeRecord(), None)


def test_a_refused_address_has_no_code() -> None:
    """Where the relay refuses the address for good, neither the mailed challenge nor the one it replaced is live."""
    standing, sending = POLICY.send(_sent(), 70.0, _fresh("b", 70.0), spaced=True)
    after, _ = POLICY.refuse(standing, sending)
    assert after == CodeRecord()
    resent, _ = POLICY.send(standing, 71.0, _fresh("c", 71.0), spaced=False)
    after, _ = POLICY.refuse(resent, sending)
    assert after is not None
    assert after.challenge is None
    assert POLICY.refuse(_sent(), sending) == (_sent(), None)
    assert POLICY.refuse(None, sending) == (None, None)


@dataclass
class _World:
    """A count of what an attacker and a person did, apart from the policy's own."""

    now: float = 1.0
    standing: CodeRecord | None = None
    issued: int = 0
    tries: dict[bytes, int] = field(default_factory=dict)
    expiries: dict[bytes, float] = field(default_factory=dict)
    failures: list[float] = field(default_factory=list)
    used: set[bytes] = field(default_factory=set)
    chains: dict[bytes, bytes] = field(default_factory=dict)
    dead: set[bytes] = field(default_factory=set)
    last: Sending | None = None

    def send(self, *, spaced: bool) -> None:
        self.issued += 1
        fresh = Challenge(self.issued.to_bytes(2), "k1", self.now + LIFESPAN)
        try:
            self.standing, sending = POLICY.send(self.standing, self.now, fresh, spaced=spaced)
        except LimitExceeded as error:
            assert error.retry_after > 0  # noqa: PT017  it is the whole answer
            return
        mailed = sending.challenge
        self.last = sending
        assert self.now + 60.0 <= mailed.expires == self.expiries.setdefault(mailed.id, mailed.expires)
        assert mailed.expires <= self.now + LIFESPAN
        if mailed.id == fresh.id and self.standing.replaced is not None:
            older = self.standing.replaced.challenge.id
            self.chains[mailed.id] = self.chain(older)
            self.dead.add(older)
        assert mailed.id not in self.used | self.dead
        assert self.tries.get(self.chain(mailed.id), 0) < POLICY.attempts

    def chain(self, name: bytes) -> bytes:
        """The first challenge of those that replaced each other: they share their attempts."""
        return self.chains.get(name, name)

    def attempt(self, *, right: bool) -> None:
        self.standing, attempt = POLICY.attempt(self.standing, self.now)
        if attempt.challenge is None:
            return
        name = attempt.challenge.id
        assert self.now < self.expiries[name]
        chain = self.chain(name)
        self.tries[chain] = self.tries.get(chain, 0) + 1
        assert self.tries[chain] <= POLICY.attempts
        assert name not in self.used | self.dead
        if right:
            self.standing, valid = POLICY.succeed(self.standing, name)
            assert valid
            self.used.add(name)
            self.failures.clear()
        else:
            self.failures = [at for at in self.failures if at > self.now - FAILURE_WINDOW] + [self.now]
            assert len(self.failures) <= POLICY.failures_per_hour

    def void(self, *, unsend: bool) -> None:
        if unsend and self.last is not None:
            before = self.standing and self.standing.challenge
            self.standing, _ = POLICY.unsend(self.standing, self.last)
            after = self.standing and self.standing.challenge
            if before and after and before.id != after.id:
                self.dead = (self.dead - {after.id}) | {before.id}
        else:
            self.standing, _ = POLICY.void(self.standing, None)


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["send", "send", "attempt", "attempt", "attempt", "void", "wait"]),
        st.booleans(),
        st.sampled_from([0.0, 0.5, 29.0, 31.0, 61.0, 119.0, 121.0, 1700.0, 3599.0, 3601.0]),
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=200)
@given(_STEPS)
def test_no_sequence_of_calls_gets_past_the_rules(steps: list[tuple[str, bool, float]]) -> None:
    """No sequence of calls gets more than N attempts a code and those it replaced, or more failures than the budget.

    A code that was used or replaced is never valid or mailed again, and a resend never moves an expiry.
    """
    world = _World()
    for step, flag, wait in steps:
        match step:
            case "send":
                world.send(spaced=flag)
            case "attempt":
                world.attempt(right=flag and wait > 1000)
            case "void":
                world.void(unsend=flag)
            case _:
                world.now += wait


def test_a_record_says_when_it_says_nothing_any_more() -> None:
    """A record may be dropped once its code, its failures and its spacing are all of the past."""
    assert CodeRecord().expires == 0.0
    assert _sent().expires == 120.0
    failed = _fail(_sent(), 1.0, 1)
    assert failed is not None
    assert failed.expires == 1.0 + FAILURE_WINDOW
    assert CodeRecord(next_send=7.0).expires == 7.0
