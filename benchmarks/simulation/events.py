"""A discrete-event simulation: what happens later, in the order of its time. No clock runs."""

import heapq
from collections.abc import Callable
from itertools import count
from random import Random


class Simulation:
    """Calls back what is due, in the order of time; `now` is in seconds. The same seed gives the same run."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.random = Random(seed)  # noqa: S311 -- a load, not a secret
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()  # callbacks of one moment run in the order in which they came

    def __repr__(self) -> str:
        return f"<Simulation at {self.now:.6f} s, {len(self._due)} due>"

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call back after so many seconds."""
        heapq.heappush(self._due, (self.now + seconds, next(self._numbers), callback))

    def run(self, until: float) -> None:
        """Run all that is due before that time."""
        while self._due and self._due[0][0] < until:
            self.now, _, callback = heapq.heappop(self._due)
            callback()
        self.now = until

    def arrive(self, rate: float, callback: Callable[[], None]) -> None:
        """Call back by the clock, so many times a second on average, each independent of the others (Poisson)."""

        def arrived() -> None:
            self.after(self.random.expovariate(rate), arrived)
            callback()

        self.after(self.random.expovariate(rate), arrived)
