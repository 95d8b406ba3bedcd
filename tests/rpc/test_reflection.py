"""Reflection, as a generic client uses it: it lists the services, and gets every file that one of them needs."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from delivery.fakes import Nothing
from otpmail.api.batching import Batching
from otpmail.api.guard import Guard
from otpmail.api.reads import Reads
from otpmail.limits.memory import Memory
from otpmail.limits.streams import StreamLimit
from otpmail.rpc.reflection import V1, V1ALPHA, add_reflection
from otpmail.rpc.server import ENDED
from otpmail.rpc.table import GuardedServer, MethodTable
from otpmail.v1 import mail_pb2, otp_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_FILES: tuple[Any, ...] = (mail_pb2.DESCRIPTOR, otp_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR)
_SERVICES = {service.full_name: file for file in _FILES for service in file.services_by_name.values()}


@asynccontextmanager
async def _serve(budget: int) -> AsyncIterator[grpc.aio.Channel]:
    """Serve reflection alone, with so many octets of memory, to a client."""
    server, methods = grpc.aio.server(), MethodTable()
    reads = Reads(Memory(budget, Nothing(), Nothing()), most_octets=1 << 20, ended=ENDED)
    limit = StreamLimit(1 << 30, of_connection=8)
    add_reflection(_SERVICES, GuardedServer(methods, Guard(Batching(most_seconds=0), {}, reads)), reads.read, limit)
    server.add_generic_rpc_handlers((methods,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(0)


@pytest.fixture
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    """A client of a server with memory for all that it asks."""
    async with _serve(1 << 30) as channel:
        yield channel


async def _ask(channel: grpc.aio.Channel, version: str, **question: Any) -> ServerReflectionResponse:
    method = channel.stream_stream(
        f"/{version}/ServerReflectionInfo",
        request_serializer=ServerReflectionRequest.SerializeToString,
        response_deserializer=ServerReflectionResponse.FromString,
    )
    return await anext(aiter(method(iter([ServerReflectionRequest(**question)]))))


@pytest.mark.parametrize("version", [V1, V1ALPHA])
async def test_each_listed_service_can_be_described(channel: grpc.aio.Channel, version: str) -> None:
    """Each listed service, both versions of reflection among them, comes with all files that it needs."""
    answer = await _ask(channel, version, list_services="*")
    names = [service.name for service in answer.list_services_response.service]
    assert set(names) == {*_SERVICES, V1, V1ALPHA}
    for name in names:
        found = await _ask(channel, version, file_containing_symbol=name)
        files = [
            FileDescriptorProto.FromString(octets) for octets in found.file_descriptor_response.file_descriptor_proto
        ]
        pool = DescriptorPool()
        added: set[str] = set()
        while remaining := [file for file in files if file.name not in added]:
            ready = next(file for file in remaining if added.issuperset(file.dependency))
            pool.Add(ready)
            added.add(ready.name)
        assert pool.FindServiceByName(name).full_name == name


async def test_v1_is_the_published_file(channel: grpc.aio.Channel) -> None:
    """Version 1 has the file name and package under which gRPC publishes it, and nothing of v1alpha."""
    found = await _ask(channel, V1, file_by_filename="grpc/reflection/v1/reflection.proto")
    [octets] = found.file_descriptor_response.file_descriptor_proto
    assert FileDescriptorProto.FromString(octets).package == "grpc.reflection.v1"
    assert b"v1alpha" not in octets


@pytest.mark.parametrize("version", [V1, V1ALPHA])
async def test_what_is_not_there(channel: grpc.aio.Channel, version: str) -> None:
    """A name that is not known is answered with NOT_FOUND, and the stream goes on."""
    for question in ({"file_by_filename": "x"}, {"file_containing_symbol": "otpmail.v1.Nothing"}):
        answer = await _ask(channel, version, **question)
        assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


@pytest.mark.parametrize("version", [V1, V1ALPHA])
async def test_octets_that_are_no_request(channel: grpc.aio.Channel, version: str) -> None:
    """Octets that are no request end the stream with INVALID_ARGUMENT, in fixed words."""
    method: Any = channel.stream_stream(f"/{version}/ServerReflectionInfo")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(aiter(method(iter([b"\xff" * 20]))))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "request: is no grpc.reflection.v1alpha.ServerReflectionRequest"


@pytest.mark.parametrize("version", [V1, V1ALPHA])
async def test_few_requests_are_half_received(version: str) -> None:
    """More streams than there is memory for, each with a request that does not come, are ended until few are left."""
    async with _serve(16 << 20) as channel:
        method: Any = channel.stream_stream(f"/{version}/ServerReflectionInfo")
        calls = [method() for _ in range(6)]
        reading = [asyncio.create_task(call.read()) for call in calls]
        async with asyncio.timeout(20):
            while len([one for one in reading if one.done()]) < 2:
                await asyncio.wait([one for one in reading if not one.done()], return_when=asyncio.FIRST_COMPLETED)
        for call in calls:
            call.cancel()
        ends = await asyncio.gather(*reading, return_exceptions=True)
    refused = [end for end in ends if isinstance(end, grpc.aio.AioRpcError)]
    assert [end.code() for end in refused] == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 2


async def test_a_connection_has_few_streams(channel: grpc.aio.Channel) -> None:
    """More streams of a connection than it may have, of both versions together, are RESOURCE_EXHAUSTED."""
    question = ServerReflectionRequest(list_services="*").SerializeToString()
    calls: list[Any] = []
    for number in range(9):
        method: Any = channel.stream_stream(f"/{(V1, V1ALPHA)[number % 2]}/ServerReflectionInfo")
        calls.append(call := method())
        await call.write(question)
        if number < 8:
            assert await call.read()
    assert await calls[-1].code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    for call in calls:
        call.cancel()
