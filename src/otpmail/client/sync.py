"""The client whose calls block. Threads may share it."""

import random
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self, TypeVar

import grpc

from otpmail.client import addresses, codes, mails
from otpmail.client.endpoint import Endpoint
from otpmail.client.feed import Feed
from otpmail.client.methods import blocking
from otpmail.client.plan import Plan, built
from otpmail.client.resend import Resend
from otpmail.client.retry import CallLimits, Retries
from otpmail.client.status import closed, error_of_call, most_octets
from otpmail.client.values import Mail, MailResult, OutgoingMail, State

ResultT = TypeVar("ResultT")

_USUAL = Retries()


class SyncClient:
    """Calls a service, and blocks until it answers. Its arguments and methods are those of `Client`.

    A process that forks makes its first call after the fork, as gRPC asks.
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
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._endpoint = Endpoint(server, token, ca_file, cert_file, key_file, tls_name)
        self._limits = CallLimits(timeout, retries, now=time.monotonic, random=random.random)
        self._sleep = sleep
        self._lock = Lock()
        self._channels: dict[str, grpc.Channel] = {}

    def __repr__(self) -> str:
        return f"<SyncClient {self._endpoint.name}>"

    send_code = blocking(codes.send_code)
    check_code = blocking(codes.check_code)
    revoke_code = blocking(codes.revoke_code)
    send_mail = blocking(mails.send_mail)
    get_mail = blocking(mails.get_mail)
    cancel_mail = blocking(mails.cancel_mail)
    retry_mail = blocking(mails.retry_mail)
    get_address = blocking(addresses.get_address)
    release_address = blocking(addresses.release_address)
    forget_address = blocking(addresses.forget_address)
    report_delivery = blocking(addresses.report_delivery)

    def watch_mail(
        self, mail_id: str = "", *, request_id: str = "", caller: str = "", timeout: float | None = None
    ) -> Generator[Mail, None, None]:
        """Yield the state of a mail, now and at each change, until it settles. A lost connection is made again.

        Without `timeout` it takes as long as the mail. Raises NotFound.
        """
        plan = built(mails.watch_mail, mail_id, request_id=request_id, caller=caller, timeout=timeout)
        changes = mails.Changes()
        with closing(self._answers(plan)) as answers:
            for mail in answers:
                yield from changes.read(mail)

    def list_mails(
        self, state: State | None = None, *, recipient: str = "", request_id: str = "", caller: str = ""
    ) -> Generator[Mail, None, None]:
        """Yield the caller's mails, newest first: those that have not settled, and those that are remembered."""
        pages = mails.Pages(state, recipient=recipient, request_id=request_id, caller=caller)
        for plan in pages:
            yield from pages.read(self.run(plan))

    def send_mails(
        self, outgoing: Iterable[OutgoingMail], *, timeout: float | None = None
    ) -> Generator[MailResult, None, None]:
        """Send many mails over one stream, and yield a result for each in the order in which they settle.

        `outgoing` is asked for more as fast as the service takes them, in another thread. A mail that was refused, or
        did not reach everyone, has an `error`. After a lost connection, or where the service stops, mails without a
        result are sent again by their request_id. So are mails that it refuses as UNAVAILABLE once all were taken.

        Raises an error of the service only while mails may come or lack a result. So an empty list raises none, even
        with a wrong token or without a service.
        """
        if not isinstance(outgoing, Iterable):
            raise TypeError(f"outgoing: must be an iterable of OutgoingMail, not {type(outgoing).__name__}")
        feed = Feed(outgoing)
        try:
            yield from self._results(feed, timeout)
        finally:
            feed.close()
        if feed.error is not None:
            raise feed.error

    def _results(self, feed: Feed, timeout: float | None) -> Iterator[MailResult]:
        """Send the mails of a feed over one stream after another, until each has its result."""
        target = self._endpoint.target
        attempts = self._limits.attempts(timeout, None)
        resend = Resend(feed, attempts, self._limits.retries)
        channel = self._channel(target)
        method = channel.stream_stream(mails.SEND_MAILS.method, **mails.SEND_MAILS.octets)
        wait: float | None = 0.0
        while wait is not None:
            failure = most = None
            with self._unless_closed(target, channel):
                call = method(feed.begin(), timeout=attempts.left(), metadata=self._endpoint.metadata())
            try:
                for message in (each for response in call for each in response.results):
                    if (result := resend.result(message)) is not None:
                        yield result
            except grpc.RpcError as error:
                failure, most = error_of_call(error, target), most_octets(error.code(), error.details())
            finally:
                call.cancel()
            feed.wait_for_next()
            results, wait = resend.after(failure, most)
            yield from results
            if wait:
                self._sleep(wait)

    def run(self, plan: Plan[ResultT]) -> ResultT:
        """Make a call, and repeat it where that is safe. The methods above use it."""
        target = self._endpoint.target
        channel = self._channel(target)
        call = channel.unary_unary(plan.method, **plan.octets)
        attempts = self._limits.attempts(plan.timeout, plan.usual, is_repeatable=plan.is_repeatable)
        while True:
            try:
                with self._unless_closed(target, channel):
                    answer = call(plan.request, timeout=attempts.left(), metadata=self._endpoint.metadata())
            except grpc.RpcError as failure:
                self._sleep(attempts.wait_after(error_of_call(failure, target)))
            else:
                return plan.read(answer)

    def _answers(self, plan: Plan[ResultT]) -> Generator[ResultT, None, None]:
        """Make a call that streams its answers, and make it again where its connection is lost."""
        target = self._endpoint.target
        channel = self._channel(target)
        method = channel.unary_stream(plan.method, **plan.octets)
        attempts = self._limits.attempts(plan.timeout, plan.usual)
        while True:
            with self._unless_closed(target, channel):
                call = method(plan.request, timeout=attempts.left(), metadata=self._endpoint.metadata())
            try:
                for answer in call:
                    attempts.succeeded()
                    yield plan.read(answer)
            except grpc.RpcError as failure:
                self._sleep(attempts.wait_after(error_of_call(failure, target)))
            else:
                return
            finally:
                call.cancel()

    @contextmanager
    def _unless_closed(self, target: str, channel: grpc.Channel) -> Iterator[None]:
        """Begin an attempt. Raises Closed where `close` has ended the call, before another connection is opened.

        Another thread may close the channel at any moment. gRPC raises a ValueError for a call that begins then.
        """
        if self._channels.get(target) is not channel:
            raise closed()
        try:
            yield
        except ValueError:
            if self._channels.get(target) is channel:
                raise
            raise closed() from None

    def _channel(self, target: str) -> grpc.Channel:
        with self._lock:
            channel = self._channels.get(target)
            if channel is None:
                channel = self._endpoint.channel(target, grpc.insecure_channel, grpc.secure_channel)
                self._channels[target] = channel
            return channel

    def close(self) -> None:
        """Close the connections. A later call opens a new one."""
        with self._lock:
            channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
