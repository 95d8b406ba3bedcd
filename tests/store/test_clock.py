"""The store's clock: wall time at the start, then the time that passes, and never before what a store holds."""

import time

import pytest

from otpmail.store.clock import Boot, Mark, StoreClock, elapsed


class Times:
    """A wall clock and a monotonic clock that a test sets."""

    def __init__(self) -> None:
        self.wall = 1_700_000_000.0
        self.elapsed = 50.0
        self.boot = Boot("a", 500.0)

    def clock(self) -> StoreClock:
        """Return a store's clock that reads these two."""
        return StoreClock(wall=lambda: self.wall, elapsed=lambda: self.elapsed, boot=lambda: self.boot)


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


def test_it_keeps_up_with_a_wall_clock_that_is_ahead() -> None:
    """A wall clock that was set forward is approached by a hundredth of the time that passes, and not passed."""
    times = Times()
    clock = times.clock()
    times.wall += 1_020.0
    times.elapsed += 1_000
    clock.keep_up()
    assert clock() == pytest.approx(1_700_001_010.0)
    assert clock.ahead == pytest.approx(-10.0)
    clock.keep_up()
    assert clock() == pytest.approx(1_700_001_010.0)
    times.wall += 5_000.0
    times.elapsed += 5_000
    clock.keep_up()
    assert clock() == pytest.approx(times.wall)


def test_it_waits_for_a_wall_clock_that_is_behind() -> None:
    """A wall clock that was set back changes nothing, however long that is ago."""
    times = Times()
    clock = times.clock()
    times.wall -= 3_600
    times.elapsed += 100_000
    clock.keep_up()
    assert clock() == 1_700_100_000.0


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


def test_it_continues_from_a_mark_of_the_same_boot() -> None:
    """A wall clock that was set back between two processes takes nothing away from the time between them."""
    times = Times()
    mark = times.clock().mark()
    assert mark == Mark(1_700_000_000.0, Boot("a", 500.0))
    times.wall -= 3600
    times.boot = Boot("a", 520.0)
    clock = times.clock()
    clock.continue_from(mark)
    assert clock() == 1_700_000_020.0


@pytest.mark.parametrize("boot", [Boot("b", 900.0), Boot("", 0.0), Boot("a", 400.0)])
def test_after_another_boot_it_is_not_below_a_mark(boot: Boot) -> None:
    """Where the machine was started anew, or its boots have no names, nothing is known but the mark's own time."""
    times = Times()
    mark = times.clock().mark()
    times.wall -= 3600
    times.boot = boot
    clock = times.clock()
    clock.continue_from(mark)
    assert clock() == 1_700_000_000.0


def test_a_wall_clock_that_was_set_forward_counts() -> None:
    """After a start with a later wall clock its time counts: the machine may have had a wrong one before."""
    times = Times()
    mark = times.clock().mark()
    times.wall += 3600
    times.boot = Boot("a", 501.0)
    clock = times.clock()
    clock.continue_from(mark)
    assert clock() == 1_700_003_600.0


def test_a_boot_that_the_system_names() -> None:
    """On Linux a boot has a name, and its age is not below the monotonic clock."""
    boot, monotonic = Boot.now(), time.monotonic()
    assert boot.name
    assert boot.seconds >= monotonic - 1


def test_the_time_of_a_suspension_counts() -> None:
    """By default the time that has passed is that since the start of the machine, suspensions included."""
    assert getattr(elapsed, "args", ()) == (time.CLOCK_BOOTTIME,)
    assert elapsed() >= time.monotonic() - 1


def test_by_default_it_reads_the_clocks_of_the_system() -> None:
    """The clock by default never runs backwards, and reads a time in this century."""
    clock = StoreClock()
    first = clock()
    assert 1.6e9 < first <= clock()
