"""Requests of every shape to every method: none of them holds the loop, and each has a status that is meant."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from attacks.calling import methods_of, status_of_number, statuses
from attacks.probe import ProbedService
from attacks.shapes import Shape, shapes_of
from otpmail.original import mail_pb2 as original_pb2
from otpmail.v1 import address_pb2, mail_pb2, otp_pb2
from relay import Certificates, Faults, Relay
from service import relay_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from google.protobuf.descriptor import MethodDescriptor
    from google.protobuf.message import Message

LARGEST = (11 << 20) - 4096
"""Octets of the largest request that gRPC lets through, less what stands around what fills it."""

FITTING = 7_000_000
"""Octets that are a mail within MAIL_MAX_BYTES in most encodings."""

SMALL = (64 << 10) - 200
"""Octets of a request that protobuf parses without a look at its fields."""

_IN_THE_SHORT_FORM = 12  # shapes for each method, chosen by chance
_SECONDS = 30.0
_NUMBERS = count()
_OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)
_NOT_MEANT = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED}
_METHODS: list[Any] = [
    *methods_of("v1"),
    *methods_of("original"),
    *health_pb2.DESCRIPTOR.services_by_name["Health"].methods,
]


def _good(kind: str) -> bytes:
    """The fields that make a message good but for what follows. Each mail has a request id of its own."""
    address = "ada@example.org"
    good: dict[str, Message] = {
        "otpmail.v1.SendCodeRequest": otp_pb2.SendCodeRequest(email=address),
        "otpmail.v1.ValidateCodeRequest": otp_pb2.ValidateCodeRequest(email=address, code="1"),
        "otpmail.v1.RevokeCodeRequest": otp_pb2.RevokeCodeRequest(email=address),
        "otpmail.v1.GetAddressRequest": address_pb2.GetAddressRequest(email=address),
        "otpmail.v1.ReleaseAddressRequest": address_pb2.ReleaseAddressRequest(email=address, budgets=True),
        "otpmail.v1.ForgetAddressRequest": address_pb2.ForgetAddressRequest(email=address),
        "otpmail.v1.SendMailRequest": mail_pb2.SendMailRequest(to=[address], request_id=str(next(_NUMBERS))),
        "mail.SendCodeRequest": original_pb2.SendCodeRequest(email=address),
        "mail.ValidateCodeRequest": original_pb2.ValidateCodeRequest(email=address, otpCode="1"),
        "mail.SendEmailRequest": original_pb2.SendEmailRequest(to=address),
    }
    return good[kind].SerializeToString() if kind in good else b""


@pytest.fixture(params=["uvloop", pytest.param("asyncio", marks=pytest.mark.full)])
async def service(
    request: pytest.FixtureRequest, certificates: Certificates, tmp_path: Path
) -> AsyncIterator[ProbedService]:
    """A service whose loop is measured, and which logs everything."""
    async with Relay(Faults(security="plain"), certificates=certificates) as relay:
        settings = relay_settings(relay, certificates, tmp_path / "token")
        async with ProbedService(tmp_path, loop=request.param, LOG_LEVEL="debug", **settings) as service:
            await service.wait_until_serving()
            yield service


def _chosen(method: MethodDescriptor, *, full: bool) -> list[tuple[Shape, int]]:
    """The shapes for a method, with their sizes."""
    shapes = [(shape, size) for shape in shapes_of(method.input_type, _good) for size in (LARGEST, FITTING, SMALL)]
    if full or len(shapes) <= _IN_THE_SHORT_FORM:
        return shapes
    return random.Random(method.full_name).sample(shapes, _IN_THE_SHORT_FORM)


async def _attack(
    service: ProbedService, method: MethodDescriptor, shape: Shape, size: int, codes: set[grpc.StatusCode]
) -> None:
    codes |= await statuses(service.channel, method, shape.build(size))


@pytest.mark.parametrize("method", _METHODS, ids=lambda method: method.full_name)
async def test_no_request_holds_the_loop(
    service: ProbedService, method: MethodDescriptor, longest_turn: float, *, full: bool
) -> None:
    """No request of any shape holds the loop for more than 30 ms, and none is answered with INTERNAL or UNKNOWN."""
    too_long: dict[str, int] = {}
    not_meant: dict[str, set[grpc.StatusCode]] = {}
    for shape, size in _chosen(method, full=full):
        name = f"{shape.name}, {size}"
        codes: set[grpc.StatusCode] = set()
        turn = await service.longest_turn_of(partial(_attack, service, method, shape, size, codes), within=longest_turn)
        if turn > longest_turn:
            too_long[name] = round(turn * 1000)
        if codes & _NOT_MEANT:
            not_meant[name] = codes
    assert not too_long
    assert not not_meant
    assert not [line for line in service.output if "Traceback" in line]
    assert not [line for line in service.log if line["level"] in {"error", "warning"}]


async def _refusal(service: ProbedService, method: MethodDescriptor, octets: bytes) -> tuple[grpc.StatusCode, str]:
    """Return the status of a call with its words, or those of the first result of a stream."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    stub: Any = service.channel.stream_stream if method.client_streaming else service.channel.unary_stream
    call = stub(path)(iter([octets]) if method.client_streaming else octets, timeout=_SECONDS)
    try:
        async for response in call:
            result = mail_pb2.SendMailsResponse.FromString(response).results[0]
            return status_of_number(result.code), result.message
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    return await call.code(), ""


