"""Serves gRPC reflection as v1 and as v1alpha: new clients ask for the one, older ones know only the other.

The library has v1alpha alone. Both have the same messages but for the name of their package, so v1 is made from it.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import grpc
from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

from otpmail.api.calls import Context
from otpmail.api.parse import parse
from otpmail.limits.streams import StreamLimit

V1 = "grpc.reflection.v1.ServerReflection"
V1ALPHA: str = reflection.SERVICE_NAME

Read = Callable[[Context], Awaitable[Any]]
"""Reads the next request of a call as octets, or EOF: `Reads.read`."""

File = Any  # a FileDescriptor: the type stubs know two of that name

_FILE = "grpc/reflection/v1/reflection.proto"


def add_reflection(services: Mapping[str, File], server: Any, read: Read, streams: StreamLimit) -> None:
    """Add both versions to what takes the place of a server. They describe the services, by name, and each other.

    `read` bounds how many requests are half received, as it does for calls with one request, and `streams` how many
    calls there are.
    """
    pool = DescriptorPool()  # of our own: in the process's pool, v1 would collide with one that a library brings
    for file in (*services.values(), reflection_pb2.DESCRIPTOR):
        _add_file(pool, file)
    pool.Add(_as_v1(_proto(reflection_pb2.DESCRIPTOR)))
    servicer: Any = reflection.aio.ReflectionServicer((*services, V1, V1ALPHA), pool=pool)

    async def answer(_: Any, context: Context) -> None:
        """Answer the requests of one stream, for as long as it may be open."""
        with streams.open(context.peer()):
            async for response in servicer.ServerReflectionInfo(_requests(context, read), context):
                await context.write(response)

    serialize = reflection_pb2.ServerReflectionResponse.SerializeToString
    handler: Any = grpc.stream_stream_rpc_method_handler(answer, None, serialize)
    for version in (V1, V1ALPHA):
        server.add_registered_method_handlers(version, {"ServerReflectionInfo": handler})


async def _requests(context: Context, read: Read) -> AsyncIterator[ServerReflectionRequest]:
    while (octets := await read(context)) is not grpc.aio.EOF:
        yield parse(octets, ServerReflectionRequest)


def _add_file(pool: DescriptorPool, file: File) -> None:
    """Add a file after those that it imports; one that is there already is no error."""
    for imported in file.dependencies:
        _add_file(pool, imported)
    pool.Add(_proto(file))


def _proto(file: File) -> FileDescriptorProto:
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    return proto


def _as_v1(alpha: FileDescriptorProto) -> FileDescriptorProto:
    text = text_format.MessageToString(alpha).replace(alpha.package, V1.rpartition(".")[0])
    proto = text_format.Parse(text, FileDescriptorProto())
    proto.name = _FILE
    proto.ClearField("options")  # names of packages for Java and Go, and that v1alpha is deprecated
    return proto
