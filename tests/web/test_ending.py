"""Ends of connections: clients that read nothing or still send, places that others need, and times."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import http.client
import socket
import ssl
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest

from alive import alive
from otpmail.limits.descriptors import FOR_PROBES
from otpmail.web.connection import Connection
from otpmail.web.ending import LEAST_RATE, STALLED_SECONDS, TIMES, Pace, Times, _in_kernel
from otpmail.web.listener import Listener
from otpmail.web.requests import RequestReader
from web.listening import listening
from web.tls_files import files_of

if TYPE_CHECKING:
    from pathlib import Path

    from otpmail.web.exchange import Exchange
    from relay import Certificates

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
_PARTS = (Connection, RequestReader, ssl.SSLObject)
LAST = b"GET /last HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
_LARGE = bytes(16 << 20)  # more than the kernel keeps for a client that reads nothing


async def _answer_large(exchange: Exchange) -> None:
    await exchange.answer(200, b"ok" if exchange.path == "/small" else _LARGE)


async def _connect_deaf(port: int, stack: AsyncExitStack, octets: bytes) -> socket.socket:
    """Send a request from a client that reads nothing."""
    client = stack.enter_context(socket.socket())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)  # noqa: FBT003  the socket module's own signature
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", port))
    await loop.sock_sendall(client, octets)
    return client


async def _read_all(client: socket.socket) -> int:
    """Return how many octets come until the connection ends."""
    octets = 0
    with contextlib.suppress(ConnectionError):
        while part := await asyncio.get_running_loop().sock_recv(client, 1 << 16):
            octets += len(part)
    return octets


async def _until_none_is_open(listener: Listener) -> None:
    while len(listener._open):  # noqa: ASYNC110  nothing else tells that the last one is lost
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("requests", "times"),
    [
        (LAST, Times(head=0.2, unread=600, close=0.3)),
        (GET * 3, Times(head=0.2, unread=0.5)),
        (GET, Times(head=0.2, keep=0.3, unread=600, close=0.3)),
    ],
    ids=["closed", "answered", "idle"],
)
async def test_a_client_that_reads_nothing_is_left(requests: bytes, times: Times) -> None:
    """A client that reads nothing loses its connection: after a close, between answers, and before a request."""
    listener = Listener(_answer_large, most=10, times=times)
    async with AsyncExitStack() as stack, listening(listener) as port:
        await _connect_deaf(port, stack, requests)
        while not len(listener._open):  # noqa: ASYNC110  nothing else tells that it was taken
            await asyncio.sleep(0.01)
        await _until_none_is_open(listener)


async def _until_the_kernel_takes_no_more(listener: Listener, count: int) -> None:
    """Wait until so many connections can't be written to and the kernel takes no more; each counts what it took."""
    before, seen = [-1], list[int]()
    while before != seen or [one.is_writable for one in listener._open.open] != [False] * count:
        await asyncio.sleep(0.3)  # seconds; more than an acknowledgement is delayed
        before, seen = seen, [_in_kernel(one.transport) for one in listener._open.open]
    for one in listener._open.open:
        one._unread_seconds()  # the look of a timer


