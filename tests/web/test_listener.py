"""The listener of HTTP: certificates that OpenSSL refuses, ports that are taken, and its end."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from otpmail.errors import SettingsError
from otpmail.limits.descriptors import FOR_PROBES
from otpmail.web.accepting import Acceptor
from otpmail.web.binding import close_sockets, open_sockets
from otpmail.web.ending import Times
from otpmail.web.listener import Listener
from otpmail.web.tls import tls_context
from web.tls_files import files_of

if TYPE_CHECKING:
    from pathlib import Path

    from otpmail.web.connection import Handler
    from otpmail.web.exchange import Exchange
    from relay import Certificates


async def _answer(exchange: Exchange) -> None:
    await exchange.answer(200, b"ok")


async def test_a_certificate_that_openssl_refuses(
    certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """At the start it is an error of the settings. Later the one before goes on, and the log says so."""
    good = files_of(certificates, tmp_path)
    bad = replace(good, key=b"no key")
    with pytest.raises(SettingsError, match="TLS_CERT_FILE: OpenSSL refuses it for HTTP_PORT"):
        tls_context(bad)
    listener = Listener(_answer, most=10)
    port = await listener.start("127.0.0.1", 0, good)
    try:
        listener.renew(bad)
        assert "HTTP_PORT keeps the certificate that it has" in caplog.text
        context = ssl.create_default_context(cafile=str(certificates.ca_file))
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
        writer.close()
    finally:
        await listener.stop()


async def test_a_port_that_is_taken() -> None:
    """The error names the settings and the cause, and nothing is left open."""
    listener, other = Listener(_answer, most=10), Listener(_answer, most=10)
    port = await listener.start("127.0.0.1", 0)
    with pytest.raises(SettingsError) as refused:
        await other.start("127.0.0.1", port)
    assert str(refused.value) == (
        f"HTTP_HOST, HTTP_PORT: can't listen on 127.0.0.1:{port}; another server is there, perhaps an otpmail that "
        "still runs: stop it, or set another HTTP_PORT (0: any that is free)"
    )
    await listener.stop()
    assert await other.start("127.0.0.1", port) == port
    await other.stop()


def _resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Have every name lead to these addresses."""

    async def resolve(_: str, port: int, **_options: object) -> list[tuple[object, ...]]:
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in addresses
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve, raising=False)


async def test_an_address_that_the_machine_lacks(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An address of a name is passed over, with a line in the log, as for HOST; one has to be there."""
    caplog.set_level("INFO")
    for addresses in (("127.0.0.1", "2001:db8::1"), ("2001:db8::1", "127.0.0.1"), ("192.0.2.1", "127.0.0.1")):
        caplog.clear()
        with monkeypatch.context() as patched:
            _resolve_to(patched, *addresses)
            sockets, port = await open_sockets("localhost", 0)
        assert [opened.getsockname() for opened in sockets] == [("127.0.0.1", port)]
        close_sockets(sockets)
        assert [record.message.count("does not have that address") for record in caplog.records] == [1]
    with monkeypatch.context() as patched:
        _resolve_to(patched, "192.0.2.1", "2001:db8::1")
        with pytest.raises(SettingsError, match=r"HTTP_HOST, HTTP_PORT: can't listen on localhost:0; Cannot assign"):
            await open_sockets("localhost", 0)
    with pytest.raises(SettingsError, match=r"can't listen on 192\.0\.2\.1:0; Cannot assign"):
        await open_sockets("192.0.2.1", 0)


async def test_any_port_is_free_on_every_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that the system finds free on the first address, and that is taken on the second, is left for another."""
    looked_up = 0

    async def resolve(_: str, port: int, **_options: object) -> list[tuple[object, ...]]:
        """Name the first address twice at first: it is taken for the second socket."""
        nonlocal looked_up
        looked_up += 1
        last = "127.0.0.1" if looked_up < 3 else "127.0.0.2"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("127.0.0.1", last)]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve, raising=False)
    sockets, port = await open_sockets("localhost", 0)
    assert [opened.getsockname() for opened in sockets] == [("127.0.0.1", port), ("127.0.0.2", port)]
    assert looked_up >= 3  # more often where another program has the port that comes next
    close_sockets(sockets)


