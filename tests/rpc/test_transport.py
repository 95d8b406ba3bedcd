"""The promises of the server's options: metadata, pings, and calls that outlast their connection's age."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from http2 import ENHANCE_YOUR_CALM, Connection, message
from otpmail.rpc.transport import METADATA_OCTETS, PING_SECONDS, server_options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Handlers(grpc.GenericRpcHandler):
    """One unary method, /Wait, which answers when the test lets it; one stream, /Echo, which answers each message."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()
        self.let_go = asyncio.Event()
        self.peers: set[str] = set()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return the handler of a method."""
        if handler_call_details.method == "/Echo":
            return grpc.stream_stream_rpc_method_handler(self._echo)
        behaviour = self._wait if handler_call_details.method == "/Wait" else self._answer
        return grpc.unary_unary_rpc_method_handler(behaviour)

    async def _answer(self, request: bytes, context: Any) -> bytes:
        self.peers.add(context.peer())
        return request

    async def _wait(self, request: bytes, context: Any) -> bytes:
        self.peers.add(context.peer())
        self.waiting.set()
        await self.let_go.wait()
        return request

    async def _echo(self, _: Any, context: Any) -> None:
        while (message := await context.read()) is not grpc.aio.EOF:
            await context.write(message)


@asynccontextmanager
async def _serve(handlers: Handlers, **times: Any) -> AsyncIterator[int]:
    """Serve with the options of the service and these times; yield the port."""
    server = grpc.aio.server(options=server_options(most_octets=2 << 20, connections=100, **times))
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield port
    await server.stop(0)


def _unary(channel: grpc.aio.Channel, method: str) -> Any:
    return channel.unary_unary(method)


@pytest.mark.parametrize("octets", [9 << 10, 15 << 10, 30 << 10, METADATA_OCTETS])
async def test_metadata_up_to_the_limit_is_never_refused(octets: int) -> None:
    """A call whose metadata has up to 64 KiB is served, each time: nothing is refused by chance."""
    async with _serve(Handlers()) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        for _ in range(20):
            assert await _unary(channel, "/Any")(b"ok", metadata=(("authorization", "x" * octets),)) == b"ok"


async def test_metadata_above_the_limit() -> None:
    """Metadata above 64 KiB is RESOURCE_EXHAUSTED with both sizes in the text; the connection's other calls go on."""
    handlers = Handlers()
    async with _serve(handlers) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        running = asyncio.ensure_future(_unary(channel, "/Wait")(b"ok"))
        await handlers.waiting.wait()
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await _unary(channel, "/Any")(b"", metadata=(("authorization", "x" * (METADATA_OCTETS + 2048)),))
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "metadata size exceeds hard limit" in str(caught.value.details())
        handlers.let_go.set()
        assert await running == b"ok"


async def test_pings_no_faster_than_allowed_are_acknowledged() -> None:
    """A caller that pings no more often than allowed is never cut off, however long it stays without a call."""
    async with _serve(Handlers(), ping_seconds=0.001) as port, Connection(f"127.0.0.1:{port}") as connection:
        for _ in range(20):
            assert await connection.ping() is None
            await asyncio.sleep(0.002)


async def test_pings_that_are_too_fast_end_the_connection() -> None:
    """A caller that pings much more often than every 5 s is cut off with ENHANCE_YOUR_CALM (RFC 9113, 7)."""
    async with _serve(Handlers()) as port, Connection(f"127.0.0.1:{port}") as connection:
        answers = [await connection.ping()]
        while answers[-1] is None and len(answers) < 10:
            answers.append(await connection.ping())
    assert answers[-1] == ENHANCE_YOUR_CALM


def test_a_caller_may_ping_every_five_seconds_by_its_clock() -> None:
    """The server's limit lies below the 5 s that callers are promised, since a ping may arrive early."""
    limit = dict(server_options(most_octets=2 << 20, connections=100))["grpc.http2.min_ping_interval_without_data_ms"]
    assert PING_SECONDS == 5
    assert 4000 <= limit <= 4800


async def test_calls_outlast_the_age_of_their_connection() -> None:
    """A connection past its age takes no new calls, but its running call and stream go on to their own ends."""
    handlers = Handlers()
    async with _serve(handlers, age_seconds=0.05) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        running = asyncio.ensure_future(_unary(channel, "/Wait")(b"ok"))
        await handlers.waiting.wait()
        stream: Any = channel.stream_stream("/Echo")()
        await stream.write(b"first")
        assert await stream.read() == b"first"
        async with asyncio.timeout(10):
            while len(handlers.peers) < 3:  # connections: that of the running call, and two later ones at least
                await _unary(channel, "/Any")(b"")
        for number in range(100):
            await stream.write(b"%d" % number)
            assert await stream.read() == b"%d" % number
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
        assert await stream.code() is grpc.StatusCode.OK
        handlers.let_go.set()
        assert await running == b"ok"


async def test_a_connection_that_says_nothing_is_closed() -> None:
    """A client that connects, and does not begin to speak HTTP/2, is cut off after a few seconds."""
    async with _serve(Handlers(), handshake_seconds=0.05) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(20):
            while await reader.read(1 << 16):  # the settings of the server
                pass
        assert reader.at_eof()
        writer.close()


async def test_an_idle_connection_is_closed() -> None:
    """A connection without calls is closed after its idle time, and one with a running call is not."""
    handlers = Handlers()
    seconds = 1.0  # in which a busy machine begins the call
    async with _serve(handlers, idle_seconds=seconds) as port, Connection(f"127.0.0.1:{port}") as busy:
        stream = busy.call("/Wait")
        await busy.send(stream, message(0), end=True)
        await handlers.waiting.wait()
        async with asyncio.timeout(20), Connection(f"127.0.0.1:{port}") as idle:
            await idle.closed.wait()
        assert not busy.closed.is_set()
        handlers.let_go.set()
        async with asyncio.timeout(20):
            await busy.closed.wait()
        assert busy.ended == {stream}
