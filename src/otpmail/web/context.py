"""One call over HTTP, as the guarded methods see it: with the methods of gRPC's own context."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Never, TypeVar

from otpmail.api.calls import CallEnded
from otpmail.api.certificate import properties_of
from otpmail.api.status import Code, status_of
from otpmail.errors import DeadlineExceeded
from otpmail.web.exchange import Exchange

ResultT = TypeVar("ResultT")
Trailers = Sequence[tuple[str, bytes]]
Ended = tuple[Code, str, Trailers]
"""How a call has ended: its code, its message, and its details as gRPC's trailers."""


class CallContext:
    """A call. `read_all` reads its request, and is given this context. `seconds` is how long its caller waits.

    A call that ends by `abort` has `ended`. One that another task aborts, or whose time is over, is cancelled.
    """

    def __init__(
        self,
        exchange: Exchange,
        read: Callable[["CallContext"], Awaitable[bytes]],
        seconds: float | None,
    ) -> None:
        self.exchange = exchange
        self.ended: Ended | None = None
        self._read = read
        self._is_over = False
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None
        if seconds is not None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.time() + seconds
            self._timer = loop.call_at(self._deadline, self._time_out)

    def __repr__(self) -> str:
        return f"<CallContext of {self.exchange!r}>"

    async def run(self, call: Awaitable[ResultT]) -> ResultT | None:
        """Await the guarded method. Returns None where the call has `ended` otherwise, or its caller has gone."""
        try:
            return await call
        except CallEnded:
            return None
        except asyncio.CancelledError:
            if self.ended is None or (task := self.exchange.connection.running) is None:
                raise  # the connection has ended
            task.uncancel()
            return None
        finally:
            self._is_over = True
            if self._timer is not None:
                self._timer.cancel()

    def peer(self) -> str:
        """Where the call comes from."""
        return self.exchange.connection.peer

    def time_remaining(self) -> float | None:
        """How many seconds the caller still waits; None where it sets no limit."""
        return None if self._deadline is None else max(0.0, self._deadline - asyncio.get_running_loop().time())

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """Return the names in the certificate of the client, as gRPC has them."""
        der = self.exchange.connection.certificate
        return {} if der is None else properties_of(der)

    async def read(self) -> bytes:
        """Return the octets of the next request. Raises CallEnded where the caller has gone."""
        return await self._read(self)

    async def abort(self, code: Code, message: str, trailers: Trailers = ()) -> Never:
        """End the call with a status. Raises CallEnded, also in the call itself."""
        if self.ended is None:
            self.ended = code, message, trailers
            if not self._is_over and (task := self.exchange.connection.running) is not asyncio.current_task():
                _cancel(task)
        raise CallEnded

    def _time_out(self) -> None:
        if self.ended is None and not self._is_over:
            status = status_of(DeadlineExceeded("the call's own time is over"))
            self.ended = status.code, status.message, status.trailers
            _cancel(self.exchange.connection.running)


def _cancel(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
