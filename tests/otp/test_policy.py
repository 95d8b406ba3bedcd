"""The rules about sending and trying codes, on one record and with the time passed in."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otpmail.errors import LimitExceeded
from otpmail.model import FAILURE_WINDOW, Challenge, CodeRecord
from otpmail.otp.policy import Attempt, Policy

POLICY = Policy(lifespan=120.0, attempts=3, failures_per_hour=5, resend=30.0)


def _fresh(name: str, now: float = 0.0) -> Challenge:
    return Challenge(name.encode(), "k1", now + POLICY.lifespan)


def _sent(now: float = 0.0, name: str = "a") -> CodeRecord:
    return POLICY.send(None, now, _fresh(name, now), spaced=True)[0]


def _fail(standing: CodeRecord | None, now: float, times: int) -> CodeRecord | None:
    for _ in range(times):
        standing, attempt = POLICY.attempt(standing, now)
        assert attempt.challenge is not None
    return standing


def test_a_first_send_issues_the_fresh_challenge() -> None:
    """Without a live code the fresh challenge is mailed, and the next mail may go `resend` seconds later."""
    standing, mailed = POLICY.send(None, 10.0, _fresh("a", 10.0), spaced=True)
    assert mailed == _fresh("a", 10.0)
    assert standing == CodeRecord(mailed, (), 40.0)


def test_a_resend_mails_the_live_challenge_as_it_is() -> None:
    """A resend mails the same code: its expiry is not extended and its failed attempts are not forgiven."""
    standing = _fail(_sent(), 1.0, 2)
    _, mailed = POLICY.send(standing, 31.0, _fresh("b", 31.0), spaced=True)
    assert mailed == Challenge(b"a", "k1", expires=120.0, attempts=2)


@pytest.mark.parametrize(("now", "name"), [(119.9, b"a"), (120.0, b"b")])
def test_an_expired_challenge_is_replaced(now: float, name: bytes) -> None:
    """From the moment of its expiry on, a challenge is no longer live."""
    _, mailed = POLICY.send(_sent(), now, _fresh("b", now), spaced=True)
    assert mailed.id == name


def test_a_challenge_without_attempts_left_is_replaced() -> None:
    """A code without attempts left is not mailed again."""
    standing = _fail(_sent(), 1.0, POLICY.attempts)
    _, mailed = POLICY.send(standing, 31.0, _fresh("b", 31.0), spaced=True)
    assert mailed == _fresh("b", 31.0)


def test_mails_are_spaced() -> None:
    """A second mail too soon is refused with the time that is left, unless spacing is not asked for."""
    standing = _sent()
    with pytest.raises(LimitExceeded) as caught:
        POLICY.send(standing, 29.0, _fresh("b"), spaced=True)
    assert caught.value.retry_after == pytest.approx(1.0)
    assert caught.value.subject == "address"
    assert POLICY.send(standing, 29.0, _fresh("b"), spaced=False)[1].id == b"a"
    assert POLICY.send(standing, 30.0, _fresh("b"), spaced=True)[1].id == b"a"


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
    standing, mailed = POLICY.send(standing, now, _fresh("c", now), spaced=True)
    assert mailed.id == b"c"
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
    """Such a text is compared like any other, and neither the code nor its address loses an attempt by it."""
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
    assert POLICY.send(after, 2.0, _fresh("b", 2.0), spaced=True)[1].id == b"b"


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
    standing = _sent()
    assert POLICY.unsend(standing, b"b", standing.next_send) == (standing, None)
    assert POLICY.unsend(standing, b"a", standing.next_send - 1) == (standing, None)  # another one left since
    after, _ = POLICY.unsend(standing, b"a", standing.next_send)
    assert POLICY.send(after, 1.0, _fresh("b", 1.0), spaced=True)[1] == _fresh("a")
    assert POLICY.unsend(None, b"a", 0.0) == (None, None)


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

    def send(self, *, spaced: bool) -> None:
        self.issued += 1
        fresh = Challenge(self.issued.to_bytes(2), "k1", self.now + POLICY.lifespan)
        try:
            self.standing, mailed = POLICY.send(self.standing, self.now, fresh, spaced=spaced)
        except LimitExceeded as error:
            assert error.retry_after > 0  # noqa: PT017  it is the whole answer
            return
        assert self.now < mailed.expires == self.expiries.setdefault(mailed.id, mailed.expires)
        assert mailed.expires <= self.now + POLICY.lifespan
        assert mailed.id not in self.used
        assert self.tries.get(mailed.id, 0) < POLICY.attempts

    def attempt(self, *, right: bool) -> None:
        self.standing, attempt = POLICY.attempt(self.standing, self.now)
        if attempt.challenge is None:
            return
        name = attempt.challenge.id
        assert self.now < self.expiries[name]
        self.tries[name] = self.tries.get(name, 0) + 1
        assert self.tries[name] <= POLICY.attempts
        assert name not in self.used
        if right:
            self.standing, valid = POLICY.succeed(self.standing, name)
            assert valid
            self.used.add(name)
            self.failures.clear()
        else:
            self.failures = [at for at in self.failures if at > self.now - FAILURE_WINDOW] + [self.now]
            assert len(self.failures) <= POLICY.failures_per_hour

    def void(self, *, unsend: bool) -> None:
        if unsend and self.standing is not None and self.standing.challenge is not None:
            self.standing, _ = POLICY.unsend(self.standing, self.standing.challenge.id, self.standing.next_send)
        else:
            self.standing, _ = POLICY.void(self.standing, None)


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["send", "send", "attempt", "attempt", "attempt", "void", "wait"]),
        st.booleans(),
        st.sampled_from([0.0, 0.5, 29.0, 31.0, 119.0, 121.0, 1700.0, 3599.0, 3601.0]),
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=200)
@given(_STEPS)
def test_no_sequence_of_calls_gets_past_the_rules(steps: list[tuple[str, bool, float]]) -> None:
    """No sequence of calls gets more than N attempts a code, or more failures an hour than the budget.

    A used code is never valid or mailed again, and a resend never moves an expiry.
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
