"""The breaker: how long a relay is not dialled after a failure, which ends are failures, and which proofs close it."""

from dataclasses import dataclass

import pytest

from otpmail.errors import ConnectFailed, ProbeFailed, SignInRefused, Unreachable
from otpmail.relays.breaker import Breaker, Failure


@pytest.fixture
def breaker() -> Breaker:
    """Return a breaker without jitter."""
    return Breaker(lambda: 0.5, first=1.0, most=6.0, doubt=1800.0)


@dataclass
class Ended:
    """How a connection ended: by default idle, by the relay, after five seconds without a mail."""

    begun: float = 0.0
    age: float = 5.0
    answered: int = 0
    is_unanswered: bool = False
    lost_cause: str = "the relay closed the connection"


def _fail(breaker: Breaker, now: float, failure: Failure = Failure.DIAL) -> float:
    """Fail a dial that began a moment before; return the wait."""
    assert breaker.failed(failure, begun=now - 0.01, now=now)
    return breaker.next_try - now


def _hang_up(breaker: Breaker, now: float) -> bool:
    """End a connection right after it was opened."""
    return breaker.ended(Ended(begun=now - 0.02, age=0.01), now)


def test_a_breaker_starts_closed(breaker: Breaker) -> None:
    """Before the first failure a dial may start at once."""
    assert breaker.closed
    assert breaker.next_try == 0.0


def test_each_failure_doubles_the_wait_up_to_the_most(breaker: Breaker) -> None:
    """The wait begins with `first`, and never exceeds `most`."""
    waits = [_fail(breaker, now) for now in (100.0, 102.0, 105.0, 110.0, 117.0)]
    assert waits == [1.0, 2.0, 4.0, 6.0, 6.0]


def test_failures_of_dials_under_way_together_are_one(breaker: Breaker) -> None:
    """Workers that lose the same relay at once do not double the wait, however late each dial fails."""
    for now in (101.0, 101.0, 101.2, 130.0):
        breaker.failed(Failure.DIAL, begun=100.0, now=now)
    assert breaker.next_try == 102.0
    assert _fail(breaker, 140.0) == 2.0


@pytest.mark.parametrize(("random", "wait"), [(0.0, 7.5), (1.0, 12.5)])
def test_the_wait_has_jitter(random: float, wait: float) -> None:
    """The breaker's wait has a jitter of a quarter either way."""
    breaker = Breaker(lambda: random, first=10.0, most=60.0, doubt=1.0)
    assert _fail(breaker, 0.0) == wait


def test_a_mail_on_a_new_connection_closes_it(breaker: Breaker) -> None:
    """A relay that accepts a mail on a connection dialled after the last failure is well."""
    _fail(breaker, 100.0)
    assert breaker.took_mail(begun=101.0)
    assert breaker.closed
    assert breaker.next_try == 0.0
    assert not breaker.took_mail(begun=101.0)  # nobody waits for that any more


def test_mails_on_old_connections_do_not_close_it(breaker: Breaker) -> None:
    """A relay that limits our connections accepts mails on those it has, and refuses each new one: the wait grows."""
    waits = []
    for now in (100.0, 102.0, 105.0):
        waits.append(_fail(breaker, now))
        assert not breaker.took_mail(begun=50.0)
    assert waits == [1.0, 2.0, 4.0]


def test_a_connection_dialled_before_the_failure_and_opened_after_it_is_an_old_one(breaker: Breaker) -> None:
    """Of five dialled together the relay takes three, which does not prove that it takes more."""
    breaker.failed(Failure.DIAL, begun=100.0, now=100.1)
    assert not breaker.took_mail(begun=100.0)


def test_a_freed_slot_allows_one_try(breaker: Breaker) -> None:
    """Once one of our connections is closed a dial may start at once; if that fails too, the waits begin anew."""
    for now in (100.0, 102.0, 105.0):
        _fail(breaker, now)
    breaker.slot_freed(106.0)
    assert not breaker.closed
    assert breaker.next_try == 106.0
    assert _fail(breaker, 106.0) == 1.0


def test_a_freed_slot_is_nothing_to_a_refused_sign_in(breaker: Breaker) -> None:
    """A freed slot ends no wait after a refused sign-in, and leaves a closed breaker closed."""
    breaker.slot_freed(50.0)
    assert breaker.next_try == 0.0
    _fail(breaker, 100.0, Failure.SIGN_IN)
    breaker.slot_freed(101.0)
    assert breaker.next_try == 160.0


