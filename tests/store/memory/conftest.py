"""The clock of the memory store under test."""

import pytest

from store.clocks import Clock


@pytest.fixture
def clock() -> Clock:
    """A clock that stands until the test moves it."""
    return Clock()
