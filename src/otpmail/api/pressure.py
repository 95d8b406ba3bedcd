"""Ends streams that wait for their next batch while the process takes more memory than is counted.

gRPC buffers a batch that is half received, and tells neither how much of it is there nor that it is there at all.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable

from otpmail.api.calls import Context
from otpmail.counts import counted
from otpmail.limits.memory import Memory
from otpmail.limits.resident import release_free_memory, resident
from otpmail.limits.sockets import name_of_peer, receiving, shut_down
from otpmail.limits.uncounted import Uncounted
from otpmail.timers import CallLater, Timer

LOOK_SECONDS = 0.01
"""Between two looks at the memory of the process, 15 us each, while many streams wait."""

_ACTIVE_SECONDS = 0.5  # for which a connection counts as one that brings something
_MOST_AT_ONCE = 200  # calls that are ended in one turn of the loop

_log = logging.getLogger("otpmail")


class WaitingStreams:
    """The streams that wait for a batch, each with the callback that ends it, beyond `most` of them under pressure.

    - Where the process takes more than what is counted, what it began with and a part for requests, half of them end.
      The connection with most of them loses first. Of those with equally many it is one on which nothing has come
      lately, which is idle or stuck.
    - An end takes effect a few rounds of the loop later, and data come meanwhile. Where the process takes two parts
      for requests more, half of the connections that bring something are closed: the system must not end the process.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        most: int,
        call_later: CallLater,
        look_seconds: float = LOOK_SECONDS,
        resident: Callable[[], int] = resident,
        receiving: Callable[[float], frozenset[str]] = receiving,
        shut_down: Callable[[Collection[str]], None] = shut_down,
    ) -> None:
        self._memory = memory
        self._most = most
        self._call_later = call_later
        self._look_seconds = look_seconds
        self._receiving = receiving
        self._shut_down = shut_down
        self._uncounted = Uncounted(memory, resident)
        self._ends: dict[Context, Callable[[], None]] = {}
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._ends)

    def __repr__(self) -> str:
        return f"<WaitingStreams {len(self)}, at most {self._most} under pressure>"

    def add(self, context: Context, end: Callable[[], None]) -> None:
        """Let a stream wait, which `end` ends by its status."""
        self._ends[context] = end
        if self._timer is None and len(self._ends) > self._most:
            self._timer = self._call_later(self._look_seconds, self._look)

    def discard(self, context: Context) -> None:
        """The stream has its batch, or has ended."""
        self._ends.pop(context, None)

    def _look(self) -> None:
        self._timer = None
        excess = len(self._ends) - self._most
        if excess <= 0:
            return
        self._timer = self._call_later(self._look_seconds, self._look)
        if self._too_much() > 0:
            release_free_memory()
            if (too_much := self._too_much()) > 0:
                self._relieve((excess + 1) // 2, is_urgent=too_much > 2 * self._memory.for_reading)

    def _too_much(self) -> int:
        """How many octets the process takes beyond those that it may."""
        return self._uncounted.octets() - self._uncounted.usual

    def _relieve(self, count: int, *, is_urgent: bool) -> None:
        active = self._receiving(_ACTIVE_SECONDS)
        if is_urgent and (closing := self._half_of(active)):
            _log.warning("memory is short: closing %s that bring batches", counted(len(closing), "connection"))
            self._shut_down(closing)
        idle_first = sorted(self._ends, key=lambda context: name_of_peer(context.peer()) in active)
        for context in most_greedy(idle_first, count):
            self._ends.pop(context)()

    def _half_of(self, active: frozenset[str]) -> list[str]:
        """Return half of the active connections with streams that wait, those with most of them."""
        streams = Counter(name_of_peer(context.peer()) for context in self._ends)
        busy = [name for name, _ in streams.most_common() if name in active]
        return busy[: (len(busy) + 1) // 2]


def most_greedy(contexts: Iterable[Context], count: int) -> list[Context]:
    """Return `count` contexts, fewer where those are many: the first ones of the connections that have most of them."""
    of_peer: defaultdict[str, list[Context]] = defaultdict(list)
    for context in contexts:
        of_peer[context.peer()].append(context)
    left = Counter({peer: len(of) for peer, of in of_peer.items()})
    chosen: list[Context] = []
    for _ in range(min(count, _MOST_AT_ONCE)):
        peer, _ = left.most_common(1)[0]
        chosen.append(of_peer[peer][-left[peer]])
        left[peer] -= 1
    return chosen
