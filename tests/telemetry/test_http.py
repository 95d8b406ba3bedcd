"""The HTTP server: what it answers over real sockets, and what bounds its clients' use."""

import asyncio
import contextlib
import resource
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from otpmail.telemetry.http import HttpServer, Request, Response

HOST = "127.0.0.1"
GET = b"GET /page?a=1 HTTP/1.1\r\nHost: test\r\n\r\n"
HALF = b"GET /page HTTP/1.1\r\nHost: te"
Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def _echo(request: Request) -> Response:
    """Answer with what was asked."""
    if request.path == "/broken":
        raise RuntimeError("boom")
    body = f"{request.method} {request.path} {request.query} {request.headers.get('accept')}"
    return Response(200, body.encode(), (("Content-Type", "text/plain"),))


@contextlib.asynccontextmanager
async def _serve(server: HttpServer) -> AsyncIterator[int]:
    """Start the server and stop it; gives its port."""
    try:
        yield await server.start(HOST, 0)
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def _clients(port: int, count: int, data: bytes) -> AsyncIterator[list[Client]]:
    """Connect so many clients, each of which has sent `data`; close them in the end."""
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for _ in range(count):
            reader, writer = await asyncio.open_connection(HOST, port)
            stack.push_async_callback(_close, writer)
            writer.write(data)
            clients.append((reader, writer))
        yield clients


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):  # the server may have cut it
        await writer.wait_closed()


async def _exchange(port: int, data: bytes = GET) -> bytes:
    """Send and return all that comes until the server ends the connection."""
    async with _clients(port, 1, data) as [(reader, _)]:
        return await reader.read()


async def test_a_request_is_answered_and_the_connection_closed() -> None:
    """A connection serves one request; what follows on it is dropped."""
    async with _serve(HttpServer(_echo)) as port:
        head, _, body = (await _exchange(port, GET + GET)).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 200 "
    fields = dict(line.lower().split(": ", 1) for line in lines[1:])
    assert fields.keys() == {"date", "content-length", "connection", "content-type"}
    assert fields["connection"] == "close"
    assert body == b"GET /page a=1 None"
    assert int(fields["content-length"]) == len(body)


async def test_a_request_may_come_byte_by_byte() -> None:
    """The header counts once it is whole, in however many segments it came."""
    async with _serve(HttpServer(_echo)) as port, _clients(port, 1, b"") as [(reader, writer)]:
        for byte in GET:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert (await reader.read()).endswith(b"GET /page a=1 None")


async def test_fields_of_one_name_are_one_list() -> None:
    """RFC 9110, 5.2: several fields of a name are one, with commas between; names have no case."""
    fields = b"ACCEPT: text/plain\r\naccept: */*\r\n"
    async with _serve(HttpServer(_echo)) as port:
        answer = await _exchange(port, GET.removesuffix(b"\r\n") + fields + b"\r\n")
    assert answer.endswith(b"text/plain, */*")


async def test_head_has_the_header_alone() -> None:
    """HEAD is answered with the length that GET would have, and without a body."""
    async with _serve(HttpServer(_echo)) as port:
        answer = await _exchange(port, GET.replace(b"GET", b"HEAD"))
    assert b"Content-Length: 19\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


async def test_an_absolute_target_is_understood() -> None:
    """RFC 9112, 3.2.2: a server accepts the whole URL as the target."""
    async with _serve(HttpServer(_echo)) as port:
        answer = await _exchange(port, GET.replace(b"/page", b"http://test/page"))
    assert answer.endswith(b"GET /page a=1 None")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET //[ HTTP/1.1\r\nHost: test\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: test\r\nX: " + b"x" * 20_000, 431),
        (b"GET /broken HTTP/1.1\r\nHost: test\r\n\r\n", 500),
    ],
    ids=["nonsense", "no host", "no URL", "header too large", "no answer"],
)
async def test_what_cannot_be_answered_has_its_status(data: bytes, status: int) -> None:
    """Bad requests, large headers and failed answers each end in a status, and the server goes on."""
    async with _serve(HttpServer(_echo)) as port:
        assert (await _exchange(port, data)).startswith(f"HTTP/1.1 {status} ".encode())
        assert (await _exchange(port)).startswith(b"HTTP/1.1 200 ")


