"""Calls of any method by its descriptor, with octets as the request: what stubs would not let through."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from otpmail.original import mail_pb2 as original_pb2
from otpmail.v1 import address_pb2, mail_pb2, otp_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.descriptor import MethodDescriptor

_SECONDS = 30.0
_MOST_TRIES = 50
_OF_THE_CLIENT = "Internal error from Core"


def methods_of(contract: str) -> list[MethodDescriptor]:
    """Return all methods of a contract, `v1` or `original`."""
    files = (otp_pb2, mail_pb2, address_pb2) if contract == "v1" else (original_pb2,)
    services = (service for file in files for service in file.DESCRIPTOR.services_by_name.values())
    return [method for service in services for method in service.methods]


async def statuses(
    channel: Any, method: MethodDescriptor, request: bytes, metadata: Sequence[tuple[str, str | bytes]] = ()
) -> set[grpc.StatusCode]:
    """Send octets to a method; returns the status, and those of the results of a stream.

    gRPC's client says INTERNAL itself if the server ends a stream while it is being written. It is then sent again.
    """
    for _ in range(_MOST_TRIES):
        codes, details = await _try(channel, method, request, metadata)
        if details != _OF_THE_CLIENT:
            break
    return codes


async def _try(
    channel: Any, method: MethodDescriptor, request: bytes, metadata: Sequence[tuple[str, str | bytes]]
) -> tuple[set[grpc.StatusCode], str]:
    path = f"/{method.containing_service.full_name}/{method.name}"
    options: dict[str, Any] = {"timeout": _SECONDS, "metadata": metadata}
    codes: set[grpc.StatusCode] = set()
    call: Any
    if method.client_streaming:
        call = channel.stream_stream(path)(iter([request]), **options)
    elif method.server_streaming:
        call = channel.unary_stream(path)(request, **options)
    else:
        call = channel.unary_unary(path)(request, **options)
    try:
        if method.server_streaming:
            async for response in call:
                if method.name == "SendMails":
                    codes |= _codes_of(response)
                elif path.startswith("/grpc.health"):
                    call.cancel()  # a watch has no end
        else:
            await call
    except (grpc.aio.AioRpcError, asyncio.CancelledError):
        pass
    codes.add(await call.code())
    return codes, await call.details() or ""


def _codes_of(response: bytes) -> set[grpc.StatusCode]:
    return {status_of_number(result.code) for result in mail_pb2.SendMailsResponse.FromString(response).results}


def status_of_number(number: int) -> grpc.StatusCode:
    """Return the status with this number, as in a result of SendMails."""
    return next(code for code in grpc.StatusCode if code.value[0] == number)
