"""Memory, descriptors and half requests: in 512 MiB nothing ends the process, or loses a mail that it guaranteed."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, suppress
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from attacks.limited import LimitedService
from calls import reason, retry_seconds, scrape
from http2 import Connection, message
from otpmail.v1 import mail_pb2, mail_pb2_grpc, otp_pb2
from relay import Certificates, Faults, Relay
from service import relay_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from service import Service

pytestmark = pytest.mark.timeout(300)

LATER = "later@slow.example"
"""Whom the relay defers."""

_NUMBERS = count()
TEN_MB = 10_000_000
ELEVEN_MIB = 11 << 20
ENOUGH = 10_900_000  # octets of a message of eleven MiB, so that it never ends
QUEUED, SENDING = mail_pb2.Mail.STATE_QUEUED, mail_pb2.Mail.STATE_SENDING
SEND_MAIL, SEND_MAILS = "/otpmail.v1.MailService/SendMail", "/otpmail.v1.MailService/SendMails"
SEND_CODE, ORIGINAL = "/otpmail.v1.OtpService/SendCode", "/mail.MailService/SendMail"


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    """Start a relay that defers one recipient."""
    async with Relay(Faults(auth=(), refuse_recipients={LATER: "451 4.7.1 later"})) as relay:
        yield relay


@pytest.fixture
async def service(relay: Relay, certificates: Certificates, tmp_path: Path) -> AsyncIterator[LimitedService]:
    """Start the service in its 512 MiB."""
    settings = relay_settings(relay, certificates, tmp_path / "token")
    async with LimitedService(HTTP_PORT=0, OTP_RESEND_SECONDS=1, **settings) as service:
        await service.wait_until_serving()
        yield service


async def _code_works(service: Service, person: str) -> float:
    """Send a code over a connection of its own; returns the seconds that this took."""
    begun = time.monotonic()
    async with grpc.aio.insecure_channel(service.address) as channel:
        call: Any = channel.unary_unary(SEND_CODE, otp_pb2.SendCodeRequest.SerializeToString)
        await call(otp_pb2.SendCodeRequest(email=f"{person}@example.org"), timeout=20)
    return time.monotonic() - begun


async def _code_goes_out(service: Service) -> None:
    """Check that codes go out within a second: the machine may be busy with others at one moment, hardly at five."""
    seconds = [await _code_works(service, f"somebody{next(_NUMBERS)}") for _ in range(5)]
    assert min(seconds) < 1, seconds


async def _is_answered(service: Service) -> bool:
    """Whether a code goes out within a second: gRPC itself ends calls while too many have not begun."""
    try:
        return await _code_works(service, "ada") < 1
    except grpc.aio.AioRpcError:
        return False


async def _wait_until_answered(service: Service, *, full: bool) -> None:
    async with asyncio.timeout(20 if full else 100):  # a slow machine needs some seconds for what is sent
        while not await _is_answered(service):
            pass


def _alive(service: LimitedService) -> None:
    assert service.exit_code is None
    assert service.peak < service.allowed


def _large_mail(request_id: str = "") -> mail_pb2.SendMailRequest:
    text = ("x" * 70 + "\n") * (TEN_MB // 71)
    return mail_pb2.SendMailRequest(to=[LATER], text=text, request_id=request_id, wait_for=mail_pb2.WAIT_FOR_QUEUE)


async def _channels(stack: AsyncExitStack, service: Service, count: int) -> list[grpc.aio.Channel]:
    """Return channels with a connection each, which send mails of any size."""
    options = (("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1))
    return [
        await stack.enter_async_context(grpc.aio.insecure_channel(service.address, options=options))
        for _ in range(count)
    ]


@pytest.mark.parametrize("connections", [1, 12])
async def test_large_guaranteed_mails(service: LimitedService, full: bool, connections: int) -> None:  # noqa: FBT001  a fixture
    """Of mails of 10 MB that come at once those are kept that fit, others are refused, and a code still goes out."""
    kept: list[str] = []
    refused: list[grpc.aio.AioRpcError] = []
    async with AsyncExitStack() as stack:
        channels = await _channels(stack, service, connections)

        async def send(channel: grpc.aio.Channel) -> None:
            try:
                kept.append((await mail_pb2_grpc.MailServiceStub(channel).SendMail(_large_mail())).mail.id)
            except grpc.aio.AioRpcError as error:
                refused.append(error)

        await asyncio.gather(*(send(channels[number % connections]) for number in range(120 if full else 60)))
    assert len(kept) >= 5  # fewer the more of them are on their way at once
    assert refused
    for error in refused:
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert reason(error) == "MEMORY_FULL"
        assert retry_seconds(error) > 0
    await _code_goes_out(service)
    await _all_kept(service, kept)
    _alive(service)


async def test_large_batches(service: LimitedService, full: bool) -> None:  # noqa: FBT001  a fixture
    """Streams that bring batches of 10 MB at once lose none that was answered, and leave memory for a code."""
    kept: list[str] = []
    async with AsyncExitStack() as stack:
        channels = await _channels(stack, service, 4)

        async def bring(number: int, most_seconds: float = 10) -> None:
            stub: mail_pb2_grpc.MailServiceAsyncStub = mail_pb2_grpc.MailServiceStub(channels[number % 4])

            async def batches() -> AsyncIterator[mail_pb2.SendMailsRequest]:
                for place in range(2):
                    yield mail_pb2.SendMailsRequest(mails=[_large_mail(f"{number}-{place}")])

            with suppress(grpc.aio.AioRpcError, TimeoutError):
                async with asyncio.timeout(most_seconds):
                    async for response in stub.SendMails(batches()):
                        kept.extend(result.mail.id for result in response.results if result.mail.id)

        await asyncio.gather(*(bring(number) for number in range(60 if full else 30)))
        if not kept:  # all connections were closed, as a last resort; a batch alone is kept
            await bring(60, 60)
    assert kept
    await _code_goes_out(service)
    await _all_kept(service, kept)
    _alive(service)


async def _all_kept(service: LimitedService, kept: list[str]) -> None:
    """Check that no mail is lost that was answered, and that what is unsettled is within the budget."""
    states = [(await service.mail.GetMail(mail_pb2.GetMailRequest(id=mail))).state for mail in kept]
    assert set(states) <= {QUEUED, SENDING}
    shown = await scrape(service)
    assert shown["otpmail_mails_unsettled"] >= len(kept)
    assert shown['otpmail_memory_bytes{part="unsettled"}'] <= shown["otpmail_memory_limit_bytes"]
    assert shown["otpmail_memory_limit_bytes"] <= service.allowed / 2


async def test_remembered_mails(service: LimitedService, full: bool) -> None:  # noqa: FBT001  a fixture
    """Settled mails for a hundred recipients each are forgotten, the oldest first, before they take too much."""
    people = [f"person-{number}-of-a-hundred-who-get-this-mail@example.org" for number in range(100)]
    ids: list[str] = []

    async def send(count: int) -> None:
        for _ in range(count):
            request = mail_pb2.SendMailRequest(to=people, text="hello", request_id=f"r{len(ids)}-{id(asyncio)}")
            ids.append((await service.mail.SendMail(request)).mail.id)

    await asyncio.gather(*(send(2000 if full else 100) for _ in range(10)))
    shown = await scrape(service)
    assert 0 < shown['otpmail_memory_bytes{part="remembered"}'] <= 0.55 * shown["otpmail_memory_limit_bytes"]
    assert (await service.mail.GetMail(mail_pb2.GetMailRequest(id=ids[-1]))).id == ids[-1]
    await _code_goes_out(service)
    _alive(service)


@pytest.mark.parametrize("path", [SEND_MAIL, SEND_MAILS, SEND_CODE, ORIGINAL])
@pytest.mark.parametrize("connections", [1, 80])
async def test_messages_that_never_end(service: LimitedService, path: str, connections: int, full: bool) -> None:  # noqa: FBT001  a fixture
    """Eighty half messages of 11 MiB, over one connection or each over its own, leave memory and time for a code."""
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(Connection(service.address)) for _ in range(connections)]
        calls = [(opened[number % connections], opened[number % connections].call(path)) for number in range(80)]

        async def send(connection: Connection, call: int) -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(8 if full else 3):
                    await connection.send(call, message(ELEVEN_MIB) + bytes(ENOUGH))

        sending = [asyncio.create_task(send(connection, call)) for connection, call in calls]
        # Not before one of them is there, but for its end, or was ended.
        await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
        seconds = [await _code_works(service, "ada")]
        while seconds[-1] >= 1 and not all(task.done() for task in sending):  # by others, or by what is sent
            seconds.append(await _code_works(service, f"ada{len(seconds)}"))
        assert min(seconds) < (1 if full else 10), seconds  # a slow machine has all of it to read meanwhile
        await asyncio.gather(*sending)
        await _code_goes_out(service)
        _alive(service)


async def test_rapid_reset(service: LimitedService, full: bool) -> None:  # noqa: FBT001  a fixture
    """Calls that are reset as they begin (CVE-2023-44487) take bounded memory, and others are answered soon after."""

    async def attack(connection: Connection) -> None:
        for number in range(20_000 if full else 4000):
            connection.reset(connection.call(SEND_MAIL))
            if number % 100 == 0:
                await connection.flush()
                await asyncio.sleep(0)

    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(Connection(service.address)) for _ in range(4)]
        with suppress(ConnectionError):
            await asyncio.gather(*map(attack, opened))
        await _wait_until_answered(service, full=full)
    _alive(service)


async def test_calls_that_wait_for_ever(service: LimitedService, full: bool) -> None:  # noqa: FBT001  a fixture
    """Streams that bring nothing are refused once they take their part of the memory, and codes are not."""
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(Connection(service.address)) for _ in range(10)]
        for connection in opened:
            for _ in range(2000):
                connection.call(SEND_MAILS)
            await connection.flush()
        ends = [asyncio.create_task(connection.one_ended.wait()) for connection in opened]
        done, _ = await asyncio.wait(ends, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        assert done
        await _wait_until_answered(service, full=full)
        _alive(service)


@pytest.mark.full
async def test_codes_of_ever_new_addresses(relay: Relay, certificates: Certificates, tmp_path: Path) -> None:
    """A flood of codes for new addresses is refused at half of the budget; known addresses and mails go on."""
    settings = relay_settings(relay, certificates, tmp_path / "token")
    small = {"MEMORY_MAX_MB": 16, "MAIL_MAX_BYTES": 1 << 20}
    async with LimitedService(HTTP_PORT=0, OTP_RESEND_SECONDS=1, **small, **settings) as service:
        await service.wait_until_serving()
        refused: list[grpc.aio.AioRpcError] = []
        numbers = count()

        async def flood() -> None:
            while not refused:
                request = otp_pb2.SendCodeRequest(email=f"person-{next(numbers)}@example.org")
                try:
                    await service.otp.SendCode(request)
                except grpc.aio.AioRpcError as error:
                    refused.append(error)

        await asyncio.gather(*(flood() for _ in range(64)))
        assert {(error.code(), reason(error)) for error in refused} == {
            (grpc.StatusCode.RESOURCE_EXHAUSTED, "MEMORY_FULL")
        }
        assert next(numbers) > 30_000
        shown = await scrape(service)
        assert shown['otpmail_memory_bytes{part="codes"}'] <= 0.51 * shown["otpmail_memory_limit_bytes"]
        assert await _code_works(service, "person-0") < 1
        assert (await service.mail.SendMail(mail_pb2.SendMailRequest(to=["ada@example.org"], text="t"))).mail.id
        _alive(service)
        assert service.peak < 160 << 20


class FewDescriptors(LimitedService):
    """The service where it may open few files."""

    descriptors = 150


async def test_full_descriptors(relay: Relay, certificates: Certificates, tmp_path: Path) -> None:
    """Callers beyond their number are refused at once, the relay is dialled all the same, and the log says so once."""
    settings = relay_settings(relay, certificates, tmp_path / "token")
    async with FewDescriptors(OTP_RESEND_SECONDS=1, EMAIL_RETRY_SECONDS=0.1, **settings) as service:
        await service.wait_until_serving()
        request = otp_pb2.SendCodeRequest(email="ada@example.org")
        await service.otp.SendCode(request)
        async with AsyncExitStack() as stack:
            opened = [await stack.enter_async_context(Connection(service.address)) for _ in range(200)]
            await service.wait_for_log("connections-full", timeout=20, address=service.address)
            async with asyncio.timeout(20):  # the log may be ahead of what this process has read
                closing = [asyncio.create_task(connection.closed.wait()) for connection in opened]
                for closed in islice(asyncio.as_completed(closing), 51):
                    await closed
            for task in closing:
                task.cancel()
            relay.cut_connections()
            await service.otp.SendCode(otp_pb2.SendCodeRequest(email="grace@example.org"), timeout=20)
        await service.wait_for_log("connections-free", timeout=20)
        assert await _code_works(service, "alan") < 5
        assert len(service.logged("connections-full")) == 1
        assert service.exit_code is None
