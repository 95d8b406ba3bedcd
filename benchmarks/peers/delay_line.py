"""The distance of the benchmark relay: each reply arrives one round trip after the relay read the command."""

import asyncio
import time
from collections import deque

_EARLY = 0.0005  # seconds that a reply may leave before it is due: the loop's timers count in milliseconds


class DelayLine:
    """Writes to a transport one round trip, in seconds, after `write` was called.

    Replies leave in order, and none waits longer because of another: pipelined commands get pipelined replies.
    """

    def __init__(self, transport: asyncio.WriteTransport, round_trip: float) -> None:
        self._transport = transport
        self._round_trip = round_trip
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._loop = asyncio.get_running_loop()
        self._busy_until = 0.0
        self._closing = False

    def __repr__(self) -> str:
        return f"<DelayLine {self._round_trip * 1000:g} ms, {len(self._waiting)} on their way>"

    @property
    def empty(self) -> bool:
        """Whether every reply has left."""
        return not self._waiting

    def close(self) -> None:
        """Close the transport once every reply has left."""
        self._closing = True
        if not self._waiting:
            self._transport.close()

    def hold(self, seconds: float) -> None:
        """Delay later replies by that much more, counted from the end of an earlier hold."""
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
        elif self._closing:
            self._transport.close()
