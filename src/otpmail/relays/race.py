"""Tries several addresses side by side, by RFC 8305, until one of them is ready for use.

An address is ready when its relay has greeted, not when it accepts a connection: some accept and say nothing.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from otpmail.errors import ConnectFailed
from otpmail.relays.addresses import Address

STAGGER_SECONDS = 0.25
"""The Connection Attempt Delay of RFC 8305, 5 and 8."""


class Closable(Protocol):
    """A connection that an attempt opens."""

    def close(self) -> None:
        """Close it."""


SocketT = TypeVar("SocketT", bound=Closable)
ReadyT = TypeVar("ReadyT", bound=Closable)
T = TypeVar("T")


class Race(Generic[SocketT, ReadyT]):
    """One race for the first address that is ready.

    `connect` opens a connection to an address, and `greet` makes it ready for use. While none is connected, the next
    address is tried after `stagger` seconds. A connection stops those that are not there yet; they are tried after
    `share` seconds without its greeting, or when it fails. Times are in seconds.
    """

    def __init__(
        self,
        addresses: Iterable[Address],
        connect: Callable[[Address], Awaitable[SocketT]],
        greet: Callable[[Address, SocketT], Awaitable[ReadyT]],
        *,
        share: float,
        stagger: float = STAGGER_SECONDS,
    ) -> None:
        self._left = deque(addresses)
        self._connect = connect
        self._greet = greet
        self._share = share
        self._stagger = stagger
        self._connecting: dict[asyncio.Future[SocketT], Address] = {}
        self._greeting: dict[asyncio.Future[ReadyT], Address] = {}
        self._dropped: list[asyncio.Future[Any]] = []
        self.failures: dict[Address, ConnectFailed] = {}
        """Why addresses failed, in the order in which they did."""

    def __repr__(self) -> str:
        return f"<Race {len(self._connecting)} connecting, {len(self._greeting)} greeting, {len(self._left)} left>"

    async def run(self) -> ReadyT | None:
        """Return what is ready first, or None when all addresses have failed. All else is closed."""
        winner: ReadyT | None = None
        try:
            self._start_next()
            while winner is None and (self._connecting or self._greeting):
                winner = await self._step()
        except BaseException:
            if winner is not None:
                winner.close()
            raise
        finally:
            await self._end()
        return winner

    async def _step(self) -> ReadyT | None:
        """Wait until an attempt ends or the next one is due."""
        pause = None if not self._left else self._stagger if self._connecting else self._share
        running: set[asyncio.Future[Any]] = {*self._connecting, *self._greeting}
        done, _ = await asyncio.wait(running, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
        for greeting in [task for task in self._greeting if task in done]:
            if self._is_good(greeting, self._greeting.pop(greeting)):
                return greeting.result()
        for connecting in [task for task in self._connecting if task in done]:
            if connecting in self._connecting:  # otherwise another one was first
                self._connected(connecting, self._connecting.pop(connecting))
        if not done:
            self._start_next()
        return None

    def _start_next(self) -> None:
        if self._left:
            address = self._left.popleft()
            self._connecting[asyncio.ensure_future(self._connect(address))] = address

    def _connected(self, task: asyncio.Future[SocketT], address: Address) -> None:
        if not self._is_good(task, address):
            return
        self._left.extendleft(reversed(self._connecting.values()))
        self._drop(self._connecting)
        socket = task.result()
        greeting = asyncio.ensure_future(self._greet(address, socket))
        greeting.add_done_callback(partial(_close_unless_ready, socket))
        self._greeting[greeting] = address

    def _is_good(self, task: asyncio.Future[Any], address: Address) -> bool:
        """Whether the attempt went well; otherwise note why it did not, and start the next one."""
        error = task.exception()
        if error is None:
            return True
        if not isinstance(error, ConnectFailed):
            raise error
        self.failures[address] = error
        self._start_next()
        return False

    def _drop(self, attempts: dict[asyncio.Future[T], Address]) -> None:
        for task in attempts:
            task.cancel()
            task.add_done_callback(_close_result)
        self._dropped += attempts
        attempts.clear()

    async def _end(self) -> None:
        """Stop what still runs, and wait until it has stopped."""
        self._drop(self._connecting)
        self._drop(self._greeting)
        if self._dropped:
            await asyncio.wait(self._dropped)


def _close_unless_ready(socket: Closable, task: asyncio.Future[Any]) -> None:
    """Close the socket of an attempt that failed, or was stopped before it began."""
    if task.cancelled() or task.exception() is not None:
        socket.close()


def _close_result(task: asyncio.Future[Any]) -> None:
    """Close what an attempt has opened in the very turn of the loop in which it was stopped."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()
