"""Which mails of a store are wanted, while a page of them is made."""

from collections.abc import Callable
from math import inf

Wanted = Callable[[], tuple[float, float]]
"""Returns between which times, both included, mails are wanted that were accepted then: fewer and fewer."""


def ever() -> tuple[float, float]:
    """Want all mails, whenever they were accepted."""
    return -inf, inf
