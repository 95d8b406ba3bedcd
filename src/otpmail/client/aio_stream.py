"""A stream of mails from asyncio. It outlives the connection: mails without a result are sent again, by request_id."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc

from otpmail.client import mails
from otpmail.client.aio_feed import AioFeed
from otpmail.client.batches import MOST_OCTETS, messages
from otpmail.client.endpoint import Endpoint
from otpmail.client.resend import Resend, Step
from otpmail.client.retry import Attempts
from otpmail.client.status import closed, error_of_call, is_of_a_write, most_octets
from otpmail.client.values import MailResult

_BROKEN = (grpc.aio.AioRpcError, grpc.aio.InternalError, asyncio.InvalidStateError)
"""The errors of grpc.aio for a write to a stream that is lost. Its half-close alone raises the second one."""
_UNANSWERED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


class StreamCalls:
    """The calls that a stream of mails makes over one channel. `is_open` says whether the client has not closed it."""

    def __init__(
        self, channel: grpc.aio.Channel, endpoint: Endpoint, attempts: Attempts, is_open: Callable[[], bool]
    ) -> None:
        self._channel = channel
        self._endpoint = endpoint
        self._attempts = attempts
        self._is_open = is_open

    def __repr__(self) -> str:
        return f"<StreamCalls of {self._endpoint.name}, {self._attempts!r}>"

    def begin(self) -> Any:
        """Begin a stream. Raises Closed and TimedOut."""
        self._check_open()
        method = self._channel.stream_stream(mails.SEND_MAILS.method, **mails.SEND_MAILS.octets)
        return method(timeout=self._attempts.left(), metadata=self._endpoint.metadata())

    async def refusal_of(self, octets: int) -> grpc.aio.AioRpcError | None:
        """Ask for a mail by an id of so many octets, which the service refuses in any case: here, by its size.

        Raises Closed and TimedOut.
        """
        self._check_open()
        plan = mails.get_mail("-" * octets)
        ask = self._channel.unary_unary(plan.method, **plan.octets)
        try:
            await ask(plan.request, timeout=self._attempts.left(), metadata=self._endpoint.metadata())
        except grpc.aio.AioRpcError as failure:
            return failure
        return None

    def _check_open(self) -> None:
        """Raise Closed over a closed channel, for which gRPC has an error of its own."""
        if not self._is_open():
            raise closed()


class MessageLimit:
    """How large a message the service takes. Where gRPC keeps no status of a broken stream, the service is asked.

    It is asked once, and again only for a message that is larger than one which it takes.
    """

    def __init__(self, calls: StreamCalls) -> None:
        self._calls = calls
        self._taken = MOST_OCTETS
        self._most: int | None = None

    def __repr__(self) -> str:
        return f"<MessageLimit {self._most or f'above {self._taken}'}>"

    async def of(self, failure: grpc.aio.AioRpcError, largest: int) -> int | None:
        """Return the limit, if the stream may have ended by a message above it. The largest has so many octets."""
        if not is_of_a_write(failure.code(), failure.details()):
            return most_octets(failure.code(), failure.details())
        if self._most is None and largest > self._taken:
            await self._ask(largest)
        return self._most

    async def _ask(self, octets: int) -> None:
        refusal = await self._calls.refusal_of(octets)
        if refusal is not None:
            self._most = most_octets(refusal.code(), refusal.details())
        if refusal is None or refusal.code() not in _UNANSWERED:
            self._taken = octets


class MailStream:
    """Sends mails over one stream after another, until each has a result."""

    def __init__(
        self,
        feed: AioFeed,
        resend: Resend,
        calls: StreamCalls,
        target: str,
        sleep: Callable[[float], Coroutine[Any, Any, None]],
    ) -> None:
        self._feed = feed
        self._resend = resend
        self._calls = calls
        self._limit = MessageLimit(calls)
        self._target = target
        self._sleep = sleep

    def __repr__(self) -> str:
        return f"<MailStream of {self._feed!r}>"

    async def results(self) -> AsyncGenerator[MailResult, None]:
        """Yield the results in the order in which mails settle."""
        taking = asyncio.create_task(self._feed.take())
        try:
            wait: float | None = 0.0
            while wait is not None:
                failure = None
                try:
                    async with self._begun() as call:
                        async for result in self._read(call):
                            yield result
                except grpc.aio.AioRpcError as error:
                    failure = error
                results, wait = await self._after(failure)
                for result in results:
                    yield result
                if wait:
                    await self._sleep(wait)
        finally:
            await _end(taking)
        if self._feed.error is not None:
            raise self._feed.error

    @asynccontextmanager
    async def _begun(self) -> AsyncIterator[Any]:
        """Begin a stream, and write to it meanwhile."""
        call = self._calls.begin()
        writing = asyncio.create_task(self._write(call))
        try:
            yield call
        finally:
            call.cancel()
            await _end(writing)

    async def _write(self, call: Any) -> None:
        """Write the mails. A broken stream ends it."""
        with suppress(*_BROKEN):  # which the reader sees too
            for message in messages(self._feed.again()):
                await call.write(message)
            while (batch := await self._feed.next_batch()).mails:
                await call.write(batch.message())
            await call.done_writing()

    async def _read(self, call: Any) -> AsyncIterator[MailResult]:
        while (response := await call.read()) is not grpc.aio.EOF:
            for message in response.results:
                if (result := self._resend.result(message)) is not None:
                    yield result
        if (code := await call.code()) is not grpc.StatusCode.OK:
            raise grpc.aio.AioRpcError(
                code, await call.initial_metadata(), await call.trailing_metadata(), await call.details()
            )

    async def _after(self, failure: grpc.aio.AioRpcError | None) -> Step:
        if failure is None:
            return self._resend.after(None, None)
        most = await self._limit.of(failure, self._feed.largest)
        return self._resend.after(error_of_call(failure, self._target), most)


async def _end(task: "asyncio.Task[None]") -> None:
    """Cancel a task and wait for its end. A cancel of the caller meanwhile is the caller's, so it is raised."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
