"""Counts objects that are alive, for tests that nothing waits for a collection of garbage."""

import gc


def alive(*kinds: type) -> int:
    """Return how many objects of these kinds there are, also those that only a collection would free."""
    return sum(isinstance(one, kinds) for one in gc.get_objects())
