"""The calls of the tests of attacks."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest

from attacks.calling import statuses
from otpmail.v1 import mail_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

_METHOD = mail_pb2.DESCRIPTOR.services_by_name["MailService"].methods_by_name["SendMails"]


def _refuse(_: object, context: Any) -> Iterator[bytes]:
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "no")
    yield b""


@pytest.fixture
def refusing() -> Iterator[str]:
    """Run a server that ends each stream before it is read."""
    server = grpc.server(ThreadPoolExecutor(8))
    method: Any = grpc.stream_stream_rpc_method_handler(_refuse)
    service = _METHOD.containing_service.full_name
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {_METHOD.name: method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


async def test_a_stream_that_ends_while_it_is_written_has_the_servers_status(refusing: str) -> None:
    """The status is that of the server, and not the one that gRPC's client makes up."""
    async with grpc.aio.insecure_channel(refusing, (("grpc.enable_http_proxy", 0),)) as channel:
        for _ in range(20):
            answers = await asyncio.gather(*(statuses(channel, _METHOD, b"") for _ in range(20)))
            assert answers == [{grpc.StatusCode.UNAUTHENTICATED}] * 20
