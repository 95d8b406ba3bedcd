"""The unit and number in which mails and commands show a time that is left."""

from functools import lru_cache

SECOND, MINUTE, HOUR = "second", "minute", "hour"

_SOON = 5  # seconds that an answer may take: mail and command both say two minutes of a code of two minutes


@lru_cache(maxsize=1024)
def in_units(seconds: int) -> tuple[str, int]:
    """Return a unit and how many of it. A minute or two may lack five seconds, and 60 minutes are an hour.

    Other times are seconds below two minutes, the nearest minute below two hours, and then hours, rounded down.
    """
    if seconds < 2 * 60 - _SOON and not 60 - _SOON <= seconds <= 60:
        return SECOND, seconds
    minutes = (seconds + 30) // 60
    if minutes < 2 * 60 and minutes != 60:
        return MINUTE, minutes
    return HOUR, minutes // 60


@lru_cache(maxsize=1024)
def whole_minutes(seconds: int) -> int:
    """Return a time in minutes alone, at least one."""
    unit, number = in_units(seconds)
    if unit == SECOND:
        return max(1, seconds // 60)
    return number if unit == MINUTE else (seconds + 30) // 60
