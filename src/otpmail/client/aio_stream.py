"""A stream of mails from asyncio. It outlives the connection: mails without a result are sent again, by request_id."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

import grpc

from otpmail.client import decode
from otpmail.client.batches import MOST_OCTETS, MOST_TOGETHER, Batch, OpenMails, messages
from otpmail.client.errors import Error, Unavailable
from otpmail.client.mails import outgoing_request
from otpmail.client.retry import Refusals, Retries
from otpmail.client.status import error_of, is_of_a_write, most_octets
from otpmail.client.values import MailResult, OutgoingMail
from otpmail.v1 import mail_pb2

_END = None
_Request = mail_pb2.SendMailRequest


class MailStream:
    """Sends mails to a target over one connection after another, until each has a result."""

    def __init__(
        self, mails: Iterable[OutgoingMail] | AsyncIterable[OutgoingMail], target: str, retries: Retries
    ) -> None:
        self._mails = mails
        self._target = target
        self._refusals = Refusals(retries)
        self._waiting: asyncio.Queue[_Request | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(MOST_TOGETHER)
        """For mails that wait. The end needs none, so that it comes however the iterable ends."""
        self._open = OpenMails()
        self._all_taken = False
        self._error: BaseException | None = None

    def __repr__(self) -> str:
        return f"<MailStream {len(self._open)} open>"

    async def results(
        self,
        open_call: Callable[[], Any],
        on_failure: Callable[[Error], Any],
        on_result: Callable[[], None],
        ask_most: Callable[[int], Awaitable[int | None]],
    ) -> AsyncGenerator[MailResult, None]:
        """Yield the results in the order in which mails settle.

        `open_call` begins a call. `on_failure` waits before the next one, or raises. `ask_most` returns how large a
        message may be, if the service takes none of so many octets.
        """
        taking = asyncio.create_task(self._take())
        try:
            while True:
                call = open_call()
                writing = asyncio.create_task(self._write(call))
                failure, larger = None, []
                try:
                    async for result in self._read(call):
                        on_result()
                        yield result
                except grpc.aio.AioRpcError as error:
                    failure = error_of(error.code(), error.details(), error.trailing_metadata(), self._target)
                    larger = self._open.take_out_larger(await self._most(error, ask_most))
                finally:
                    call.cancel()
                    await _end(writing)
                for each in larger:
                    yield decode.result(each)
                if larger:  # the others go over the next stream
                    failure = None
                elif failure is not None or not self._is_done:
                    for each in await self._last_results(failure, on_failure):
                        yield decode.result(each)
                if failure is None and self._is_done:
                    break
        finally:
            await _end(taking)
        if self._error is not None:
            raise self._error

    @property
    def _is_done(self) -> bool:
        return self._all_taken and not self._open

    async def _most(self, error: grpc.aio.AioRpcError, ask_most: Callable[[int], Awaitable[int | None]]) -> int | None:
        """Return how large a message may be, if the stream has ended by a larger one."""
        if is_of_a_write(error.code(), error.details()) and (largest := self._open.largest) > MOST_OCTETS:
            return await ask_most(largest)
        return most_octets(error.code(), error.details())

    async def _last_results(
        self, failure: Error | None, on_failure: Callable[[Error], Any]
    ) -> list[mail_pb2.SendMailsResponse.Result]:
        """Wait before the next stream. Returns the latest refusals where none comes, and takes their mails out.

        That is after a stream that ended well. Else it raises.
        """
        try:
            await on_failure(failure or Unavailable("the service has ended the stream"))
        except Unavailable:
            ended_well = failure is None and self._all_taken
            if not (refused := self._refusals.results(self._open.request_ids()) if ended_well else []):
                raise
            for each in refused:
                self._open.settle(each.request_id, is_refusal=True)
            return refused
        return []

    async def _take(self) -> None:
        """Take the mails from the caller, as fast as the service takes them."""
        try:
            if isinstance(self._mails, AsyncIterable):
                async for mail in self._mails:
                    await self._put(mail)
            else:
                for mail in self._mails:
                    await self._put(mail)
        except BaseException as error:  # noqa: BLE001  raised once mails before it have results, if the caller is there
            self._error = error
        finally:
            self._waiting.put_nowait(_END)

    async def _put(self, mail: OutgoingMail) -> None:
        request = outgoing_request(mail)
        await self._room.acquire()
        self._waiting.put_nowait(request)

    async def _write(self, call: Any) -> None:
        """Write the mails that are open, then those that come. A broken stream ends it."""
        again = self._open.all()
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # which the reader sees too
            for message in messages(again):
                await call.write(message)
            while (batch := await self._next_batch()).mails:
                await call.write(batch.message())
            await call.done_writing()

    async def _next_batch(self) -> Batch:
        """Return the mails that are ready, at least one; none at the end. They are open from now on."""
        batch = Batch()
        while not self._all_taken and not batch.is_full and not (batch.mails and self._waiting.empty()):
            request = await self._waiting.get()
            if request is _END:
                self._all_taken = True
            else:
                self._room.release()
                batch.add(request)
                self._open.add([request])
        return batch

    async def _read(self, call: Any) -> AsyncIterator[MailResult]:
        while (response := await call.read()) is not grpc.aio.EOF:
            for message in response.results:
                if self._refusals.is_repeated(message, all_taken=self._all_taken):
                    continue
                if self._open.settle(message.request_id, is_refusal=bool(message.code)):
                    yield decode.result(message)
        if (code := await call.code()) is not grpc.StatusCode.OK:
            raise grpc.aio.AioRpcError(
                code, await call.initial_metadata(), await call.trailing_metadata(), await call.details()
            )


async def _end(task: "asyncio.Task[None]") -> None:
    """Cancel a task and wait for its end. A cancel of the caller meanwhile is the caller's, so it is raised."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
