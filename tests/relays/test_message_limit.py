"""The message limit: after which ends of connections it is learned, and what refutes it. No loop, no clock."""

import pytest

from otpmail.relays.message_limit import UNLIMITED, Bounds, MessageLimit


@pytest.fixture
def limit() -> MessageLimit:
    """Return a limit that knows nothing, reviewed a minute after it was learned."""
    return MessageLimit(review=60.0, review_most=100.0)


def _end(limit: MessageLimit, mails: int, *, dialled: float, now: float, in_flight: int = 0) -> int | None:
    limit.ended(mails, in_flight=in_flight, dialled=dialled, now=now)
    return limit.known


def _learn(limit: MessageLimit, mails: int) -> None:
    """Have two connections in a row ended after so many mails, the second at 20 s."""
    _end(limit, mails, dialled=0.0, now=10.0)
    assert _end(limit, mails, dialled=11.0, now=20.0) == mails


@pytest.mark.parametrize("mails", [1, 2, 10, 100, 5000])
def test_two_ends_at_the_same_count_are_a_limit(limit: MessageLimit, mails: int) -> None:
    """The relay ended one connection after so many mails, and then another one that was dialled later."""
    assert _end(limit, mails, dialled=0.0, now=10.0) is None
    assert _end(limit, mails, dialled=11.0, now=20.0) == mails
    assert limit.bounds(reviewing=False) == Bounds(mails, range(0))


def test_connections_that_end_together_are_no_limit(limit: MessageLimit) -> None:
    """A relay that restarts ends all connections, which workers under even load have used alike."""
    for _ in range(5):
        assert _end(limit, 50, dialled=0.0, now=10.0) is None
    assert _end(limit, 50, dialled=9.9, now=20.0) is None, "dialled before the others ended"
    assert _end(limit, 50, dialled=11.0, now=20.0) == 50


def test_a_connection_that_carried_no_mail_teaches_nothing(limit: MessageLimit) -> None:
    """A relay that hangs up before the first answer is in trouble; that is for the breaker."""
    for n in range(3):
        assert _end(limit, 0, dialled=10.0 * n + 1, now=10.0 * n + 10) is None
    assert limit.bounds(reviewing=False) == Bounds()


@pytest.mark.parametrize(("first", "second", "known"), [(100, 103, 103), (100, 97, 97), (100, 120, None), (3, 4, None)])
def test_counts_are_near_within_a_twentieth(limit: MessageLimit, first: int, second: int, known: int | None) -> None:
    """Relays that count only the mails they took end connections after varying numbers of mails."""
    _end(limit, first, dialled=0.0, now=10.0)
    assert _end(limit, second, dialled=11.0, now=20.0) == known


def test_around_a_suspected_count_mails_go_one_at_a_time(limit: MessageLimit) -> None:
    """After 421 the count is exact; after a close, any of the mails in flight may have been answered."""
    _end(limit, 10, dialled=0.0, now=10.0)
    assert limit.bounds(reviewing=False) == Bounds(UNLIMITED, range(10, 12))
    limit.carried(11)
    _end(limit, 12, dialled=0.0, now=20.0, in_flight=4)
    assert limit.bounds(reviewing=False) == Bounds(UNLIMITED, range(12, 18))
    assert _end(limit, 15, dialled=21.0, now=30.0) == 15


def test_a_connection_that_carries_more_refutes_a_suspicion(limit: MessageLimit) -> None:
    """A connection that carries more refutes a suspicion, and its own end later is a suspicion at its own count."""
    _end(limit, 10, dialled=0.0, now=10.0)
    limit.carried(10)
    assert limit.bounds(reviewing=False).careful == range(10, 12)
    limit.carried(11)
    assert limit.bounds(reviewing=False) == Bounds()
    _end(limit, 10, dialled=11.0, now=20.0)
    assert _end(limit, 30, dialled=21.0, now=30.0) is None
    assert limit.bounds(reviewing=False).careful == range(29, 33)


def test_ends_at_random_counts_are_no_limit(limit: MessageLimit) -> None:
    """Ends at random counts are no limit, since no two in a row are near each other."""
    for n, mails in enumerate([7, 3, 15, 22, 4, 40, 9, 1]):
        assert _end(limit, mails, dialled=10.0 * n + 1, now=10.0 * n + 10) is None


def test_the_limit_may_become_less(limit: MessageLimit) -> None:
    """Two ends at a smaller count replace the limit; one end near it moves it down at once, and never up."""
    _learn(limit, 100)
    assert _end(limit, 98, dialled=21.0, now=30.0) == 98
    assert _end(limit, 99, dialled=31.0, now=40.0) == 98
    assert _end(limit, 40, dialled=41.0, now=50.0) == 98
    assert limit.bounds(reviewing=False) == Bounds(98, range(38, 44))
    assert _end(limit, 40, dialled=51.0, now=60.0) == 40


def test_a_close_shortly_before_the_limit_leaves_it(limit: MessageLimit) -> None:
    """The answers that were lost with the connection may be those that are missing."""
    _learn(limit, 100)
    assert _end(limit, 90, dialled=21.0, now=30.0, in_flight=10) == 100
    assert limit.bounds(reviewing=False) == Bounds(100, range(0))


def test_one_connection_a_review_goes_past_the_limit(limit: MessageLimit) -> None:
    """A minute after the limit was learned, one connection goes past it, and the others keep to it."""
    assert not limit.is_to_be_reviewed(1000.0)
    _learn(limit, 10)
    assert [limit.is_to_be_reviewed(now) for now in (79.0, 80.0, 80.0, 139.0, 140.0)] == [
        *(False, True, False, False, True)
    ]
    assert limit.bounds(reviewing=True) == Bounds(UNLIMITED, range(10, 12))
    assert limit.bounds(reviewing=False).most == 10


def test_a_limit_that_is_confirmed_is_reviewed_later_each_time(limit: MessageLimit) -> None:
    """The relay ended the connection that went on at the limit: after twice the time, at most `review_most`."""
    _learn(limit, 10)
    assert limit.is_to_be_reviewed(80.0)
    assert _end(limit, 10, dialled=80.0, now=90.0) == 10
    assert not limit.is_to_be_reviewed(189.0)
    assert limit.is_to_be_reviewed(190.0)
    assert _end(limit, 10, dialled=190.0, now=200.0) == 10
    assert limit.is_to_be_reviewed(300.0), "not after 240 s"


def test_a_limit_that_is_wrong_is_dropped(limit: MessageLimit) -> None:
    """The connection that goes on carries more: the limit is gone, and learned anew like the first one."""
    _learn(limit, 1)
    limit.carried(1)
    assert limit.known == 1
    limit.carried(2)
    assert limit.known is None
    assert limit.bounds(reviewing=True) == Bounds()
    _end(limit, 20, dialled=100.0, now=110.0)
    assert _end(limit, 20, dialled=111.0, now=120.0) == 20
    assert not limit.is_to_be_reviewed(179.0)