async def test_another_port_in_place_of_one_that_is_taken() -> None:
    """A port that is taken is an error, unless any other will do."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with pytest.raises(SettingsError, match=f"can't listen on 127.0.0.1:{taken}; another server is there"):
            await open_sockets("127.0.0.1", taken)
        sockets, port = await open_sockets("127.0.0.1", taken, any_port=True)
    assert sockets[0].getsockname() == ("127.0.0.1", port) != ("127.0.0.1", taken)
    close_sockets(sockets)


async def test_an_answer_that_is_being_made_is_waited_for() -> None:
    """A stop closes idle connections at once, and others once they are answered, but not for longer than it may."""
    asked, go = asyncio.Event(), asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        asked.set()
        await go.wait()
        await _answer(exchange)

    for waits in (True, False):
        go.clear()
        asked.clear()
        listener = Listener(slow, most=10)
        port = await listener.start("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        idle, idle_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await asked.wait()
        stopping = asyncio.create_task(listener.stop(20 if waits else 0.05))
        assert await idle.read() == b""
        if waits:
            go.set()
            assert b"connection: close\r\n\r\nok" in await reader.read()
        await asyncio.wait_for(stopping, 10)
        writer.close()
        idle_writer.close()


GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def _ask(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(GET)
    return reader, writer, await reader.readuntil(b"ok")


async def test_an_idle_connection_gives_way_without_a_word() -> None:
    """A client that keeps connections could take an answer that it did not ask for as that to its next request."""
    listener = Listener(_answer, most=1)
    port = await listener.start("127.0.0.1", 0)
    try:
        idle, idle_writer, _ = await _ask(port)
        _, writer, answer = await _ask(port)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert await asyncio.wait_for(idle.read(), 10) == b""
        writer.close()
        idle_writer.close()
    finally:
        await listener.stop()


@pytest.mark.parametrize("ends", ["age", "stop"])
async def test_a_connection_closes_after_its_answer(ends: str) -> None:
    """Beyond its age, or once the service is to stop, its answer has `connection: close`, and none is cut."""
    listener = Listener(_answer, most=10, age_seconds=2 if ends == "age" else 3600)
    port = await listener.start("127.0.0.1", 0)
    try:
        reader, writer, first = await _ask(port)
        assert b"connection: close" not in first
        if ends == "stop":
            listener.retire()
        async with asyncio.timeout(30):
            while b"connection: close\r\n" not in first:
                await asyncio.sleep(0.05)
                writer.write(GET)
                first = await reader.readuntil(b"ok")
            assert await reader.read() == b""
        writer.close()
    finally:
        await listener.stop()


async def test_certificates_that_come_in_quick_succession(certificates: Certificates, tmp_path: Path) -> None:
    """The last of them is served, one server stays for each address, and a stop leaves none."""
    listener = Listener(_answer, most=10)
    port = await listener.start("127.0.0.1", 0, files_of(certificates, tmp_path))
    try:
        for _ in range(5):
            last = files_of(certificates, tmp_path)
            listener.renew(last)
            await asyncio.sleep(0)
        context = ssl.create_default_context(cafile=str(certificates.ca_file))
        async with asyncio.timeout(10):
            while True:
                _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
                shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
                writer.close()
                if ssl.DER_cert_to_PEM_cert(shown).encode().strip() in last.chain:
                    break
        listener.renew(last)
        listener.renew(last)
    finally:
        await listener.stop()
    with pytest.raises(ConnectionError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_connection_that_has_just_come_is_answered() -> None:
    """A stop waits a moment for the first request of a connection, whose client would not know what became of it."""
    listener = Listener(_answer, most=10)
    port = await listener.start("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while not len(listener._open):  # noqa: ASYNC110  nothing else tells that it was taken
        await asyncio.sleep(0)
    stopping = asyncio.create_task(listener.stop(20))
    await asyncio.sleep(0)
    writer.write(GET)
    assert b"connection: close\r\n" in await asyncio.wait_for(reader.read(), 10)
    await stopping
    writer.close()


async def test_strangers_who_begin_no_handshake(certificates: Certificates, tmp_path: Path) -> None:
    """Connections without a handshake count from the first moment: they give way, end, and are closed by a stop."""
    context = ssl.create_default_context(cafile=str(certificates.ca_file))
    for ends in ("time", "stop"):
        listener = Listener(_answer, most=5, times=Times(head=1 if ends == "time" else 60))
        port = await listener.start("127.0.0.1", 0, files_of(certificates, tmp_path))
        try:
            async with AsyncExitStack() as opened, asyncio.timeout(30):
                readers = []
                for _ in range(40):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    opened.callback(writer.close)
                    readers.append(reader)
                await asyncio.gather(*(reader.read() for reader in readers[:30]))
                assert len(listener._open) <= 5
                _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
                opened.callback(writer.close)
                if ends == "stop":
                    await listener.stop()
                await asyncio.gather(*(reader.read() for reader in readers))
        finally:
            await listener.stop()
        async with asyncio.timeout(10):
            while len(listener._open):  # noqa: ASYNC110  nothing else tells that the last one is lost
                await asyncio.sleep(0)


async def test_a_full_port_with_tls(certificates: Certificates, tmp_path: Path) -> None:
    """A few connections beyond its limit are for probes. More than these are closed before a handshake is paid for."""
    context = ssl.create_default_context(cafile=str(certificates.ca_file))
    asked, go = asyncio.Semaphore(0), asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        asked.release()
        await go.wait()
        await exchange.answer(200, b"probes" if exchange.connection.is_for_probes else b"all")

    listener = Listener(slow, most=1)
    port = await listener.start("127.0.0.1", 0, files_of(certificates, tmp_path))
    try:
        async with AsyncExitStack() as opened, asyncio.timeout(30):
            readers = []
            for _ in range(1 + FOR_PROBES):
                reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
                opened.callback(writer.close)
                writer.write(GET)
                await asked.acquire()
                readers.append(reader)
            for _ in range(3):
                with pytest.raises(OSError, match=r"(?i)eof|reset|closed"):  # also of TLS
                    await asyncio.open_connection("127.0.0.1", port, ssl=context)
            go.set()
            assert (await readers[0].readuntil(b"all")).startswith(b"HTTP/1.1 200 ")
            for reader in readers[1:]:
                assert (await reader.read()).endswith(b"connection: close\r\n\r\nprobes")
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            opened.callback(writer.close)
    finally:
        await listener.stop()


async def test_a_full_port_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Once for many connections that come while all are busy; one that takes an idle one's place is no reason."""
    asked, go = asyncio.Semaphore(0), asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        asked.release()
        await go.wait()
        await _answer(exchange)

    listener = Listener(slow, most=2)
    port = await listener.start("127.0.0.1", 0)
    try:
        async with AsyncExitStack() as opened, asyncio.timeout(30):
            for count in range(7):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                opened.callback(writer.close)
                if count != 1:  # the second one is idle, and gives way to the third
                    writer.write(GET)
                    await asked.acquire()
                assert caplog.text.count("HTTP_PORT has 2 connections that are busy") == (count > 2)
            go.set()
    finally:
        await listener.stop()


