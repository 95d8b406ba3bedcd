"""The client whose calls are awaited. It may be made at import, and used in any event loop."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Iterable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from otpmail.client import addresses, codes, mails
from otpmail.client.aio_feed import AioFeed
from otpmail.client.aio_stream import MailStream, StreamCalls
from otpmail.client.endpoint import Endpoint
from otpmail.client.methods import awaited
from otpmail.client.plan import Plan, built
from otpmail.client.resend import Resend
from otpmail.client.retry import CallLimits, Retries
from otpmail.client.status import closed, error_of_call
from otpmail.client.values import Mail, MailResult, OutgoingMail, State

ResultT = TypeVar("ResultT")

_USUAL = Retries()


class Client:
    """Calls a service from asyncio.

    Without arguments it calls the service of OTPMAIL_SERVER, else 127.0.0.1:40700, with the token of OTPMAIL_TOKEN and
    by TLS if OTPMAIL_CA_FILE is set. They are read when the client first needs them. `timeout` is in seconds for each
    call with its retries. Each event loop has a connection of its own, which opens with its first call.
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        token: str | None = None,
        ca_file: str | Path | None = None,
        cert_file: str | Path | None = None,
        key_file: str | Path | None = None,
        tls_name: str | None = None,
        timeout: float | None = None,
        retries: Retries = _USUAL,
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
    ) -> None:
        self._endpoint = Endpoint(server, token, ca_file, cert_file, key_file, tls_name)
        self._limits = CallLimits(timeout, retries, now=monotonic, random=random.random)
        self._sleep = sleep
        self._channels: dict[asyncio.AbstractEventLoop, dict[str, grpc.aio.Channel]] = {}

    def __repr__(self) -> str:
        return f"<Client {self._endpoint.name}>"

    send_code = awaited(codes.send_code)
    check_code = awaited(codes.check_code)
    revoke_code = awaited(codes.revoke_code)
    send_mail = awaited(mails.send_mail)
    get_mail = awaited(mails.get_mail)
    cancel_mail = awaited(mails.cancel_mail)
    retry_mail = awaited(mails.retry_mail)
    get_address = awaited(addresses.get_address)
    release_address = awaited(addresses.release_address)
    forget_address = awaited(addresses.forget_address)
    report_delivery = awaited(addresses.report_delivery)

    async def watch_mail(
        self, mail_id: str = "", *, request_id: str = "", caller: str = "", timeout: float | None = None
    ) -> AsyncGenerator[Mail, None]:
        """Yield the state of a mail, now and at each change, until it settles. A lost connection is made again.

        Without `timeout` it takes as long as the mail. Raises NotFound.
        """
        plan = built(mails.watch_mail, mail_id, request_id=request_id, caller=caller, timeout=timeout)
        changes = mails.Changes()
        async with aclosing(self._answers(plan)) as answers:
            async for mail in answers:
                for change in changes.read(mail):
                    yield change

    async def list_mails(
        self, state: State | None = None, *, recipient: str = "", request_id: str = "", caller: str = ""
    ) -> AsyncGenerator[Mail, None]:
        """Yield the caller's mails, newest first: those that have not settled, and those that are remembered."""
        pages = mails.Pages(state, recipient=recipient, request_id=request_id, caller=caller)
        for plan in pages:
            for mail in pages.read(await self.run(plan)):
                yield mail

    async def send_mails(
        self, outgoing: Iterable[OutgoingMail] | AsyncIterable[OutgoingMail], *, timeout: float | None = None
    ) -> AsyncGenerator[MailResult, None]:
        """Send many mails over one stream, and yield a result for each in the order in which they settle.

        `outgoing` is asked for more as fast as the service takes them. A mail that was refused, or did not reach
        everyone, has an `error`. After a lost connection, or where the service stops, mails without a result are sent
        again by their request_id. So are mails that it refuses as UNAVAILABLE once all were taken.

        Raises an error of the service only while mails may come or lack a result. So an empty list raises none, even
        with a wrong token or without a service.
        """
        if not isinstance(outgoing, Iterable | AsyncIterable):
            raise TypeError(f"outgoing: must be an iterable of OutgoingMail, not {type(outgoing).__name__}")
        target = self._endpoint.target
        attempts = self._limits.attempts(timeout, None)
        channel = self._channel(target)
        feed = AioFeed(outgoing)
        calls = StreamCalls(channel, self._endpoint, attempts, lambda: self._is_open(channel))
        stream = MailStream(feed, Resend(feed, attempts, self._limits.retries), calls, target, self._sleep)
        async with aclosing(stream.results()) as results:
            with self._unless_closed(channel):
                async for result in results:
                    yield result

    async def run(self, plan: Plan[ResultT]) -> ResultT:
        """Make a call, and repeat it where that is safe. The methods above use it."""
        target = self._endpoint.target
        channel = self._channel(target)
        call = channel.unary_unary(plan.method, **plan.octets)
        attempts = self._limits.attempts(plan.timeout, plan.usual, is_repeatable=plan.is_repeatable)
        while self._is_open(channel):
            try:
                with self._unless_closed(channel):
                    answer = await call(plan.request, timeout=attempts.left(), metadata=self._endpoint.metadata())
            except grpc.aio.AioRpcError as failure:
                await self._sleep(attempts.wait_after(error_of_call(failure, target)))
            else:
                return plan.read(answer)
        raise closed()

    async def _answers(self, plan: Plan[ResultT]) -> AsyncGenerator[ResultT, None]:
        """Make a call that streams its answers, and make it again where its connection is lost."""
        target = self._endpoint.target
        channel = self._channel(target)
        method = channel.unary_stream(plan.method, **plan.octets)
        attempts = self._limits.attempts(plan.timeout, plan.usual)
        while self._is_open(channel):
            call = method(plan.request, timeout=attempts.left(), metadata=self._endpoint.metadata())
            try:
                with self._unless_closed(channel):
                    async for answer in call:
                        attempts.succeeded()
                        yield plan.read(answer)
            except grpc.aio.AioRpcError as failure:
                await self._sleep(attempts.wait_after(error_of_call(failure, target)))
            else:
                return
            finally:
                call.cancel()
        raise closed()

    def _is_open(self, channel: grpc.aio.Channel) -> bool:
        """Whether a channel of the running loop was not closed."""
        return channel in self._channels.get(asyncio.get_running_loop(), {}).values()

    @contextmanager
    def _unless_closed(self, channel: grpc.aio.Channel) -> Iterator[None]:
        """Raise Closed where `close` has cancelled a call, and not its caller, who expects his own cancel alone."""
        try:
            yield
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._is_open(channel) or (task is not None and task.cancelling()):
                raise
            raise closed() from None

    def _channel(self, target: str) -> grpc.aio.Channel:
        """Return the channel of the running loop to a service."""
        loop = asyncio.get_running_loop()
        if loop not in self._channels:
            for ended in [known for known in list(self._channels) if known.is_closed()]:
                self._channels.pop(ended, None)
        channels = self._channels.setdefault(loop, {})
        channel = channels.get(target)
        if channel is None:
            channel = self._endpoint.channel(target, grpc.aio.insecure_channel, grpc.aio.secure_channel)
            channels[target] = channel
        return channel

    async def close(self) -> None:
        """Close the connections of the running loop. A later call opens a new one."""
        for channel in self._channels.pop(asyncio.get_running_loop(), {}).values():
            await channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
