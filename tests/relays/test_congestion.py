"""The limit of mails in flight that follows the relay's replies, over a simulated connection."""

from collections import deque
from math import inf

import pytest

from otpmail.relays.congestion import FIRST, CongestionWindow

MOST = 16


class Line:
    """A relay that is `distance` seconds away there and back, and works for `each` second on a mail; always flooded."""

    def __init__(self, each: float, distance: float = 0.0) -> None:
        self.each, self.distance = each, distance
        self.window = CongestionWindow()
        self.window.took(distance + 0.001)
        self.now = 0.0
        self.replies: deque[float] = deque()  # when each mail in flight is answered
        self.begun = 0
        self._free_at = 0.0

    def run(self, seconds: float) -> None:
        """Keep as much in flight as the limit allows, and let each reply be reviewed when that is due."""
        end = self.now + seconds
        while self.now < end:
            while len(self.replies) < min(self.window.limit, MOST):
                self._free_at = max(self._free_at, self.now + self.distance / 2) + self.each
                self.replies.append(self._free_at + self.distance / 2)
                self.begun += 1
            self.now = self.replies.popleft()
            if self.now >= max(self.window.review_at, self.window.patience):
                self.window.review(self.begun, len(self.replies), self.now, busy=(0.0, 0), most=MOST)


@pytest.mark.parametrize(("each", "limit"), [(3.0, 1), (0.5, 1), (0.24, 2), (0.1, 5)])
def test_a_slow_relay_gets_half_a_second_of_mails(each: float, limit: int) -> None:
    """A relay that is slow over each mail has as many in flight as it answers within half a second, or one."""
    line = Line(each)
    line.run(60)
    assert abs(line.window.limit - limit) <= (limit > 1)


@pytest.mark.parametrize("distance", [0.0, 0.02, 0.1, 0.2])
def test_distance_costs_nothing(distance: float) -> None:
    """A relay that is only far away has EMAIL_WINDOW mails in flight after a few round trips, and keeps them."""
    line = Line(0.0005, distance)
    line.run(4 * distance + 0.05)
    for _ in range(100):
        assert line.window.limit == MOST
        line.run(0.1)


def test_a_relay_that_is_quick_again_has_its_window_back() -> None:
    """The limit falls within seconds once the relay is slow, and grows once it is quick."""
    line = Line(0.001)
    line.run(5)
    assert line.window.limit == MOST
    line.each = 0.5
    line.run(9)
    assert line.window.limit == 1
    line.each = 0.001
    line.run(2)
    assert line.window.limit == MOST


def test_it_begins_small() -> None:
    """The first connection has few mails in flight until an answer, and another one what the first has found."""
    window = CongestionWindow()
    assert (window.limit, window.review_at) == (FIRST, -inf)
    window.start_with(7)
    assert repr(window) == "<CongestionWindow 7 in flight, inf s away>"
