"""The table of the soak, from the states that the service has reported."""

from __future__ import annotations

import pytest

from benchmarks.scenarios.test_soak import _row


def test_a_part_in_which_nothing_was_reported_has_the_state_of_before() -> None:
    """A service that stands still for a while, as on a busy machine, does not end the run with an error."""
    states = [{"at": at, "resident": (1 + at) << 20, "tasks": 2 * at, "files": 7} for at in (0, 1, 2, 8, 10)]
    assert _row(states, 0.1, 0.3) == {"until s": 3, "MiB": pytest.approx(2.5), "tasks": 3, "files": 7}
    assert _row(states, 0.3, 0.7) == {"until s": 7, "MiB": pytest.approx(3), "tasks": 4, "files": 7}
