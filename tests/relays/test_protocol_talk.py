"""A connection whose relay says what the test wants: how it ends, what wakes whoever waits, when the clock strikes."""

import asyncio
import contextlib
import ctypes
import os
import socket
import ssl
import struct
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from otpmail.errors import ConnectionLost
from otpmail.model import Envelope
from otpmail.relays import protocol
from otpmail.relays.connection import Connection
from otpmail.settings import RelaySettings
from otpmail.smtp.mode import Mode
from otpmail.smtp.session import BACKLOG
from otpmail.smtp.transaction import Results
from outcomes import outcome_of
from relay import HOST

OK = b"250 ok\r\n"
SOON = 10.0  # seconds after which a test gives up; none of what it waits for takes long


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EMAIL", "APP_PASSWORD", "EMAIL_HOST"):
        monkeypatch.delenv(name, raising=False)


@dataclass
class Talk:
    """The relay's side of a connection, and ours, with what was told of which mail in `told`."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    connection: Connection
    told: list[int] = field(default_factory=list)

    async def hear(self, end: bytes) -> None:
        """Read up to `end`."""
        async with asyncio.timeout(SOON):
            await self.reader.readuntil(end)

    def send(self, *sizes: int) -> list[asyncio.Future[Results]]:
        """Send mails of these sizes, each to its own recipient."""
        sending = []
        for number, size in enumerate(sizes):
            envelope = Envelope("a@x.org", (f"p{number}@y.org",), b"x" * (size - 2) + b"\r\n")
            future = outcome_of(self.connection, envelope)
            future.add_done_callback(partial(self._note, number))
            sending.append(future)
        return sending

    def _note(self, number: int, _: object) -> None:
        self.told.append(number)


def _open(port: int, mode: Mode, **more: object) -> "asyncio.Task[Connection]":
    make: Callable[..., RelaySettings] = RelaySettings
    settings = make(host=HOST, port=port, security="plain", helo="test", **more)
    return asyncio.create_task(Connection.open(settings, ssl.create_default_context(), lifetime=60, mode=mode))


Peers = asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]


@contextlib.asynccontextmanager
async def _listening() -> AsyncIterator[tuple[int, Peers]]:
    """A relay that greets, announces all, and then leaves the talking to the test."""
    peers = Peers()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        await reader.readline()
        writer.write(b"250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
        peers.put_nowait((reader, writer))

    server = await asyncio.start_server(serve, HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1], peers
    finally:
        server.close()
        await server.wait_closed()


@contextlib.asynccontextmanager
async def _talk(mode: Mode, **more: object) -> AsyncIterator[Talk]:
    async with _listening() as (port, peers):
        opening = _open(port, mode, **more)
        reader, writer = await peers.get()
        if mode is Mode.BDAT:
            await reader.readuntil(b"RSET\r\n")
            writer.write(b"503 no\r\n" + OK)
        connection = await opening
        try:
            yield Talk(reader, writer, connection)
        finally:
            await connection.close()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def _outcomes(sending: list[asyncio.Future[Results]]) -> list[Results | BaseException]:
    async with asyncio.timeout(SOON):
        return await asyncio.gather(*sending, return_exceptions=True)


async def test_a_dial_given_up_over_the_probe_ends_without_a_fault() -> None:
    """Cancelled while the relay thinks about the probe: the connection is closed, and nothing is raised in the loop."""
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    async with _listening() as (port, peers):
        opening = _open(port, Mode.BDAT)
        reader, writer = await peers.get()
        await reader.readuntil(b"RSET\r\n")
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    assert faults == []


async def test_a_relay_that_trickles_after_421_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Octets that make no reply do not put off the end of a connection that the relay has said goodbye on."""
    monkeypatch.setattr(protocol, "_GOODBYE_SECONDS", 0.3)
    async with _talk(Mode.BDAT) as talk:
        sending = talk.send(10, 10)
        await talk.hear(b"BDAT 10 LAST\r\n")
        talk.writer.write(b"421 4.3.2 bye\r\n250-")
        all_told = asyncio.ensure_future(_outcomes(sending))
        while not all_told.done():  # as long as it takes: a tenth of the time that the relay has
            talk.writer.write(b"x")
            await asyncio.wait([all_told], timeout=0.03)
        first, second = await all_told
        assert isinstance(first, ConnectionLost)
        assert not first.uncertain
        assert isinstance(second, ConnectionLost)
        assert second.uncertain  # it was written, and the relay did not close


