"""Delays between attempts: exponential growth up to a cap, and jitter. Pure: randomness is passed in.

Jitter keeps what failed together, or was opened together, from coming back in the same moment. `random` gives [0, 1).
"""

import math
from collections.abc import Callable


def exponential(failures: int, *, first: float, cap: float) -> float:
    """Seconds to wait after so many failures in a row: `first` after one, twice as long after each further one.

    Never more than `cap`.
    """
    try:
        return min(cap, math.ldexp(first, failures - 1))
    except OverflowError:
        return cap


def jittered(seconds: float, share: float, random: Callable[[], float]) -> float:
    """Lengthen or shorten a wait by up to this share of it; on average it stays the same."""
    return seconds * (1 - share + 2 * share * random())


def shortened(seconds: float, share: float, random: Callable[[], float]) -> float:
    """Shorten a time that must not be exceeded by up to this share of it."""
    return seconds * (1 - share * random())
