"""How many mails each of several callers may have remembered."""

import pytest

from otpmail.store.levels import level


@pytest.mark.parametrize(
    ("counts", "most", "expected"),
    [({}, 10, 10), ({1: 5}, 10, 10), ({1: 50}, 10, 10), ({1: 2, 2: 50}, 10, 8), ({1: 3, 2: 4, 3: 90}, 10, 3)],
)
def test_what_each_may_keep(counts: dict[int, int], most: int, expected: int) -> None:
    """Callers with many mails share what those with few leave."""
    assert level(counts.values(), most) == expected
