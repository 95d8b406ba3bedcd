"""Whatever works off one thing after another on one thread: an event loop, or a server of Redis."""

from collections.abc import Callable

from benchmarks.simulation.events import Simulation


class Server:
    """Does all work that waits in one turn: `turn` seconds for the turn, and for each piece of work its own seconds.

    Work that comes meanwhile is for the next turn. `busy` is for how many seconds it has worked so far.
    """

    def __init__(self, simulation: Simulation, turn: float) -> None:
        self._simulation = simulation
        self._turn = turn
        self._waiting: list[tuple[float, Callable[[], None]]] = []
        self._works = False
        self.busy = 0.0

    def __repr__(self) -> str:
        return f"<Server {len(self._waiting)} waiting, {self.busy:.3f} s busy>"

    def add(self, seconds: float, done: Callable[[], None]) -> None:
        """Work for so many seconds, in a turn from now on, and call `done` when that turn ends."""
        self._waiting.append((seconds, done))
        if not self._works:
            self._works = True
            self._begin()

    def _begin(self) -> None:
        batch, self._waiting = self._waiting, []
        took = self._turn + sum(seconds for seconds, _ in batch)
        self.busy += took
        self._simulation.after(took, lambda: self._end(batch))

    def _end(self, batch: list[tuple[float, Callable[[], None]]]) -> None:
        for _, done in batch:
            done()
        if self._waiting:
            self._begin()
        else:
            self._works = False
