"""Simple workers: they send numbered mails over connections to a relay, and replace those that are due."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from otpmail.errors import ConnectionLost
from otpmail.model import Envelope
from otpmail.relays.connection import Connection
from otpmail.relays.relay import Relay
from otpmail.smtp.transaction import Results


@dataclass
class Sending:
    """Mails to `p0@y.org` and so on: which of them wait, were taken, and may have been taken unheard."""

    relay: Relay
    waiting: deque[int]
    taken: set[int] = field(default_factory=set)
    uncertain: set[int] = field(default_factory=set)
    losses: int = 0
    ended: list[Connection] = field(default_factory=list)  # by the relay
    _wake: set[Callable[[], None]] = field(default_factory=set)
    _left: int = 0

    @classmethod
    async def run(cls, relay: Relay, numbers: range, *, workers: int) -> "Sending":
        """Send the mails, and return once all have been taken and all connections are closed."""
        sending = cls(relay, deque(numbers), _left=len(numbers))
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(sending._work())
        return sending

    async def _work(self) -> None:
        successor: asyncio.Task[Connection] | None = None
        async with asyncio.TaskGroup() as closing:
            while self._left:
                connection = await (successor or self.relay.connect())
                successor = await self._feed(connection)
                self.relay.released(connection)
                if connection.lost_cause:
                    self.ended.append(connection)
                closing.create_task(_close(connection))
            if successor is not None:
                closing.create_task(_close(await successor))

    async def _feed(self, connection: Connection) -> asyncio.Task[Connection] | None:
        """Send on the connection until it is to be replaced; return the dial of its successor, if that has begun."""
        successor: asyncio.Task[Connection] | None = None
        woken = asyncio.Event()
        self._wake.add(woken.set)
        connection.watch(on_lost=woken.set, on_available=woken.set)
        while self._left and not (connection.lost_cause or connection.is_exhausted):
            while self.waiting and connection.is_available:
                number = self.waiting.popleft()
                connection.send(_mail(number), partial(self._note, number))
            if successor is None and connection.retire_at <= asyncio.get_running_loop().time():
                successor = asyncio.create_task(self.relay.connect())
                successor.add_done_callback(lambda _: woken.set())
            elif successor is not None and successor.done():
                break
            if not connection.is_exhausted:
                await woken.wait()
                woken.clear()
        self._wake.discard(woken.set)
        return successor

    def _note(self, number: int, outcome: Results | ConnectionLost) -> None:
        if isinstance(outcome, ConnectionLost):
            self.losses += 1
            if outcome.uncertain:
                self.uncertain.add(number)
            self.waiting.appendleft(number)
        else:
            assert outcome[0].accepted
            self.taken.add(number)
            self._left -= 1
        if self.waiting or not self._left:
            for wake in self._wake:
                wake()


def _mail(number: int) -> Envelope:
    return Envelope("a@x.org", (f"p{number}@y.org",), b"Subject: %d\r\n\r\n" % number)


async def _close(connection: Connection) -> None:
    await connection.drained()
    await connection.close()