async def test_without_a_descriptor_the_listener_tries_again(
    certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With TLS it says so in the log once each time, and takes the connections that wait later."""
    context = ssl.create_default_context(cafile=str(certificates.ca_file))
    accept, failures = socket.socket.accept, [OSError(errno.EMFILE, os.strerror(errno.EMFILE))]

    def fail_once(bound: socket.socket) -> tuple[socket.socket, object]:
        if failures:
            raise failures.pop()
        return accept(bound)

    monkeypatch.setattr(socket.socket, "accept", fail_once)
    listener = Listener(_answer, most=10)
    port = await listener.start("127.0.0.1", 0, files_of(certificates, tmp_path))
    try:
        async with asyncio.timeout(30):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.write(GET)
            answer = await reader.readuntil(b"ok")
        writer.close()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert not failures
        assert caplog.text.count("HTTP_PORT takes no connection for now: Too many open files") == 1
    finally:
        await listener.stop()


async def test_the_first_answer_has_a_date() -> None:
    """The date of answers is written before the first connection can come."""
    listener = Listener(_answer, most=10)
    bound = socket.create_server(("127.0.0.1", 0))
    with socket.create_connection(bound.getsockname()) as client:
        client.sendall(GET)
        client.setblocking(False)  # noqa: FBT003  the socket module's own signature
        await listener.serve([bound])
        try:
            answer = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 1000), 10)
        finally:
            await listener.stop()
    assert b"\r\ndate: " in answer


async def test_strangers_who_come_at_once_are_no_reason_to_refuse(
    certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As many give way as have come, so that the last of them is answered, and the log names no full port."""
    context = ssl.create_default_context(cafile=str(certificates.ca_file))
    context.check_hostname = False
    listener = Listener(_answer, most=5)
    bound = socket.create_server(("127.0.0.1", 0), backlog=100)
    with ExitStack() as opened:
        for _ in range(40):  # before anybody accepts them
            opened.enter_context(socket.create_connection(bound.getsockname()))
        last = opened.enter_context(socket.create_connection(bound.getsockname()))
        await listener.serve([bound], files_of(certificates, tmp_path))
        try:
            async with asyncio.timeout(30):
                reader, writer = await asyncio.open_connection(sock=last, ssl=context, server_hostname="localhost")
                writer.write(GET)
                assert b"connection: close" not in await reader.readuntil(b"ok")
            writer.close()
        finally:
            await listener.stop()
    assert "as many as it may" not in caplog.text


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_listeners_that_share_sockets_share_a_burst(
    secure: bool,  # noqa: FBT001  pytest's own
    certificates: Certificates,
    tmp_path: Path,
) -> None:
    """Whichever looks first takes one connection, and then lets the others look; it would else take all of them."""
    counts, files = [0, 0, 0, 0], files_of(certificates, tmp_path) if secure else None
    context = ssl.create_default_context(cafile=str(certificates.ca_file)) if secure else None

    def counting(number: int) -> Handler:
        async def answer(exchange: Exchange) -> None:
            counts[number] += 1
            await exchange.answer(200, b"ok")

        return answer

    sockets, port = await open_sockets("127.0.0.1", 0)
    listeners = [Listener(counting(number), most=100) for number in range(4)]
    async with AsyncExitStack() as opened, asyncio.timeout(30):
        for listener in listeners:
            opened.push_async_callback(listener.stop)
            await listener.serve([one.dup() for one in sockets], files, shared=True)
        close_sockets(sockets)
        for reader, writer in await asyncio.gather(
            *(asyncio.open_connection("127.0.0.1", port, ssl=context) for _ in range(64))
        ):
            opened.callback(writer.close)
            writer.write(GET)
            await reader.readuntil(b"ok")
    assert sum(counts) == 64
    assert max(counts) < 32


async def test_a_listener_that_shares_with_nobody_takes_ever_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the others hang, or all have more than they can take, pauses bound no rate."""
    taken: list[socket.socket] = []
    monkeypatch.setattr("otpmail.web.accepting._SHARE_SECONDS", 0.0)
    sockets, port = await open_sockets("127.0.0.1", 0)
    acceptor = Acceptor(sockets, taken.append, lambda: 0)
    try:
        async with asyncio.timeout(30), AsyncExitStack() as opened:
            for _ in range(400):
                client = opened.enter_context(socket.socket())
                client.setblocking(False)  # noqa: FBT003  the socket module's own signature
                client.connect_ex(("127.0.0.1", port))
            pauses = 0
            while len(taken) < 400:
                before = len(taken)
                await asyncio.sleep(0)
                pauses += len(taken) > before
        assert pauses < 120
    finally:
        acceptor.close()
        close_sockets([*taken, *sockets])
