"""Large mails of both clients: how many go in one message, and those that the service takes in none."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from otpmail import client as errors
from otpmail.client import Client, MailResult, OutgoingMail, SyncClient
from otpmail.client.batches import messages
from otpmail.client.mails import outgoing_request
from otpmail.client.status import error_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from otpmail.testing import Namespace

_MOST = (10 << 20) + (1 << 20)
"""What a service takes in a message, by the default of MAIL_MAX_BYTES."""


def _mail(name: str, octets: int) -> OutgoingMail:
    return OutgoingMail(to="ada@example.org", subject="Hi", text=("t" * 99 + "\n") * (octets // 100), request_id=name)


def _results(kind: str, address: str, token: str, outgoing: list[OutgoingMail]) -> dict[str, MailResult]:
    async def collect() -> list[MailResult]:
        """Return the results of the client that is awaited."""
        async with Client(address, token=token) as client:
            return [result async for result in client.send_mails(outgoing)]

    if kind == "async":
        found = asyncio.run(collect())
    else:
        with SyncClient(address, token=token) as client:
            found = list(client.send_mails(outgoing))
    assert len(found) == len(outgoing)
    return {result.request_id: result for result in found}


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_stream_of_large_mails(otpmail: Namespace, kind: str) -> None:
    """Mails that are too large for one message together go in several."""
    outgoing = [_mail(str(number), 500_000) for number in range(30)]
    results = _results(kind, otpmail.address, otpmail.token, outgoing)
    assert [results[mail.request_id].error for mail in outgoing] == [None] * 30


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_mail_of_a_stream_that_no_message_can_have(otpmail: Namespace, kind: str) -> None:
    """It has an error which says what is too large, and the mails around it are sent, each once."""
    for turn in range(3):  # which of gRPC's two ends of such a stream comes is a matter of luck
        names = [f"{turn}-{name}" for name in ("before", "large", "after")]
        outgoing = [_mail(name, 12_000_000 if "large" in name else 100) for name in names]
        results = _results(kind, otpmail.address, otpmail.token, outgoing)
        error = results[names[1]].error
        assert isinstance(error, errors.InvalidRequest)
        assert str(error).endswith(
            f" octets, and the service takes {_MOST} at most: send less, or raise MAIL_MAX_BYTES"
        )
        assert [results[names[0]].error, results[names[2]].error] == [None, None]
    assert len(otpmail.mails) == 6


def test_a_mail_that_no_message_can_have(otpmail: Namespace) -> None:
    """One mail that is too large is a wrong request, rather than a limit that ends."""
    with SyncClient(otpmail.address, token=otpmail.token) as client, pytest.raises(errors.InvalidRequest) as failed:
        client.send_mail("ada@example.org", "Hi", "t" * 12_000_000)
    assert f" octets, and the service takes {_MOST} at most" in str(failed.value)


class _BrokenInWrites:
    """A channel of grpc.aio whose streams break in their first write, and which counts the questions for its limit."""

    def __init__(self, asked: grpc.StatusCode, words: str) -> None:
        self.questions = self.streams = 0
        self.on_break: Callable[[], Any] = lambda: None
        self._asked = asked, words

    async def close(self) -> None:
        """Do nothing."""

    def unary_unary(self, *_: Any, **__: Any) -> Callable[..., Awaitable[None]]:
        """Return the method that the limit is asked by."""

        async def answer(*_: Any, **__: Any) -> None:
            """Fail as the test wants it."""
            self.questions += 1
            raise _status(*self._asked)

        return answer

    def stream_stream(self, *_: Any, **__: Any) -> Callable[..., _BrokenStream]:
        """Return the method that begins a stream."""

        def begin(**_: Any) -> _BrokenStream:
            """Begin one that breaks."""
            self.streams += 1
            return _BrokenStream(self.on_break)

        return begin


class _BrokenStream:
    """A stream that breaks in its first write, of whose status grpc.aio keeps nothing."""

    def __init__(self, on_break: Callable[[], Any]) -> None:
        self._broken = asyncio.Event()
        self._on_break = on_break

    async def write(self, _: Any) -> None:
        """Break."""
        self._broken.set()
        raise asyncio.InvalidStateError

    async def read(self) -> None:
        """Wait until it breaks, and raise what grpc.aio has for it."""
        await self._broken.wait()
        self._on_break()
        raise _status(grpc.StatusCode.INTERNAL, "Internal error from Core")

    def cancel(self) -> None:
        """Do nothing."""


def _status(code: grpc.StatusCode, words: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), words)


@pytest.mark.parametrize(
    ("asked", "words", "questions"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "id: is too long", 1),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than max (600100 vs. 10000000)", 1),
        (grpc.StatusCode.UNAVAILABLE, "Connection reset by peer", 5),
    ],
)
async def test_the_limit_is_asked_once(
    asked: grpc.StatusCode, words: str, questions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one stream after another breaks in a large mail, the service is asked until it has answered once."""

    async def sleep(_: float) -> None:
        """Return at once."""

    channel = _BrokenInWrites(asked, words)
    monkeypatch.setattr(grpc.aio, "insecure_channel", lambda *_: channel)
    async with Client("127.0.0.1:1", token="", sleep=sleep) as client:
        with pytest.raises(errors.Unavailable, match="while a mail was written"):
            _ = [result async for result in client.send_mails([_mail("large", 600_000)])]
    assert (channel.streams, channel.questions) == (5, questions)


async def test_a_client_that_is_closed_as_a_stream_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller gets Closed. The service is not asked for its limit, since gRPC has another error for that."""
    channel = _BrokenInWrites(grpc.StatusCode.INVALID_ARGUMENT, "id: is too long")
    monkeypatch.setattr(grpc.aio, "insecure_channel", lambda *_: channel)
    async with Client("127.0.0.1:1", token="") as client, asyncio.TaskGroup() as group:
        channel.on_break = lambda: group.create_task(client.close())  # as the stream ends
        with pytest.raises(errors.Closed):
            _ = [result async for result in client.send_mails([_mail("large", 600_000)])]
    assert (channel.streams, channel.questions) == (1, 0)


def test_messages_have_a_size() -> None:
    """A message ends with the mail that brings it to 512 KiB, or with the hundredth."""
    small = [outgoing_request(_mail(str(number), 100)) for number in range(250)]
    assert [len(each.mails) for each in messages(small)] == [100, 100, 50]
    large = [outgoing_request(_mail(str(number), 200_000)) for number in range(7)]
    assert [len(each.mails) for each in messages(large)] == [3, 3, 1]
    assert list(messages([])) == []


def test_a_connection_that_is_lost_in_a_write() -> None:
    """grpc.aio has words of its own for it. It is no fault of the service, and the stream goes on over the next one."""
    error = error_of(grpc.StatusCode.INTERNAL, "Internal error from Core", (), "mail.example:40700")
    assert isinstance(error, errors.Unavailable)
    assert str(error) == "the connection to mail.example:40700 ended while a mail was written"
    assert isinstance(error_of(grpc.StatusCode.INTERNAL, "a fault", (), "mail.example:40700"), errors.ServiceError)