def test_a_sign_in_alone_does_not_close_it(breaker: Breaker) -> None:
    """A relay that accepts the sign-in and then hangs up is not well."""
    _fail(breaker, 100.0)
    breaker.opened(begun=101.0, probed=True)
    assert not breaker.closed


def test_only_a_sign_in_closes_what_a_refused_sign_in_opened(breaker: Breaker) -> None:
    """A mail on a connection that was signed in before the password changed does not prove the password."""
    _fail(breaker, 100.0, Failure.SIGN_IN)
    breaker.took_mail(begun=50.0)
    assert not breaker.closed
    breaker.opened(begun=99.0, probed=True)  # signed in together with the one that was refused
    assert not breaker.closed
    breaker.opened(begun=160.0, probed=True)
    assert breaker.closed


def test_a_refused_sign_in_counts_though_a_lesser_wait_is_running(breaker: Breaker) -> None:
    """A locked account is worse than a failed dial: the longer wait holds at once, and stays."""
    breaker.failed(Failure.DIAL, begun=0.0, now=0.2)
    for failure in (Failure.SIGN_IN, Failure.SIGN_IN, Failure.DIAL):
        breaker.failed(failure, begun=0.1, now=0.5)
    assert breaker.next_try == 60.5


def test_refused_sign_ins_wait_longer_up_to_a_quarter_of_an_hour(breaker: Breaker) -> None:
    """Providers lock an account after many refused sign-ins."""
    waits = [_fail(breaker, now, Failure.SIGN_IN) for now in (1000.0, 2000.0, 3000.0, 4000.0, 5000.0)]
    assert waits == [60.0, 120.0, 240.0, 480.0, 900.0]


# Connections that end.


@pytest.mark.parametrize(
    ("life", "failure"),
    [
        (Ended(age=0.5), True),
        (Ended(age=5.0, is_unanswered=True), True),
        (Ended(age=2.0), False),
        (Ended(age=0.5, answered=1), False),
        (Ended(age=0.5, lost_cause=""), False),
        (Ended(age=5.0, is_unanswered=True, lost_cause=""), False),
    ],
    ids=["right after opening", "over a mail", "idle", "after a mail", "by us, young", "by us, over a mail"],
)
def test_which_end_is_a_failure(breaker: Breaker, life: Ended, failure: bool) -> None:  # noqa: FBT001
    """The second end in a row is a failure if it came right after opening, or over mails without any reply.

    A relay that closes idle connections, even after two seconds, is well.
    """
    ends = []
    for now in (100.0, 110.0, 120.0):
        life.begun = now - 6
        ends.append(breaker.ended(life, now))
    assert ends == [False, failure, failure]
    assert breaker.closed is not failure


def test_hang_ups_that_come_together_are_one(breaker: Breaker) -> None:
    """A relay that restarts ends all connections at once, which counts as one first hang-up."""
    assert not any(breaker.ended(Ended(begun=99.0 + n / 10, age=0.5), 100.0 + n / 10) for n in range(5))
    assert breaker.closed
    assert breaker.hangs_up
    assert _hang_up(breaker, 101.0)


def test_a_mail_that_is_taken_ends_a_row_of_hang_ups(breaker: Breaker) -> None:
    """A mail ends a row of hang-ups only if its connection was dialled after them."""
    assert not _hang_up(breaker, 100.0)
    breaker.took_mail(begun=50.0)
    assert breaker.hangs_up
    breaker.took_mail(begun=101.0)
    assert not breaker.hangs_up
    assert not _hang_up(breaker, 102.0)


def test_an_idle_connection_that_ends_is_no_failure(breaker: Breaker) -> None:
    """The breaker lets the next dial start at once after a relay has closed an idle connection."""
    breaker.ended(Ended(begun=10.0), 100.0)
    assert breaker.closed
    assert breaker.next_try == 0.0


def test_an_idle_connection_that_ends_frees_a_slot(breaker: Breaker) -> None:
    """A relay that limits our connections may take one more, so the wait is no longer than a rest."""
    for now in (100.0, 102.0, 105.0):
        _fail(breaker, now)
    breaker.ended(Ended(begun=10.0), 106.0)
    assert breaker.next_try == 107.0


# Probes.


