"""The distance of the benchmark relay: what it says arrives one round trip after it read what it answers."""

import asyncio
import time
from collections import deque

_EARLY = 0.0005  # seconds by which a reply may leave before it is due: the loop's timers count in milliseconds


class DelayLine:
    """Writes to a transport one round trip, in seconds, after it is told to.

    In order, and none waits longer for another's sake: what is pipelined stays pipelined.
    """

    def __init__(self, transport: asyncio.WriteTransport, round_trip: float) -> None:
        self._transport = transport
        self._round_trip = round_trip
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._loop = asyncio.get_running_loop()
        self._busy_until = 0.0

    def __repr__(self) -> str:
        return f"<DelayLine {self._round_trip * 1000:g} ms, {len(self._waiting)} on their way>"

    @property
    def empty(self) -> bool:
        """Whether all that was said has left."""
        return not self._waiting

    def hold(self, seconds: float) -> None:
        """Say what follows that much later, counted from the end of an earlier hold."""
        self._busy_until = max(self._busy_until, time.monotonic()) + seconds

    def write(self, data: bytes) -> None:
        """Send `data` when it is due."""
        now = time.monotonic()
        due = max(now, self._busy_until) + self._round_trip
        if due <= now and not self._waiting:
            self._transport.write(data)
            return
        self._waiting.append((due, data))
        if len(self._waiting) == 1:
            self._loop.call_later(due - now - _EARLY, self._deliver)

    def _deliver(self) -> None:
        now = time.monotonic()
        ready = []
        while self._waiting and self._waiting[0][0] <= now + _EARLY:
            ready.append(self._waiting.popleft()[1])
        if ready and not self._transport.is_closing():
            self._transport.write(b"".join(ready))
        if self._waiting:
            self._loop.call_later(max(self._waiting[0][0] - now - _EARLY, 0.001), self._deliver)