async def test_the_short_time_holds_again_after_a_long_one() -> None:
    """A final reply that took long does not give the commands behind it EMAIL_FINAL_TIMEOUT as well."""
    async with _talk(Mode.DATA, timeout=0.2, final_timeout=600) as talk:
        first, second = talk.send(10, 10)
        await talk.hear(b"DATA\r\n")
        talk.writer.write(OK + OK + b"354 go\r\n")
        await talk.hear(b"DATA\r\n")
        done, _ = await asyncio.wait([first], timeout=0.5)  # past EMAIL_TIMEOUT, so the clock has been looked at
        assert not done
        talk.writer.write(OK)
        assert (await first)[0].accepted
        (outcome,) = await _outcomes([second])
        assert isinstance(outcome, ConnectionLost)
        assert not outcome.uncertain


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what was acknowledged")
async def test_a_machine_that_is_gone_is_noticed_after_the_short_time() -> None:
    """Where a reply may take long, silence of the relay is patience, but that of its machine is not."""
    async with _talk(Mode.BDAT, timeout=0.2, final_timeout=600) as talk:
        _unplug(talk.writer)
        (outcome,) = await _outcomes(list(talk.send(10)))
        assert isinstance(outcome, ConnectionLost)
        assert "acknowledges nothing" in str(outcome)
        assert outcome.uncertain


async def test_one_look_at_a_machine_that_does_not_answer_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few packets may be lost just then: it is gone when the next look, EMAIL_TIMEOUT later, finds the same."""
    seen = iter([9.0, 0.0, 9.0])
    looks = 0

    def unheard(_: object) -> float:
        nonlocal looks
        looks += 1
        return next(seen, 9.0)

    monkeypatch.setattr(protocol, "unheard", unheard)
    async with _talk(Mode.BDAT, timeout=0.1, final_timeout=600) as talk:
        (outcome,) = await _outcomes(list(talk.send(10)))
        assert isinstance(outcome, ConnectionLost)
    assert looks >= 4


async def test_looks_with_nothing_owed_between_them_are_not_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was seen before a rest says nothing of the connection after it."""
    looks = 0
    ticked: asyncio.Queue[int] = asyncio.Queue()
    tick = protocol.RelayProtocol._tick

    def unheard(_: object) -> float:
        nonlocal looks
        looks += 1
        return 9.0

    def tick_and_tell(self: protocol.RelayProtocol) -> None:
        tick(self)
        ticked.put_nowait(looks)

    monkeypatch.setattr(protocol, "unheard", unheard)
    monkeypatch.setattr(protocol.RelayProtocol, "_tick", tick_and_tell)
    async with _talk(Mode.BDAT, timeout=0.1, final_timeout=600) as talk:
        (first,) = talk.send(10)
        assert await ticked.get() == 1
        talk.writer.write(OK * 4)
        assert (await first)[0].accepted
        assert await ticked.get() == 1  # nothing is owed, so it does not look
        (second,) = talk.send(10)
        assert await ticked.get() == 2
        assert not second.done()
        (outcome,) = await _outcomes([second])
        assert isinstance(outcome, ConnectionLost)
        assert looks >= 3


def _unplug(writer: asyncio.StreamWriter) -> None:
    """Have the kernel drop whatever comes for this end, as if the machine were gone: a filter that takes 0 octets."""
    return_nothing = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))
    program = struct.pack("HP", 1, ctypes.addressof(return_nothing))
    attach_filter = 26  # SO_ATTACH_FILTER, which Python does not name
    with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as connection:
        connection.setsockopt(socket.SOL_SOCKET, attach_filter, program)


async def test_a_relay_that_judges_one_mail_need_not_read_the_next() -> None:
    """Its machine is there, though a large mail fills all buffers for longer than EMAIL_TIMEOUT."""
    async with _talk(Mode.BDAT, timeout=0.2, final_timeout=600) as talk:
        small, large = talk.send(10, 32 << 20)
        await talk.hear(b"BDAT 10 LAST\r\n")
        talk.reader._transport.pause_reading()  # type: ignore[attr-defined]
        done, _ = await asyncio.wait([small, large], timeout=2)
        assert not done
        talk.writer.write(OK * 4)
        assert (await small)[0].accepted


