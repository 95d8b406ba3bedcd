"""Ends floods of metadata: gRPC keeps those of calls that have not begun, and has no figure for their memory.

HTTP_PORT needs no such watch: its door bounds the head and the body of each request (`web.connection`).
A connection of HTTP/2 may send metadata without end in CONTINUATION frames (RFC 9113, 6.10), before anybody is asked
for a token.
For four MiB of names with one letter gRPC 1.85 takes 120 MB, whatever its limit of metadata.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence

from otpmail.counts import counted
from otpmail.limits.memory import Memory
from otpmail.limits.resident import release_free_memory, resident
from otpmail.limits.sockets import Brought, brought, name_of_peer, reset
from otpmail.limits.uncounted import LEEWAY, Uncounted

_LOOK_SECONDS = 0.1  # in which a flood takes about 20 MB
_NEXT_LOOK_SECONDS = 0.02  # where the memory is short
_GROWTH = 8 << 20  # octets since the last end: memory that does not grow ends nobody's connection
_LEAST_BROUGHT = 16 << 10  # octets of a connection that may be one of those that flood
_TAKES = 32  # octets of memory for one of metadata
_LOOKS = 500  # about ten seconds, after which what a connection has brought is old

_PAUSE_SECONDS = 0.5  # after a look that failed

_NOTHING = Brought(0, 0)
_NOT_LOOKED_AT = {"event": "memory-not-watched", "fields": {}}

_log = logging.getLogger("otpmail")


class FloodWatch:
    """Resets connections while the process takes ever more memory that nothing counts.

    Beyond what it began with it may take two parts for requests. With each 8 MiB more the watch resets connections
    that have brought much in the last seconds, or have much that is not read. Otherwise the system would
    end the process. Octets that became requests count for nobody, if what others brought explains the growth.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        resident: Callable[[], int] = resident,
        release: Callable[[], None] = release_free_memory,
        brought: Callable[[Collection[str]], Mapping[str, Brought]] = brought,
        reset: Callable[[Collection[str]], None] = reset,
        look_seconds: float = _LOOK_SECONDS,
    ) -> None:
        self._memory = memory
        self._uncounted = Uncounted(memory, resident)
        self._release = release
        self._brought = brought
        self._reset = reset
        self._look_seconds = look_seconds
        self._alert = self._uncounted.usual
        self._most = self._alert + max(memory.for_reading, LEEWAY)
        self._ended_at = 0  # the memory of the process as connections were closed
        self._known: Mapping[str, Brought] | None = None  # octets that each connection had brought seconds ago
        self._known_at = self._looks = 0  # the memory of the process then, and looks since then

    def __repr__(self) -> str:
        return f"<FloodWatch {'calm' if self._known is None else 'alert'}, at most {self._most} octets>"

    async def run(self, addresses: Sequence[str]) -> None:
        """Look at the memory, and at the connections to these addresses, until cancelled.

        A thread does so: gRPC may read what floods in on the thread of the loop, which then stands still for seconds.
        """
        stopped = threading.Event()
        threading.Thread(target=self._watch, args=(addresses, stopped), name="floods", daemon=True).start()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            stopped.set()

    def _watch(self, addresses: Sequence[str], stopped: threading.Event) -> None:
        while not stopped.wait(self._look_seconds if self._known is None else _NEXT_LOOK_SECONDS):
            try:
                self.look(addresses)
            except Exception:  # noqa: BLE001  no mistake of ours, nor of the system's, is to end the watch
                _log.exception("memory could not be looked at", extra=_NOT_LOOKED_AT)
                stopped.wait(_PAUSE_SECONDS)

    def look(self, addresses: Sequence[str]) -> None:
        """Look once."""
        taken = self._uncounted.octets()
        if taken < self._alert:
            self._known = self._memory.arrived = None
            self._ended_at = 0
            return
        self._looks += 1
        if self._known is None or self._looks > _LOOKS:
            self._known, self._known_at, self._looks = self._brought(addresses), taken, 0
            self._memory.arrived = {}
        elif taken > max(self._most, self._ended_at + _GROWTH):
            self._release()
            taken = self._uncounted.octets()
            if taken > self._most:
                grown = taken - max(self._known_at, self._ended_at)
                self._ended_at = taken
                self._end(addresses, self._known, grown)

    def _end(self, addresses: Sequence[str], known: Mapping[str, Brought], grown: int) -> None:
        arrived = {name_of_peer(peer): octets for peer, octets in dict(self._memory.arrived or ()).items()}
        much: list[str] = []
        floods: dict[str, int] = {}  # octets that are no requests
        for peer, (octets, unread) in self._brought(addresses).items():
            since = octets - known.get(peer, _NOTHING).octets
            if max(since, unread) >= _LEAST_BROUGHT:
                much.append(peer)
            if (strange := max(since - arrived.get(peer, 0), unread)) >= _LEAST_BROUGHT:
                floods[peer] = strange
        ending = list(floods if _TAKES * sum(floods.values()) >= grown else much)
        if ending:
            _log.warning("memory is short: closing %s that bring much", counted(len(ending), "connection"))
            self._reset(ending)
