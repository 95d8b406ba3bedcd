"""A client that is closed while its calls are under way: each ends by an error of the client's own."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from client.scripted import Failure, Scripted
from otpmail import client as errors
from otpmail.client import Client, OutgoingMail, SyncClient
from otpmail.client.endpoint import Endpoint
from otpmail.client.status import connection_problem, error_of
from otpmail.v1 import mail_pb2, otp_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

ADA = "ada@example.org"
_CALLS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "unary": (lambda client: client.send_code(ADA), None),
    "watch": (lambda client: client.watch_mail("m"), [mail_pb2.Mail(id="m"), None]),
    "send": (lambda client: client.send_mails([OutgoingMail(to=ADA)]), [None]),
}


async def _collect(made: Any) -> Any:
    return [each async for each in made] if inspect.isasyncgen(made) else await made


def _take_all(made: Any) -> Any:
    return list(made) if inspect.isgenerator(made) else made


async def _until_asked(service: Scripted) -> None:
    async with asyncio.timeout(20):
        while not service.requests:  # noqa: ASYNC110  the service has no event for it
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("call", [*_CALLS])
async def test_a_client_that_is_closed_during_a_call(call: str) -> None:
    """A task that awaits the call gets an Error. A CancelledError would end it as if somebody had cancelled it."""
    make, answer = _CALLS[call]
    async with Scripted(answer) as service:
        client = Client(service.address)
        task = asyncio.create_task(_collect(make(client)))
        await _until_asked(service)
        await client.close()
        with pytest.raises(errors.Closed, match="the client was closed during the call"):
            await task


@pytest.mark.parametrize("call", [*_CALLS])
async def test_a_client_that_is_closed_by_another_thread(call: str) -> None:
    """So it is where the call blocks."""
    make, answer = _CALLS[call]
    async with Scripted(answer) as service:
        client = SyncClient(service.address)

        task = asyncio.create_task(asyncio.to_thread(lambda: _take_all(make(client))))
        await _until_asked(service)
        client.close()
        with pytest.raises(errors.Closed, match="the client was closed during the call"):
            await task


@pytest.mark.parametrize("call", [*_CALLS])
async def test_a_caller_that_is_cancelled_is_no_client_that_is_closed(call: str) -> None:
    """The cancel of a caller stays one, also if the client is closed then, as `async with` does."""
    make, answer = _CALLS[call]
    async with Scripted(answer) as service:

        async def run() -> None:
            """Make the call with a client that is closed at the end."""
            async with Client(service.address) as client:
                await _collect(make(client))

        task = asyncio.create_task(run())
        await _until_asked(service)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("call", [*_CALLS])
async def test_a_client_that_is_closed_between_two_attempts(call: str) -> None:
    """No further attempt is made, over a connection that `close` was to end. A later call opens a new one."""
    make, answer = _CALLS[call]
    failure = Failure(grpc.StatusCode.UNAVAILABLE, "away")
    down = failure if answer is None else [failure]
    async with Scripted(down, otp_pb2.SendCodeResponse(), down) as service:

        async def close(_: float) -> None:
            """Close the client instead of a wait."""
            await client.close()

        client = Client(service.address, sleep=close)
        with pytest.raises(errors.Closed):
            await _collect(make(client))
        assert (await client.send_code(ADA, timeout=20)) is not None
        blocking = SyncClient(service.address, sleep=lambda _: blocking.close())
        with pytest.raises(errors.Closed):
            await asyncio.to_thread(lambda: _take_all(make(blocking)))
    assert len(service.requests) == 3


@pytest.mark.parametrize("call", [*_CALLS])
def test_a_client_that_is_closed_while_a_call_begins(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is in the moment before gRPC has the call, for which it has a ValueError."""
    make, _ = _CALLS[call]
    client = SyncClient("127.0.0.1:1")

    def close(_: Endpoint) -> tuple[tuple[str, str], ...]:
        """Close the client, as another thread may, once all but the metadata is there."""
        client.close()
        return ()

    monkeypatch.setattr(Endpoint, "metadata", close)
    with pytest.raises(errors.Closed):
        _take_all(make(client))


@pytest.mark.parametrize(
    ("details", "words"),
    [
        ("failed to connect to all addresses; last error: (Trying to connect an http1.x server)", "HTTP_PORT"),
        ("Tls handshake failed: WRONG_VERSION_NUMBER", "does not speak TLS"),
        ("Tls handshake failed: CERTIFICATE_VERIFY_FAILED", "OTPMAIL_CA_FILE"),
        ("Hostname Verification Check failed.", "OTPMAIL_TLS_NAME"),
        ("UNKNOWN: Failed to create security handshaker.", "holds no certificate"),
        ("failed to connect to all addresses; last error: Socket closed", "if it speaks TLS"),
    ],
)
def test_what_to_change_where_no_call_arrives(details: str, words: str) -> None:
    """The client says what to change, as the command line does, rather than that no service answers."""
    error = error_of(grpc.StatusCode.UNAVAILABLE, details, None, "localhost:1")
    assert isinstance(error, errors.Unreachable)
    assert str(error).startswith("no call reaches the service on localhost:1: ")
    assert words in str(error)


@pytest.mark.parametrize(
    ("details", "cause"),
    [
        ("failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Connection refused", ""),
        ("failed to connect to all addresses; last error: unix:/run/s: error: No such file or directory", ""),
        ("failed to connect to all addresses; last error: UNKNOWN: No route to host", ": UNKNOWN: No route to host"),
        ("errors resolving a.example: not found", ": errors resolving a.example: not found"),
    ],
)
def test_what_to_change_where_no_service_answers(details: str, cause: str) -> None:
    """The error says what to start or to set, and the cause where that is more than that nothing listens."""
    error = error_of(grpc.StatusCode.UNAVAILABLE, details, None, "localhost:1")
    assert isinstance(error, errors.Unreachable)
    assert str(error) == (
        f"no service answers on localhost:1{cause}; start one (otpmail serve, otpmail dev), or name another by server= "
        "or OTPMAIL_SERVER"
    )


def test_a_connection_that_ends_during_a_call() -> None:
    """A service that ends says nothing of TLS."""
    assert connection_problem("Socket closed") == ""
    error = error_of(grpc.StatusCode.UNAVAILABLE, "Socket closed", None, "localhost:1")
    assert str(error) == "no service answers on localhost:1: Socket closed"
