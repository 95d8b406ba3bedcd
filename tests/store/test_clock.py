"""The store's clock: wall time at the start, then the time that passes, and never before what a store holds."""

from otpmail.store.clock import StoreClock


class Times:
    """A wall clock and a monotonic clock that a test sets."""

    def __init__(self) -> None:
        self.wall = 1_700_000_000.0
        self.elapsed = 50.0

    def clock(self) -> StoreClock:
        """Return a store's clock that reads these two."""
        return StoreClock(wall=lambda: self.wall, elapsed=lambda: self.elapsed)


def test_it_begins_with_the_wall_clock() -> None:
    """The clock's times are seconds since the epoch, and go on as time passes."""
    times = Times()
    clock = times.clock()
    assert clock() == 1_700_000_000.0
    times.elapsed += 2.5
    assert clock() == 1_700_000_002.5
    assert repr(clock) == "<StoreClock 1700000002.500>"


def test_a_wall_clock_that_is_set_moves_nothing() -> None:
    """Setting the wall clock back or forward while the service runs neither revives a code nor ends it early."""
    times = Times()
    clock = times.clock()
    for wall in (0.0, 4e9):
        times.wall = wall
        times.elapsed += 1
    assert clock() == 1_700_000_002.0


def test_it_is_never_below_what_a_store_holds() -> None:
    """After a start with a wall clock that was set back, time goes on from the greatest time in the store."""
    times = Times()
    clock = times.clock()
    clock.never_below(1_700_000_100.0)
    assert clock() == 1_700_000_100.0
    times.elapsed += 1
    assert clock() == 1_700_000_101.0


def test_an_earlier_time_in_a_store_changes_nothing() -> None:
    """The clock is only ever moved forward."""
    clock = Times().clock()
    clock.never_below(1_600_000_000.0)
    assert clock() == 1_700_000_000.0


def test_it_is_set_to_the_time_of_a_server() -> None:
    """A clock that follows a server may be moved back too, before the store is used."""
    times = Times()
    clock = times.clock()
    clock.set_to(1_600_000_000.0)
    times.elapsed += 1
    assert clock() == 1_600_000_001.0


def test_by_default_it_reads_the_clocks_of_the_system() -> None:
    """The clock by default never runs backwards, and reads a time in this century."""
    clock = StoreClock()
    first = clock()
    assert 1.6e9 < first <= clock()