async def test_a_full_window_leaves_at_once() -> None:
    """One mail waits until the turn of the loop is over, for others to leave with it; none can behind the last."""
    async with _talk(Mode.BDAT, window=2) as talk:
        output = talk.connection._session._output
        (first,) = talk.send(10)
        assert output.pending
        (second,) = talk.send(10)
        assert not output.pending
        talk.writer.write(OK * 8)
        assert all(outcome[0].accepted for outcome in await asyncio.gather(first, second))


async def test_nothing_is_written_where_the_connection_is_closing() -> None:
    """It has ended, and only word of that is to come: the mail is certain not to have arrived, and goes elsewhere."""
    async with _talk(Mode.BDAT, window=1) as talk:
        talk.connection._pipeline._transport.abort()
        (outcome,) = await _outcomes(talk.send(10))
        assert isinstance(outcome, ConnectionLost)
        assert not outcome.uncertain


async def test_room_is_told_when_a_large_mail_has_been_written() -> None:
    """Whoever waits for room behind a large mail is woken when it has left, not only when it has been answered."""
    async with _talk(Mode.BDAT) as talk:
        is_available = asyncio.Event()
        talk.connection.watch(on_lost=lambda: None, on_available=is_available.set)
        (sending,) = talk.send(BACKLOG)
        assert not talk.connection.is_available
        async with asyncio.timeout(SOON):
            await is_available.wait()
        assert talk.connection.is_available
        assert not sending.done()
        talk.writer.write(OK * 4)
        assert (await sending)[0].accepted


@pytest.mark.parametrize(
    "said", [OK * 3 + OK * 2 + b"220 hello\r\n", OK * 2 + b"421 4.3.2 bye\r\n" + OK + b"250 ok\r\nwhat\r\n"]
)
async def test_what_one_read_loses_is_told_last_first(said: bytes) -> None:
    """Mails that had a word in the read that ended it all go back ahead of those behind them, in their order."""
    async with _talk(Mode.BDAT) as talk:
        sending = talk.send(10, 10, 10)
        for _ in sending:
            await talk.hear(b"BDAT 10 LAST\r\n")
        talk.writer.write(said)
        outcomes = await _outcomes(sending)
        assert all(isinstance(outcome, ConnectionLost) for outcome in outcomes)
        assert talk.told == [2, 1, 0]


async def test_a_connection_closed_with_a_mail_half_written_is_gone_at_once() -> None:
    """What a relay that has stopped reading was to be sent does not keep the socket."""
    async with _talk(Mode.DATA) as talk:
        gone = asyncio.Event()
        talk.connection._pipeline._inner._connection_lost_callback = lambda _: gone.set()
        (sending,) = talk.send(32 << 20)
        await talk.hear(b"DATA\r\n")
        talk.writer.write(OK + OK + b"354 go\r\n")
        await talk.hear(b"x")
        talk.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await talk.connection.close()
        async with asyncio.timeout(SOON):
            await gone.wait()
        (outcome,) = await _outcomes([sending])
        assert isinstance(outcome, ConnectionLost)
        assert not outcome.uncertain


async def test_a_mail_given_up_by_its_sender_goes_on() -> None:
    """A cancelled future takes nothing back: its replies are read as its own, and the next mail has its own."""
    async with _talk(Mode.BDAT) as talk:
        first, second = talk.send(10, 10)
        await talk.hear(b"BDAT 10 LAST\r\n")
        first.cancel()
        talk.writer.write(OK * 4 + OK + b"550 no\r\n" + b"503 no\r\n" + OK)
        (outcome,) = await _outcomes([second])
        assert isinstance(outcome, tuple)
        assert outcome[0].code == 550
        assert talk.connection.sent == 1


async def test_a_relay_that_trickles_makes_no_progress() -> None:
    """An octet now and then is no reply: EMAIL_TIMEOUT holds from the last whole one."""
    async with _talk(Mode.BDAT, timeout=0.3, final_timeout=0.3) as talk:
        sending = talk.send(10)
        await talk.hear(b"BDAT 10 LAST\r\n")
        talk.writer.write(OK + b"250-")
        all_told = asyncio.ensure_future(_outcomes(list(sending)))
        while not all_told.done():
            talk.writer.write(b"x")
            await asyncio.wait([all_told], timeout=0.03)
        (outcome,) = await all_told
        assert isinstance(outcome, ConnectionLost)
        assert "owed a reply" in str(outcome)
        assert outcome.uncertain
