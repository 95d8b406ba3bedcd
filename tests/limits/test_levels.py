"""Warnings about limits: each level once for a window."""

from otpmail.limits.levels import Levels
from otpmail.model import DAY, HOUR, Reached

HALF, MOST = Reached("caller", 50), Reached("caller", 80)
DAILY = Reached("mails_per_day", 80)


def test_a_level_is_said_once_for_a_window() -> None:
    """A count that goes around a level says so once in an hour, or in a day; each level and each caller apart."""
    levels = Levels()
    assert levels.new("shop", [HALF, MOST, DAILY], 1000.0) == [HALF, MOST, DAILY]
    assert levels.new("shop", [HALF, MOST, DAILY], 1000.0 + HOUR - 1) == []
    assert levels.new("bank", [HALF], 1000.0) == [HALF]
    assert levels.new("shop", [HALF, MOST, DAILY], 1000.0 + HOUR) == [HALF, MOST]
    assert levels.new("shop", [DAILY], 1000.0 + DAY) == [DAILY]


def test_a_limit_in_shadow_says_so_each_time() -> None:
    """The log names each mail that a limit in shadow would refuse."""
    levels, shadow = Levels(), Reached("caller", 100)
    assert [levels.new("shop", [shadow], 1.0) for _ in range(3)] == [[shadow]] * 3


def test_the_limit_of_all_is_said_once() -> None:
    """The limit over all callers is one, whichever caller reaches a level."""
    levels, half = Levels(), Reached("service", 50)
    assert [levels.new(name, [half], 1.0) for name in ("shop", "bank")] == [[half], []]


def test_a_clock_that_was_set_back() -> None:
    """A level from the future does not silence the next one."""
    levels = Levels()
    assert levels.new("shop", [HALF], 10.0 * HOUR) == levels.new("shop", [HALF], 1.0 * HOUR) == [HALF]


def test_the_memory_of_levels_is_bounded() -> None:
    """Those whose window is over are forgotten."""
    levels = Levels()
    for number in range(10_000):
        levels.new(f"caller {number}", [HALF], number * 10.0)
    assert repr(levels) in {f"<Levels {count} said>" for count in range(4097)}
