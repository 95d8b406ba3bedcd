"""How many mails each caller may have remembered where there are too many: the one with most loses its oldest."""

from collections.abc import Iterable


def level(counts: Iterable[int], most: int) -> int:
    """Return how many mails each caller may keep, so that all have `most` at most: those with fewer keep theirs.

    `counts` are how many each has.
    """
    rising = sorted(count for count in counts if count > 0)
    left = most
    for place, count in enumerate(rising):
        callers = len(rising) - place
        if count * callers > left:
            return left // callers
        left -= count
    return most