async def test_a_failed_answer_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The log says which request could not be answered, and why."""
    async with _serve(HttpServer(_echo)) as port:
        await _exchange(port, GET.replace(b"page", b"broken"))
    (record,) = caplog.records
    assert record.getMessage() == "no answer to GET /broken"
    assert record.exc_info is not None


async def test_a_half_request_times_out() -> None:
    """A client that does not finish its request is sent 408, and its place is free."""
    server = HttpServer(_echo, timeout=0.05)
    async with _serve(server) as port:
        assert (await _exchange(port, HALF)).startswith(b"HTTP/1.1 408 ")
        assert (await _exchange(port, b"")).startswith(b"HTTP/1.1 408 ")
        assert repr(server) == "<HttpServer 0 of 64 connections>"


class Watched(HttpServer):
    """A server that says when a connection has ended."""

    def __init__(self, answer: Callable[[Request], Response]) -> None:
        super().__init__(answer, timeout=0.3)
        self.ended = asyncio.Event()

    def remove(self, connection: Any) -> None:
        """Say so."""
        super().remove(connection)
        self.ended.set()


async def test_a_response_left_unread_times_out() -> None:
    """A client that does not read its response is cut at the timeout, in the middle of it."""
    body = b"x" * 50_000_000
    server = Watched(lambda _: Response(200, body))
    async with _serve(server) as port:
        with socket.create_connection((HOST, port)) as client:
            client.sendall(GET)
            await server.ended.wait()
            assert 0 < len(_read_all(client)) < len(body)


async def test_a_client_that_does_not_close_times_out() -> None:
    """A client that keeps its side open after the response, and even sends on, is cut at the timeout."""
    server = Watched(_echo)
    async with _serve(server) as port, _clients(port, 1, GET) as [(reader, writer)]:
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.write(b"more")
        assert not server.ended.is_set()
        await server.ended.wait()


async def test_a_newcomer_takes_the_place_of_the_oldest() -> None:
    """When all places are taken the oldest connection is sent 503, and the new one is answered."""
    server = HttpServer(_echo, max_connections=2)
    async with _serve(server) as port, _clients(port, 2, HALF) as [(oldest, _), (younger, writer)]:
        assert (await _exchange(port)).startswith(b"HTTP/1.1 200 ")
        assert (await oldest.read()).startswith(b"HTTP/1.1 503 ")
        writer.write(b"st\r\n\r\n")
        assert (await younger.read()).startswith(b"HTTP/1.1 200 ")


async def test_an_answered_client_gives_way_too() -> None:
    """A client that has its response and does not close gives way to a new one."""
    server = HttpServer(_echo, max_connections=1)
    async with _serve(server) as port, _clients(port, 1, GET) as [(reader, _)]:
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        assert (await _exchange(port)).startswith(b"HTTP/1.1 200 ")


@pytest.fixture
def _many_files() -> Iterator[None]:
    """Let this process have both ends of a thousand connections open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("_many_files")
async def test_a_thousand_half_requests_cost_no_thread_and_keep_nobody_out() -> None:
    """A thousand clients that never finish hold as many places as there are, and a good request is answered."""
    server = HttpServer(_echo, timeout=600)
    threads = threading.active_count()
    async with _serve(server) as port, _clients(port, 1000, HALF) as clients:
        assert (await _exchange(port)).startswith(b"HTTP/1.1 200 ")
        assert threading.active_count() <= threads  # one of an earlier test may just have ended
        refused = [await reader.read() for reader, _ in clients[: 1000 - 63]]
        assert {answer[:13] for answer in refused} == {b"HTTP/1.1 503 "}
        assert repr(server) in {"<HttpServer 63 of 64 connections>", "<HttpServer 64 of 64 connections>"}


async def test_stop_ends_what_is_open() -> None:
    """A stopped server neither listens nor keeps a connection, and may be stopped again."""
    server = HttpServer(_echo)
    port = await server.start(HOST, 0)
    async with _clients(port, 1, HALF) as [(reader, _)]:
        assert (await _exchange(port)).startswith(b"HTTP/1.1 200 ")
        await server.stop()
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    with pytest.raises(OSError, match=r"refused|failed"):
        await _exchange(port)
    await server.stop()


def _read_all(client: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(1 << 20):
            data += part
    return data


async def test_an_answer_waits_for_its_refresh() -> None:
    """With a refresh each answer is made after it, and also where it fails; a client that has gone gets none."""
    refreshed: list[str] = []

    async def refresh() -> None:
        await asyncio.sleep(0)
        refreshed.append("again")
        if len(refreshed) == 2:
            raise RuntimeError

    def answer(_: Request) -> Response:
        return Response(200, str(len(refreshed)).encode())

    async with _serve(HttpServer(answer, refresh=refresh)) as port:
        for count in (b"1", b"2", b"3"):
            assert (await _exchange(port)).endswith(b"\r\n\r\n" + count)
