"""The schedule of retries for a mail that the relay deferred (4xx), or whose connection was lost."""

from collections.abc import Callable

from otpmail import backoff

SCHEDULE = (2.0, 5.0, 15.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
"""Seconds before each retry; the last one repeats.

Short at first, since a code that comes late is worth nothing. Then as RFC 5321, 4.5.4.1 advises for the rest of a day.
Relays with greylisting mostly accept a mail after one minute, some after five.
"""
_JITTER = 0.2


def delay(attempt: int, random: Callable[[], float]) -> float:
    """Seconds to wait after the `attempt`-th attempt (1 is the first), with jitter; `random` gives [0, 1)."""
    return backoff.jittered(SCHEDULE[min(attempt, len(SCHEDULE)) - 1], _JITTER, random)