@pytest.mark.parametrize("octets", [b"\xff" * 20, b"\x0a\x02\xff\xfe"], ids=["no message", "bad UTF-8"])
async def test_octets_that_are_no_request_are_told_so(service: ProbedService, octets: bytes) -> None:
    """Octets that are no request are INVALID_ARGUMENT at every method, in words that name the message."""
    for method in _METHODS:
        first = method.input_type.fields_by_number.get(1)
        if octets != b"\xff" * 20 and (first is None or first.cpp_type == first.CPPTYPE_INT32):
            continue  # it has no text there
        code, words = await _refusal(service, method, octets)
        assert code is grpc.StatusCode.INVALID_ARGUMENT, method.full_name
        assert "request" in words.lower(), method.full_name
    assert not [line for line in service.output if "Traceback" in line]
    assert not [line for line in service.log if line["level"] in {"error", "warning"}]


async def test_thousands_of_watchers_of_one_mail_go_at_once(
    certificates: Certificates, tmp_path: Path, longest_turn: float, *, full: bool
) -> None:
    """Thousands of watchers of one mail that are cancelled at once hold the loop no longer than one request may."""
    watchers = 6000 if full else 1000
    async with Relay(Faults(security="plain", silent_at="MAIL"), certificates=certificates) as relay:
        settings = relay_settings(relay, certificates, tmp_path / "token")
        async with ProbedService(tmp_path, **settings) as service:
            await service.wait_until_serving()
            request = mail_pb2.SendMailRequest(to=["ada@example.org"], wait_for=mail_pb2.WAIT_FOR_QUEUE)
            mail = (await service.mail.SendMail(request)).mail

            async def come_and_go() -> None:
                channels = [grpc.aio.insecure_channel(service.address, _OWN_CONNECTION) for _ in range(watchers // 50)]
                calls: list[Any] = []
                for channel in channels:
                    watch: Any = channel.unary_stream("/otpmail.v1.MailService/WatchMail")
                    some = [watch(mail_pb2.WatchMailRequest(id=mail.id).SerializeToString()) for _ in range(50)]
                    await asyncio.gather(*(call.read() for call in some))
                    calls += some
                service.reset_probe()
                await asyncio.gather(*(channel.close() for channel in channels))
                assert (await service.mail.GetMail(mail_pb2.GetMailRequest(id=mail.id))).id == mail.id

            assert await service.longest_turn_of(come_and_go, within=longest_turn) <= longest_turn


def _batch(stream: int, mails: int) -> bytes:
    batch = mail_pb2.SendMailsRequest()
    for number in range(mails):
        batch.mails.add(to=[f"p{number}@example.org"], subject="s", text="t" * 50, request_id=f"{stream}-{number}")
    return batch.SerializeToString()


@pytest.mark.parametrize(("streams", "mails"), [(50, 100), (8, 1200)], ids=["small batches", "large batches"])
async def test_many_streams_hold_the_loop_no_longer_than_one(
    service: ProbedService, streams: int, mails: int, longest_turn: float, *, full: bool
) -> None:
    """Streams that send batches at the same time hold the loop no longer than one does, and all mails are sent."""
    assert (len(_batch(0, mails)) > SMALL) == (mails > 1000)

    async def send(number: int) -> int:
        method: Any = service.channel.stream_stream("/otpmail.v1.MailService/SendMails")
        results = 0
        async for response in method(iter([_batch(number, mails)]), timeout=_SECONDS):
            found = mail_pb2.SendMailsResponse.FromString(response).results
            assert {result.code for result in found} == {0}
            results += len(found)
        return results

    async def send_all() -> None:
        for _ in range(3 if full else 1):
            answered = await asyncio.gather(*(send(next(_NUMBERS)) for _ in range(streams)))
            assert answered == [mails] * streams

    assert await service.longest_turn_of(send_all, within=longest_turn) <= longest_turn
