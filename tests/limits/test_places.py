"""How QUEUE_SIZE is divided: the last tenth for urgent mails, and no more than half of a lane beside others."""

from contextlib import ExitStack

import pytest

from otpmail.limits.places import Places


class Clock:
    """Time that a test moves, in seconds."""

    time = 1000.0

    def now(self) -> float:
        """Return the time."""
        return self.time


def _places(size: int) -> Places:
    return Places(size, now=Clock().now)


def _fill(places: Places, source: str, *, fresh: bool = False, guaranteed: bool = False, stream: bool = False) -> int:
    """Take all places that are left; returns how many those were."""
    most = places.size if fresh else places.for_streams if stream else places.for_others
    count = 0
    while places.has_place(source, fresh=fresh, guaranteed=guaranteed, most=most):
        places.take(source, fresh=fresh)
        count += 1
    return count


@pytest.mark.parametrize(("size", "others"), [(10_000, 9000), (100, 90), (10, 9), (9, 9), (1, 1)])
def test_the_last_tenth_is_for_urgent_mails(size: int, others: int) -> None:
    """Other mails take nine tenths, also of a caller that is alone; urgent ones of many callers take the rest."""
    places = _places(size)
    assert _fill(places, "shop") == others
    assert sum(_fill(places, f"caller-{number}", fresh=True) for number in range(size)) == size - others
    assert places.taken == size


def test_urgent_mails_leave_places_for_others() -> None:
    """Urgent mails beyond the last tenth take what others leave, and QUEUE_SIZE is never exceeded."""
    places = _places(100)
    for number in range(50):
        places.take(f"caller-{number}", fresh=True)
    assert _fill(places, "shop") == 50
    assert places.taken == 100


def test_streams_leave_places_for_single_calls() -> None:
    """Streams, which can wait, take nine tenths of what single calls may take."""
    places = _places(1000)
    assert sum(_fill(places, f"stream-{number}", stream=True) for number in range(3)) == 810
    assert _fill(places, "single") == 90


@pytest.mark.parametrize("fresh", [False, True])
def test_no_more_than_half_beside_another_caller(fresh: bool) -> None:  # noqa: FBT001
    """A caller takes at most half of its lane while another one has a mail there, and has it again once alone."""
    places = _places(1000)
    places.take("bank", fresh=fresh)
    assert _fill(places, "shop", fresh=fresh) == (500 if fresh else 450)
    assert _fill(places, "bank", fresh=fresh) == 449
    for _ in range(450):
        places.free("bank", fresh=fresh)
    assert _fill(places, "shop", fresh=fresh) > 400


def test_a_mail_in_another_lane_is_no_contention() -> None:
    """Somebody's code does not halve what another caller's bulk mails may take."""
    places = _places(1000)
    places.take("bank", fresh=True)
    assert _fill(places, "shop") == 900


def test_a_refused_caller_finds_a_place_at_its_next_try() -> None:
    """A caller that fills the lane alone gets no further place after another one was refused, until that retries."""
    clock = Clock()
    places = Places(100, now=clock.now)
    assert _fill(places, "shop") == 90
    places.refused("bank", fresh=False)
    for _ in range(10):
        places.free("shop", fresh=False)
    assert _fill(places, "shop") == 0
    assert _fill(places, "bank") == 10
    for _ in range(10):
        places.free("bank", fresh=False)
    clock.time += 60
    assert _fill(places, "shop") == 10


def test_a_caller_with_more_than_its_half_does_not_count_as_refused() -> None:
    """A caller that is refused for its own number keeps nobody else from a place."""
    places = _places(100)
    assert _fill(places, "shop") == 90
    places.refused("shop", fresh=False)
    for _ in range(60):
        places.free("shop", fresh=False)
    assert _fill(places, "bank") == 45


def test_a_stream_that_waits_counts() -> None:
    """A stream that waits for a place keeps others from taking more than their half."""
    places = _places(100)
    places.waiting.add("stream-2", lambda: None, lambda: True)
    assert _fill(places, "stream-1", stream=True) == 45


@pytest.mark.parametrize("guaranteed", [False, True])
def test_a_twentieth_is_for_urgent_mails_that_end_soon(guaranteed: bool) -> None:  # noqa: FBT001
    """Neither guaranteed urgent mails nor one caller's take the last twentieth, so another's code finds a place."""
    places = _places(1000)
    assert _fill(places, "shop") == 900
    assert _fill(places, "bulk", fresh=True, guaranteed=guaranteed) == 50
    assert places.has_place("bank", fresh=True, guaranteed=False, most=1000)
    assert not places.has_place("bank", fresh=True, guaranteed=True, most=1000)


def test_a_deferred_mail_leaves_the_tenth() -> None:
    """A deferred urgent mail counts with the others; `defer` says when these have no place left."""
    places = _places(100)
    for number in range(95):
        places.take(f"caller-{number}", fresh=True)
    deferred = [places.defer(f"caller-{number}") for number in range(95)]
    assert deferred == [True] * 90 + [False] * 5
    assert places.others == places.taken == 95
    assert not places.has_place("shop", fresh=False, guaranteed=True, most=places.for_others)
    for number in range(95):
        places.free(f"caller-{number}", fresh=False)
    assert repr(places).startswith("<Places 0 of 100 taken, 0 by others than urgent mails, 0 and 0 sources")


def test_a_single_place_is_for_anybody() -> None:
    """With room for one mail the half of a lane is one mail, also if others want it."""
    places = _places(1)
    places.refused("bank", fresh=False)
    assert places.has_place("shop", fresh=False, guaranteed=True, most=1)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8, 9, 10, 19, 20, 100, 1000])
@pytest.mark.parametrize("fresh", [False, True])
def test_with_plenty_of_places_anybody_has_one(size: int, fresh: bool) -> None:  # noqa: FBT001
    """While fewer than `plenty` places are taken no rule refuses a caller, also if others have or want one."""
    places = _places(size)
    places.refused("bank", fresh=False)
    places.waiting.add("stream", lambda: None, lambda: True)
    while places.taken < places.plenty:
        for most in (places.size,) if fresh else (places.for_others, places.for_streams):
            assert places.has_place("shop", fresh=fresh, guaranteed=True, most=most)
        places.take("shop", fresh=fresh)


def test_mails_that_are_still_being_accepted_count_for_their_source() -> None:
    """A mail that takes long to accept counts for its own source's share, and for nobody else's, until it is."""
    places = _places(100)
    with ExitStack() as stack:
        for _ in range(44):
            stack.enter_context(places.accepting("shop", fresh=False))
        with places.accepting("shop", fresh=False):
            assert _fill(places, "bank") == 45
            assert not places.has_place("shop", fresh=False, guaranteed=False, most=places.for_others)
        for _ in range(45):
            places.free("bank", fresh=False)
        assert _fill(places, "shop") == 90
    places.take("bank", fresh=False)
    assert not places.has_place("shop", fresh=False, guaranteed=False, most=places.size)