def test_probes_that_fail_together_are_one(breaker: Breaker) -> None:
    """A network that fails under several probes proves nothing of how the relay reads chunks."""
    for now in (100.5, 100.6, 100.7):
        breaker.failed(Failure.PROBE, begun=100.0, now=now)
    assert not breaker.avoids_chunks(100.7)
    breaker.opened(begun=101.0, probed=True)
    _fail(breaker, 110.0, Failure.PROBE)
    assert not breaker.avoids_chunks(110.0)


def test_after_two_failed_probes_in_a_row_chunks_are_avoided_for_a_time(breaker: Breaker) -> None:
    """The network may have failed twice, so the relay is probed again later; one more failure renews the time."""
    _fail(breaker, 100.0, Failure.PROBE)
    _fail(breaker, 102.0, Failure.PROBE)
    breaker.opened(begun=105.0, probed=False)  # by DATA, so it says nothing of chunks
    assert breaker.avoids_chunks(102.0 + 1799)
    assert not breaker.avoids_chunks(102.0 + 1800)
    _fail(breaker, 2000.0, Failure.PROBE)
    assert breaker.avoids_chunks(2000.0)


def test_a_failed_probe_is_a_failed_dial_too(breaker: Breaker) -> None:
    """After a failed probe the next dial waits as after any failed dial."""
    assert _fail(breaker, 100.0, Failure.PROBE) == 1.0
    assert _fail(breaker, 102.0) == 2.0


def test_a_probe_that_the_relay_counts_as_an_error_is_no_failure(breaker: Breaker) -> None:
    """The next dial may begin at once, and sends no probe for some time."""
    assert not breaker.failed(Failure.PROBE_COUNTED, begun=100.0, now=100.5)
    assert (breaker.next_try, breaker.closed) == (0.0, True)
    assert breaker.avoids_chunks(100.5 + 1799)
    assert not breaker.avoids_chunks(100.5 + 1800)


@pytest.mark.parametrize(
    ("code", "reply", "failure"),
    [
        (421, "mail.example.org Error: too many errors", Failure.PROBE_COUNTED),  # Postfix
        (421, "me.com Error: too many errors", Failure.PROBE_COUNTED),  # iCloud
        (421, "mail.example.org Too many bad commands; closing connection", Failure.PROBE_COUNTED),  # Sendmail
        (421, "mail.example.org too many unrecognized commands", Failure.PROBE_COUNTED),  # Exim
        (421, "Too many syntax or protocol errors", Failure.PROBE_COUNTED),  # Exim
        (421, "Service shutting down", Failure.PROBE),
        (421, "too many connections", Failure.PROBE),
        (0, "", Failure.PROBE),
    ],
)
def test_the_words_of_a_relay_that_ends_the_probe(code: int, reply: str, failure: Failure) -> None:
    """Only a relay that says so counts the probe as an error; another end may be the network's."""
    assert Failure.of(ProbeFailed("ended", code=code, reply=reply)) is failure


@pytest.mark.parametrize(
    ("error", "effect"),
    [
        (SignInRefused("a: the relay refused to sign me in"), "the relay refuses the sign-in of this service"),
        (Unreachable("a: cannot connect"), "the relay can't be reached"),
        (ConnectFailed("a: 554 b.example not for you", code=554), "the relay gives no usable connection"),
        (ProbeFailed("a: ended"), "the relay gives no usable connection"),
    ],
)
def test_what_callers_are_told(breaker: Breaker, error: ConnectFailed, effect: str) -> None:
    """The words for callers depend on the kind of the last failure alone, and say nothing of its text."""
    _fail(breaker, 90.0, Failure.SIGN_IN)
    breaker.opened(begun=95.0, probed=True)
    _fail(breaker, 100.0, Failure.of(error))
    assert breaker.effect == effect


def test_other_settings_are_tried_at_once(breaker: Breaker) -> None:
    """A new password ends the wait of a refused one, and a dial with the old one that fails later does not count."""
    assert _fail(breaker, 100.0, Failure.SIGN_IN) == 60.0
    breaker.settings_changed(110.0)
    assert breaker.next_try == 110.0
    assert not breaker.failed(Failure.SIGN_IN, begun=109.0, now=111.0)
    assert breaker.next_try == 110.0
    assert _fail(breaker, 112.0, Failure.SIGN_IN) == 60.0


def test_other_settings_do_not_matter_to_a_relay_that_is_well(breaker: Breaker) -> None:
    """A closed breaker stays closed."""
    breaker.settings_changed(100.0)
    assert breaker.closed
    assert breaker.next_try == 0.0
