"""A replica of otpmail: its event loop, and the batches in which its calls begin (`otpmail.api.batching`)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from benchmarks.simulation.events import Simulation
from benchmarks.simulation.server import Server

Done = Callable[[], None]
Wait = Callable[[Done], None]

STEPS = 3
"""How often a call wakes the event loop: when it comes, when the relay has replied, and when its answer has left."""

_MOST = 32  # calls in a batch, as in otpmail.api.batching; the other numbers below too
_FEWEST = 4
_IDLE_PART = 0.9
_WINDOW = 0.01
_MEASURE_SECONDS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The cost of a call for a replica, in seconds: of the loop for each turn and call, and elsewhere for its way.

    `cores` is how many seconds of processor time the process takes for each second of its loop: gRPC has threads.
    """

    call: float
    turn: float
    cores: float
    elsewhere: float = 0.0

    @classmethod
    def of(cls, *, turn_cpu: float, busy_cpu: float, highest: float) -> Self:
        """Derive the costs from processor time: for a turn, and for a call at the highest rate, and from that rate."""
        cores = max(1.0, busy_cpu * highest)
        return cls(call=(busy_cpu - STEPS * turn_cpu / _MOST) / cores, turn=turn_cpu / cores, cores=cores)

    @property
    def turn_cpu(self) -> float:
        """The processor time of the whole process for a turn."""
        return self.turn * self.cores

    @property
    def highest(self) -> float:
        """The calls a second of a full loop, whose turns each serve a whole batch."""
        return 1 / (self.call + STEPS * self.turn / _MOST)

    def with_elsewhere(self, seconds: float) -> Self:
        """Return the same costs with so much time elsewhere: the network, callers, the relay."""
        return replace(self, elsewhere=max(0.0, seconds))


def turn_of(*, idle_cpu: float, busy_cpu: float) -> float:
    """Return the processor time for a turn, from that for a call when idle and at the highest rate.

    An idle loop has a turn for each step of a call. A busy one shares each turn among a whole batch of calls.
    """
    return max(0.0, idle_cpu - busy_cpu) / (STEPS * (1 - 1 / _MOST))


class Replica:
    """Answers calls: each is held back for its batch, and then takes its steps on the loop."""

    def __init__(self, simulation: Simulation, costs: Costs) -> None:
        self._simulation = simulation
        self._costs = costs
        self.loop = Server(simulation, costs.turn)
        self._batch: list[Done] = []
        self._interval = 0.0
        self._began_at = -1.0
        self._in_flight = 0
        self._peak = self._expected = 1
        self._busy_before = 0.0
        simulation.after(_MEASURE_SECONDS, self._measure)

    def __repr__(self) -> str:
        return f"<Replica {self._in_flight} calls in flight, {self.loop!r}>"

    def call(self, waits: Sequence[Wait], answered: Done, *, seconds: float | None = None) -> None:
        """Take a call. Between two of its steps it does one of `waits`, which gets what to call when it is over.

        `seconds` is what the call costs the loop, where that is not what the replica's costs say.
        """
        self._in_flight += 1
        self._peak = max(self._peak, self._in_flight)

        def over() -> None:
            self._in_flight -= 1
            answered()

        share = (self._costs.call if seconds is None else seconds) / (len(waits) + 1)
        step: Done = over
        for wait in reversed((lambda then: then(), *waits)):
            step = self._step(share, step, wait)
        self._hold_back(step)

    def _step(self, seconds: float, then: Done, wait: Wait) -> Done:
        return lambda: wait(lambda: self.loop.add(seconds, then))

    def _hold_back(self, begin: Done) -> None:
        self._batch.append(begin)
        due = self._began_at + self._interval
        if len(self._batch) >= self._expected or self._simulation.now >= due:
            self._begin()
        elif len(self._batch) == 1:
            began_at = self._began_at
            self._simulation.after(due - self._simulation.now, lambda: self._on_time(began_at))

    def _on_time(self, began_at: float) -> None:
        if self._batch and began_at == self._began_at:
            self._begin()

    def _begin(self) -> None:
        self._began_at = self._simulation.now
        self._expected = min(self._peak, _MOST) if self._peak >= _FEWEST else 1
        self._peak = 1
        batch, self._batch = self._batch, []
        for begin in batch:
            begin()

    def _measure(self) -> None:
        busy = min(1.0, (self.loop.busy - self._busy_before) * self._costs.cores / _MEASURE_SECONDS)
        self._interval = _WINDOW * max(0.0, busy - _IDLE_PART) / (1 - _IDLE_PART)
        self._busy_before = self.loop.busy
        self._simulation.after(_MEASURE_SECONDS, self._measure)
