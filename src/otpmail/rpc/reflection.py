"""Serves gRPC reflection as v1 and as v1alpha: new clients ask for the one, older ones know only the other.

The library has v1alpha alone. Both have the same messages but for the name of their package, so v1 is made from it.
"""

from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

V1 = "grpc.reflection.v1.ServerReflection"
V1ALPHA: str = reflection.SERVICE_NAME

File = Any  # a FileDescriptor: the type stubs know two of that name

_FILE = "grpc/reflection/v1/reflection.proto"


def add_reflection(services: Mapping[str, File], methods: Any) -> None:
    """Add both versions to `methods`, which take the place of a server. They describe the services and each other."""
    pool = DescriptorPool()  # of our own: in the process's pool, v1 would collide with one that a library brings
    for file in (*services.values(), reflection_pb2.DESCRIPTOR):
        _add_file(pool, file)
    pool.Add(_as_v1(_proto(reflection_pb2.DESCRIPTOR)))
    servicer = reflection.aio.ReflectionServicer((*services, V1, V1ALPHA), pool=pool)
    add_v1alpha: Any = reflection_pb2_grpc.add_ServerReflectionServicer_to_server  # without types in the stubs
    add_v1alpha(servicer, methods)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    methods.add_registered_method_handlers(V1, {"ServerReflectionInfo": handler})


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