@pytest.mark.parametrize("requests", [GET, GET * 3, LAST], ids=["idle", "answered", "closed"])
async def test_clients_that_read_nothing_keep_nobody_out(requests: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that read nothing give way after a second, and count until they are gone."""
    loop = asyncio.get_running_loop()
    now = loop.time
    listener = Listener(_answer_large, most=5)
    async with AsyncExitStack() as stack, listening(listener) as port:
        clients = [await _connect_deaf(port, stack, requests) for _ in range(5)]
        await _until_the_kernel_takes_no_more(listener, 5)
        for number in range(1, 11):  # the kernel may still take a few octets from a client that waits
            monkeypatch.setattr(loop, "time", lambda later=number * STALLED_SECONDS: now() + later)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(writer.close)
            writer.write(GET.replace(b"/ ", b"/small "))
            assert b"connection: close" not in await reader.readuntil(b"ok")
            assert len(listener._open) <= 6
        for client in clients:
            assert await _read_all(client) < len(_LARGE)  # it is cut, and not closed once all is sent


async def test_a_request_that_comes_with_its_connection_is_answered_once() -> None:
    """Beyond all limits too: no 503 follows its answer, which has `connection: close`."""
    go, asked, marks = asyncio.Event(), asyncio.Semaphore(0), []

    async def answer(exchange: Exchange) -> None:
        asked.release()
        if exchange.path == "/slow":
            await go.wait()
        marks.append(exchange.connection.is_for_probes)
        await exchange.answer(200, b"ok")

    listener = Listener(answer, most=1)
    async with AsyncExitStack() as stack, listening(listener) as port:
        for _ in range(1 + FOR_PROBES):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(writer.close)
            writer.write(GET.replace(b"/ ", b"/slow "))
            await asked.acquire()
        connection = listener._connection()
        transport = _Transport()
        connection.connection_made(transport)
        connection.data_received(GET)  # before the listener has looked for room
        async with asyncio.timeout(30):
            while not transport.is_closing():  # noqa: ASYNC110  nothing else tells that it was answered
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)  # in which a 503 would follow
        assert marks == [True]
        assert transport.sent.count(b"HTTP/1.1 ") == 1
        assert b"connection: close\r\n\r\nok" in transport.sent
        connection.connection_lost(None)


class _Transport(asyncio.Transport):
    """Keeps what is sent."""

    def __init__(self, unread: list[int] | None = None) -> None:
        super().__init__()
        self.sent = b""
        self._sizes = unread or [0]  # what the client has not taken, at each look
        self._is_closing = False

    def __repr__(self) -> str:
        return "<_Transport>"

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def get_write_buffer_size(self) -> int:
        return self._sizes.pop(0) if len(self._sizes) > 1 else self._sizes[0]

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._is_closing = True

    abort = close


@pytest.mark.parametrize("octets", [150_000, 30_000_000])
async def test_an_error_reaches_a_client_that_still_sends(octets: int) -> None:
    """A client that still sends gets its error: the rest is read and dropped, since a reset would take the answer."""

    async def refuse(exchange: Exchange) -> None:
        await exchange.read()
        exchange.keep_alive = False
        await exchange.answer(429, b"too long")

    def post() -> int:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            client.request("POST", "/", bytes(octets))
            return client.getresponse().status
        finally:
            client.close()

    async with listening(Listener(refuse, most=10)) as port:
        for _ in range(5):
            assert await asyncio.to_thread(post) == 429


async def test_a_client_that_sends_without_end_is_left() -> None:
    """A client that sends without end after its answer loses its connection after a while."""

    async def refuse(exchange: Exchange) -> None:
        exchange.keep_alive = False
        await exchange.answer(429, b"too long")

    listener = Listener(refuse, most=10, times=Times(linger=0.3, close=0.3))
    async with listening(listener) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                await asyncio.sleep(0.01)
                await writer.drain()  # raises where the connection ended meanwhile; a write of uvloop has another error
                writer.write(bytes(1000))
        await _until_none_is_open(listener)
        writer.close()


@pytest.mark.parametrize(("step", "ends"), [(1, True), (100_000, False)])
async def test_a_client_that_takes_an_octet_now_and_then_is_left(step: int, ends: bool) -> None:  # noqa: FBT001  pytest's
    """A client must take an answer at a least rate. One that does so may take all the time that a large one needs."""
    listener = Listener(_answer_large, most=10, times=Times(head=0.05, unread=0.3, keep=30))
    connection = listener._connection()
    transport = _Transport([10_000_000 - step * look for look in range(90)])
    connection.connection_made(transport)
    connection.data_received(GET)
    try:
        for _ in range(20):
            await asyncio.sleep(0.05)
        assert transport.is_closing() is ends
    finally:
        connection.connection_lost(None)
        await listener.stop()


async def test_a_client_that_takes_what_the_kernel_has() -> None:
    """The kernel holds a megabyte or more of an answer; a client that takes it steadily is not too slow meanwhile."""
    listener = Listener(_answer_large, most=10, times=Times(head=0.1, unread=1, keep=30))
    async with listening(listener) as port:
        client = await asyncio.to_thread(_connect_slow, port, None)
        with contextlib.closing(client):
            client.sendall(GET)
            for _ in range(45):
                await asyncio.to_thread(client.recv, 40_000)
                await asyncio.sleep(0.05)
            (connection,) = listener._open.open
            assert connection.transport.get_write_buffer_size()


async def test_a_client_that_takes_an_answer_that_is_written_as_it_goes() -> None:
    """An answer that has filled the buffer again at each look does not hide what its client took meanwhile."""
    listener, now = Listener(_answer_large, most=10), 100.0
    connection = listener._connection()
    connection._loop = loop = Mock(wraps=asyncio.get_running_loop())
    loop.time.side_effect = lambda: now
    connection.connection_made(transport := _Transport())
    for _ in range(50):
        now += 1
        transport._sizes = [10_000]
        connection.resume_writing()
        transport._sizes = [70_000]
        connection.pause_writing()
        assert connection._unread_seconds() == 0
    now += 5
    assert connection._unread_seconds() == 5
    connection.connection_lost(None)
    await listener.stop()


async def test_what_was_faster_counts_for_no_later_time() -> None:
    """A client that has taken megabytes in a second is behind as soon as any other one."""
    pace = Pace(100.0, 5_000_000)
    assert pace.seconds_behind(101.0, 1_000_000) == 0
    assert pace.seconds_behind(111.0, 1_000_000 - 3 * LEAST_RATE) == 7


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_a_client_that_reads_nothing_is_not_idle(
    secure: bool,  # noqa: FBT001  pytest's own
    certificates: Certificates,
    tmp_path: Path,
) -> None:
    """With TLS too: it is left because it is too slow, and not because its next request has not come."""
    files = files_of(certificates, tmp_path) if secure else None
    listener = Listener(_answer_large, most=10, times=Times(head=0.2, unread=0.5, keep=60))
    async with AsyncExitStack() as stack, listening(listener, files) as port:
        client = await asyncio.to_thread(_connect_slow, port, certificates if secure else None)
        stack.callback(client.close)
        client.sendall(GET)
        while not len(listener._open):  # noqa: ASYNC110  nothing else tells that it was taken
            await asyncio.sleep(0.01)
        await _until_none_is_open(listener)


def _connect_slow(port: int, certificates: Certificates | None) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    if certificates is None:
        return client
    return ssl.create_default_context(cafile=str(certificates.ca_file)).wrap_socket(client, server_hostname="localhost")


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(("step", "status"), [(1, b"408"), (400, b"200")])
async def test_a_body_that_drips_is_left(
    secure: bool,  # noqa: FBT001  pytest's own
    step: int,
    status: bytes,
    certificates: Certificates,
    tmp_path: Path,
) -> None:
    """A body must come at a least rate while a call waits for it; one that does may take longer."""

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(200, b"%d" % len(await exchange.read_all(1 << 20)))

    files = files_of(certificates, tmp_path) if secure else None
    tls = ssl.create_default_context(cafile=str(certificates.ca_file)) if secure else None
    listener = Listener(answer, most=10, times=Times(head=0.2, upload=1.2))
    async with listening(listener, files) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (40 * step))
        reading = asyncio.create_task(reader.readline())
        for _ in range(40):
            if writer.is_closing():  # uvloop refuses to write then
                break
            with contextlib.suppress(ConnectionError):
                writer.write(b" " * step)
                await asyncio.sleep(0.05)
        assert status in await reading
        writer.close()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> asyncio.Semaphore:
    """Release this at each look of a connection at its times."""
    looks, look = asyncio.Semaphore(0), Connection._look

    def counted(connection: Connection) -> None:
        look(connection)
        looks.release()

    monkeypatch.setattr(Connection, "_look", counted)
    return looks


async def test_a_stream_that_is_silent_goes_on(looks: asyncio.Semaphore) -> None:
    """A call that reads its body part by part, or answers now and then, keeps its connection as long as it runs."""

    async def outlast_every_time() -> None:
        for _ in range(4):  # one each `head` seconds, and all other times are twice as long
            await looks.acquire()

    async def answer(exchange: Exchange) -> None:
        await exchange.begin(200)
        while part := await exchange.read():
            await outlast_every_time()
            await exchange.write(part)
        await exchange.end()

    listener = Listener(answer, most=10, times=Times(head=0.05, keep=0.1, upload=0.1, unread=0.1))
    async with listening(listener) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\na")
        await reader.readuntil(b"a\r\n")
        await outlast_every_time()
        writer.write(b"b")
        await reader.readuntil(b"0\r\n\r\n")
        writer.close()


async def test_a_machine_that_is_gone_is_noticed() -> None:
    """TCP asks for a sign of a client that says nothing: its end may never come."""
    listener = Listener(_answer_large, most=10)
    async with listening(listener) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        while not len(listener._open):  # noqa: ASYNC110  nothing else tells that it was taken
            await asyncio.sleep(0.01)
        accepted = next(iter(listener._open.open)).transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
        writer.close()


async def test_a_connection_without_another_request_is_closed() -> None:
    """An idle connection is kept for longer than proxies keep theirs, so that they close first, and not for ever."""
    assert TIMES.keep > 60
    listener = Listener(_answer_large, most=10, times=Times(head=0.5, keep=0.5))
    async with listening(listener) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET.replace(b"/ ", b"/small "))
        await reader.readuntil(b"ok")
        before = asyncio.get_running_loop().time()
        assert await reader.read() == b""
        assert asyncio.get_running_loop().time() - before > 0.4
        writer.close()


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("at", ["answered", "refused", "reading"])
async def test_the_memory_of_a_connection_is_free_at_once(
    secure: bool,  # noqa: FBT001  pytest's own
    at: str,
    certificates: Certificates,
    tmp_path: Path,
) -> None:
    """All that a connection needs is gone with it, without a collection of garbage: those of all objects are rare."""
    begun = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        begun.set()
        await exchange.answer(200, b"%d" % len(await exchange.read_all(1 << 20)))

    length = b"content-length: 2\r\n" if at == "reading" else b""
    octets = b"no request\r\n\r\n" if at == "refused" else b"POST / HTTP/1.1\r\nhost: x\r\n" + length + b"\r\na"
    listener = Listener(answer, most=10)
    async with listening(listener, files_of(certificates, tmp_path) if secure else None) as port:
        gc.collect()
        before = alive(*_PARTS)
        gc.disable()
        try:
            for _ in range(3):
                begun.clear()
                with await asyncio.to_thread(_connect_slow, port, certificates if secure else None) as client:
                    await asyncio.to_thread(client.sendall, octets)
                    if at == "reading":
                        await begun.wait()
                    else:
                        assert await asyncio.to_thread(client.recv, 100)
                    assert alive(*_PARTS) > before
            while alive(*_PARTS) > before:  # noqa: ASYNC110  the loop closes the transports in its next turns
                await asyncio.sleep(0.01)
        finally:
            gc.enable()
