"""The protocol over a real socket, with a relay that says what the test wants: how a connection ends, who is woken."""

import asyncio
import contextlib
import ctypes
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import pytest
from aiosmtplib.protocol import SMTPProtocol

from otpmail.errors import ConnectionLost
from otpmail.model import Envelope
from otpmail.relays.protocol import HIGH_WATER, RelayProtocol
from otpmail.relays.timeouts import Timeouts
from otpmail.relays.turnaround import STALLED, Turnaround
from otpmail.smtp.capabilities import Capabilities
from otpmail.smtp.mode import Mode
from otpmail.smtp.session import BACKLOG, Session
from otpmail.smtp.transaction import Results
from outcomes import outcome_of
from relay import HOST

OK = b"250 ok\r\n"
TIMEOUTS = Timeouts(30.0, 300.0, 600.0)
SOON = 10.0  # seconds after which a test fails; none of the waits is long
ALL = Capabilities({"PIPELINING": "", "CHUNKING": ""})


class Inner(asyncio.Protocol):
    """The protocol that had the transport before: as much of aiosmtplib's as is used."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.lost = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Note it."""
        self.lost.set()


class Wire:
    """A transport that keeps what is written to it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.writes: list[bytes] = []
        self.most_buffered = 0
        self.is_full = asyncio.Event()
        self.is_cut = False  # whether nothing goes on to the relay

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def write(self, data: bytes) -> None:
        """Keep it, and write it."""
        self.writes.append(data)
        if not self.is_cut:
            self.transport.write(data)
        self.most_buffered = max(self.most_buffered, self.transport.get_write_buffer_size())
        if self.most_buffered > HIGH_WATER:
            self.is_full.set()


@dataclass
class Talk:
    """The relay's side of a connection, and ours; `resolved` are the mails whose outcomes are known, in that order."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    protocol: RelayProtocol
    session: Session
    wire: Wire
    inner: Inner
    resolved: list[int] = field(default_factory=list)

    @property
    def transport(self) -> asyncio.Transport:
        """The relay's transport."""
        return cast("asyncio.Transport", self.writer.transport)

    async def read_until(self, end: bytes) -> None:
        """Read up to `end`."""
        async with asyncio.timeout(SOON):
            await self.reader.readuntil(end)

    def send(self, *sizes: int) -> list[asyncio.Future[Results]]:
        """Send mails of these sizes, each to its own recipient."""
        sending = []
        for number, size in enumerate(sizes):
            envelope = Envelope("a@x.org", (f"p{number}@y.org",), b"x" * (size - 2) + b"\r\n")
            future = outcome_of(self.protocol, envelope)
            future.add_done_callback(partial(self._note, number))
            sending.append(future)
        return sending

    async def accept(self, mails: int = 1) -> None:
        """Read so many mails by BDAT, and accept them."""
        for _ in range(mails):
            await self.read_until(b"RSET\r\n")
        self.writer.write(OK * 4 * mails)

    def _note(self, number: int, _: object) -> None:
        self.resolved.append(number)


Peers = asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]


@contextlib.asynccontextmanager
async def _connected(
    mode: Mode, *, window: int = 16, timeouts: Timeouts = TIMEOUTS, **more: Any
) -> AsyncIterator[Talk]:
    """A connection over which nothing was said yet."""
    peers = Peers()
    server = await asyncio.start_server(lambda *streams: peers.put_nowait(streams), HOST, 0)
    address = server.sockets[0].getsockname()
    transport, inner = await asyncio.get_running_loop().create_connection(Inner, *address)
    reader, writer = await peers.get()
    wire, session = Wire(transport), Session(ALL, mode, window=window)
    protocol = RelayProtocol(
        cast("asyncio.Transport", wire),
        cast("SMTPProtocol", inner),
        session,
        timeouts=timeouts,
        **more,
    )
    try:
        yield Talk(reader, writer, protocol, session, wire, inner)
    finally:
        if protocol.hand_back():
            transport.close()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        await inner.lost.wait()
        server.close()
        await server.wait_closed()


@contextlib.asynccontextmanager
async def _talk(mode: Mode, **more: Any) -> AsyncIterator[Talk]:
    """A connection on which mails may be sent."""
    async with _connected(mode, **more) as talk:
        probing = asyncio.create_task(talk.protocol.probe())
        if mode is Mode.BDAT:
            await talk.read_until(b"RSET\r\n")
            talk.writer.write(b"503 no\r\n" + OK)
        await probing
        talk.wire.writes.clear()
        yield talk


async def _outcomes(sending: list[asyncio.Future[Results]]) -> list[Results | BaseException]:
    async with asyncio.timeout(SOON):
        return await asyncio.gather(*sending, return_exceptions=True)


async def test_a_probe_that_is_cancelled_ends_without_a_fault() -> None:
    """The dial is given up while the relay has not answered the probe: nothing is raised in the loop."""
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    async with _connected(Mode.BDAT) as talk:
        probing = asyncio.create_task(talk.protocol.probe())
        await talk.read_until(b"RSET\r\n")
        probing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probing
        assert not talk.protocol.hand_back()
        assert await talk.reader.read() == b""
    assert faults == []


async def test_a_relay_that_trickles_after_421_is_left() -> None:
    """Octets that make no reply do not delay the end of a connection on which the relay has said goodbye."""
    async with _talk(Mode.BDAT, goodbye_seconds=0.3) as talk:
        sending = talk.send(10, 10)
        await talk.read_until(b"BDAT 10 LAST\r\n")
        talk.writer.write(b"421 4.3.2 bye\r\n250-")
        all_done = asyncio.ensure_future(_outcomes(sending))
        while not all_done.done():
            talk.writer.write(b"x")
            await asyncio.wait([all_done], timeout=0.03)
        first, second = await all_done
        assert isinstance(first, ConnectionLost)
        assert not first.uncertain
        assert isinstance(second, ConnectionLost)
        assert second.uncertain  # it was written, and the relay did not close


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what was acknowledged")
async def test_a_machine_that_is_gone_is_noticed_after_the_short_time() -> None:
    """A connection waits long for a reply only while the relay's machine acknowledges packets."""
    async with _talk(Mode.BDAT, timeouts=Timeouts(0.2, 2.0, 600.0)) as talk:
        _unplug(talk.writer)
        (outcome,) = await _outcomes(list(talk.send(10)))
        assert isinstance(outcome, ConnectionLost)
        assert "acknowledges nothing" in str(outcome)
        assert outcome.uncertain


def _unplug(writer: asyncio.StreamWriter) -> None:
    """Have the kernel drop all that arrives at this end, as if the machine were gone: a filter that takes 0 octets."""
    return_nothing = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))
    program = struct.pack("HP", 1, ctypes.addressof(return_nothing))
    attach_filter = 26  # SO_ATTACH_FILTER, which Python does not name
    with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as connection:
        connection.setsockopt(socket.SOL_SOCKET, attach_filter, program)


async def test_a_relay_that_judges_one_mail_need_not_read_the_next() -> None:
    """A large mail may fill all buffers beyond EMAIL_TIMEOUT while the relay judges the mail before it."""
    async with _talk(Mode.BDAT, timeouts=Timeouts(0.5, 2.0, 600.0)) as talk:
        small, large = talk.send(10, 32 << 20)
        await talk.read_until(b"BDAT 10 LAST\r\n")
        talk.transport.pause_reading()
        done, _ = await asyncio.wait([small, large], timeout=2)
        assert not done
        talk.writer.write(OK * 4)
        assert (await small)[0].accepted


async def test_mails_handed_over_together_leave_in_one_write() -> None:
    """All that is sent within one turn of the loop is one write, on an idle connection and behind a mail in flight."""
    async with _talk(Mode.BDAT) as talk:
        sending = talk.send(*[10] * 5)
        await asyncio.sleep(0)  # the turn is over
        assert [data.count(b"BDAT") for data in talk.wire.writes] == [5]
        sending += talk.send(*[10] * 5)
        await talk.accept(10)
        await asyncio.gather(*sending)
        assert [data.count(b"BDAT") for data in talk.wire.writes] == [5, 5]


@pytest.mark.parametrize("mode", [Mode.BDAT, Mode.DATA])
async def test_a_large_mail_stays_out_of_the_transports_buffer(mode: Mode) -> None:
    """Of 10 MiB to a relay that does not read, a few slices leave our hands; when it reads on, all arrives whole."""
    async with _talk(mode) as talk:
        (sending,) = talk.send(10 << 20)
        if mode is Mode.DATA:
            await talk.read_until(b"DATA\r\n")
            talk.transport.pause_reading()
            talk.writer.write(OK + OK + b"354 go\r\n")
        else:
            talk.transport.pause_reading()
        async with asyncio.timeout(SOON):
            await talk.wire.is_full.wait()
        assert talk.wire.most_buffered <= 1 << 20
        talk.transport.resume_reading()
        async with asyncio.timeout(SOON):
            read, end = 0, b""
            while end != b"RSET\r\n":
                data = await talk.reader.read(1 << 20)
                read, end = read + len(data), (end + data)[-6:]
        assert read > 10 << 20
        assert talk.wire.most_buffered <= 1 << 20
        talk.writer.write(OK * 4 if mode is Mode.BDAT else OK * 2)
        assert (await sending)[0].accepted


async def test_a_large_mail_to_a_quick_relay_leaves_turn_by_turn() -> None:
    """Where the transport takes whatever it gets, a turn of the loop still writes no more than a few slices."""
    async with _talk(Mode.BDAT) as talk:
        talk.wire.is_cut = True
        (sending,) = talk.send(10 << 20)
        turns = []
        while talk.session.output.pending:
            talk.wire.writes.clear()
            await asyncio.sleep(0)
            turns.append(sum(map(len, talk.wire.writes)))
        assert max(turns) <= 512 << 10
        assert sum(turns) > 10 << 20
    assert isinstance((await _outcomes([sending]))[0], ConnectionLost)


async def test_a_batch_is_open_until_the_turn_is_over_where_the_relay_is_quick() -> None:
    """A batch stays open until the turn of the loop is over, once the relay's answers have shown it to be quick."""
    async with _talk(Mode.BDAT, turnaround=Turnaround(soon=600.0)) as talk:
        (first,) = talk.send(10)
        assert talk.protocol.load() == 1
        await talk.accept()
        await first
        assert talk.protocol.load() == 0
        sending = talk.send(10, 10)
        assert talk.protocol.load() == 0, "one more would leave with them"
        await asyncio.sleep(0)  # the turn is over
        assert talk.protocol.load() == 2, "they have left"
        await talk.accept(2)
        await asyncio.gather(*sending)


async def test_a_batch_is_never_open_where_each_content_waits_for_its_354() -> None:
    """No batch is open in data mode, where one mail would wait for the other, however quick the relay is."""
    async with _talk(Mode.DATA, turnaround=Turnaround(soon=600.0)) as talk:
        for _ in range(2):
            (sending,) = talk.send(10)
            assert talk.protocol.load() == 1
            await talk.read_until(b"DATA\r\n")
            talk.writer.write(OK + OK + b"354 go\r\n")
            await talk.read_until(b"RSET\r\n")
            talk.writer.write(OK + OK)
            await sending


async def test_mails_that_make_no_progress_weigh_more_than_any_number_that_do() -> None:
    """Once the relay has been silent for the stall time, the load is STALLED above the mails in flight."""
    async with _talk(Mode.BDAT) as talk, asyncio.timeout(20):
        sending = talk.send(10, 10)
        await asyncio.sleep(0)  # the turn is over
        assert talk.protocol.load() == 2
        while not talk.protocol.stalled:  # noqa: ASYNC110  it is a matter of time alone
            await asyncio.sleep(0.01)
        assert talk.protocol.load() == STALLED + 2
        await talk.accept(2)
        await asyncio.gather(*sending)
        assert talk.protocol.load() == 0


async def test_a_full_window_leaves_at_once() -> None:
    """A mail waits until the turn of the loop is over, for others to leave with it, unless the window is full."""
    async with _talk(Mode.BDAT, window=2) as talk:
        (first,) = talk.send(10)
        assert talk.wire.writes == []
        (second,) = talk.send(10)
        assert [data.count(b"BDAT") for data in talk.wire.writes] == [2]
        talk.writer.write(OK * 8)
        assert all(outcome[0].accepted for outcome in await asyncio.gather(first, second))


async def test_nothing_is_written_where_the_connection_is_closing() -> None:
    """The loss is about to be notified: the mail is certain not to have arrived, and goes over another connection."""
    async with _talk(Mode.BDAT, window=1) as talk:
        talk.wire.abort()
        (outcome,) = await _outcomes(talk.send(10))
        assert isinstance(outcome, ConnectionLost)
        assert not outcome.uncertain


async def test_it_is_available_again_when_a_large_mail_has_been_written() -> None:
    """`on_available` is called when the large mail has left, not only when it has been answered."""
    async with _talk(Mode.BDAT) as talk:
        is_available = asyncio.Event()
        talk.protocol.on_available = is_available.set
        (sending,) = talk.send(BACKLOG)
        assert not talk.session.is_available
        async with asyncio.timeout(SOON):
            await is_available.wait()
        assert talk.session.is_available
        assert not sending.done()
        talk.writer.write(OK * 4)
        assert (await sending)[0].accepted


@pytest.mark.parametrize(
    "said", [OK * 3 + OK * 2 + b"354 go\r\n", OK * 2 + b"421 4.3.2 bye\r\n" + OK + b"250 ok\r\nwhat\r\n"]
)
async def test_mails_that_one_read_loses_are_resolved_last_first(said: bytes) -> None:
    """Mails that had a reply in the read that ended the session go back ahead of those behind them, in their order."""
    async with _talk(Mode.BDAT) as talk:
        sending = talk.send(10, 10, 10)
        for _ in sending:
            await talk.read_until(b"BDAT 10 LAST\r\n")
        talk.writer.write(said)
        outcomes = await _outcomes(sending)
        assert all(isinstance(outcome, ConnectionLost) for outcome in outcomes)
        assert talk.resolved == [2, 1, 0]


async def test_a_connection_closed_with_a_mail_half_written_is_gone_at_once() -> None:
    """Octets that wait for a relay which has stopped reading do not keep the socket open."""
    async with _talk(Mode.DATA) as talk:
        (sending,) = talk.send(32 << 20)
        await talk.read_until(b"DATA\r\n")
        talk.writer.write(OK + OK + b"354 go\r\n")
        await talk.read_until(b"x")
        talk.transport.pause_reading()
        assert not talk.protocol.hand_back()
        async with asyncio.timeout(SOON):
            await talk.inner.lost.wait()
        (outcome,) = await _outcomes([sending])
        assert isinstance(outcome, ConnectionLost)
        assert not outcome.uncertain


async def test_a_mail_whose_sender_has_cancelled_goes_on() -> None:
    """A mail whose caller has cancelled keeps its own replies, and the next mail gets those to its own commands."""
    async with _talk(Mode.BDAT) as talk:
        first, second = talk.send(10, 10)
        await talk.read_until(b"BDAT 10 LAST\r\n")
        first.cancel()
        talk.writer.write(OK * 4 + OK + b"550 no\r\n" + b"503 no\r\n" + OK)
        (outcome,) = await _outcomes([second])
        assert isinstance(outcome, tuple)
        assert outcome[0].code == 550
        assert talk.session.sent == 1


async def test_a_relay_that_trickles_makes_no_progress() -> None:
    """An octet now and then is no reply: the timeout runs from the last whole one."""
    async with _talk(Mode.BDAT, timeouts=Timeouts(0.3, 0.3, 0.3)) as talk:
        sending = talk.send(10)
        await talk.read_until(b"BDAT 10 LAST\r\n")
        talk.writer.write(OK + b"250-")
        all_done = asyncio.ensure_future(_outcomes(list(sending)))
        while not all_done.done():
            talk.writer.write(b"x")
            await asyncio.wait([all_done], timeout=0.03)
        (outcome,) = await all_done
        assert isinstance(outcome, ConnectionLost)
        assert "no answer within" in str(outcome)
        assert outcome.uncertain


@pytest.mark.parametrize("end", ["421", "close", "reset"])
@pytest.mark.parametrize("idle_seconds", [0.0, 600.0], ids=["idle", "in use"])
async def test_only_an_end_over_mails_is_a_hang_up(end: str, idle_seconds: float) -> None:
    """A relay that closes right behind a reply does so over the mails; one that closes later finds us idle."""
    async with _talk(Mode.BDAT, idle_seconds=idle_seconds) as talk:
        lost = asyncio.Event()
        talk.protocol.on_lost = lost.set
        (sending,) = talk.send(10)
        await talk.read_until(b"BDAT 10 LAST\r\n")
        talk.writer.write(OK * 4)
        await sending
        await _end(talk, end)
        await lost.wait()
        assert talk.protocol.hung_up == (idle_seconds > 0)


@pytest.mark.parametrize("end", ["421", "close", "reset"])
async def test_an_end_with_mails_in_flight_is_a_hang_up(end: str) -> None:
    """Without 421 the mails in flight are counted: the relay may have answered some of them."""
    async with _talk(Mode.BDAT, idle_seconds=0.0) as talk:
        first, *others = talk.send(10, 10, 10)
        await talk.read_until(b"BDAT 10 LAST\r\n")
        talk.writer.write(OK * 4)
        await first
        await _end(talk, end)
        assert all(isinstance(outcome, ConnectionLost) for outcome in await _outcomes(others))
        assert (talk.protocol.hung_up, talk.session.answered) == (True, 1)
        assert talk.protocol.lost_in_flight == (0 if end == "421" else 2)


async def test_a_timeout_is_no_hang_up() -> None:
    """A timeout is no hang-up, since the connection was ended by us and not by the relay."""
    async with _talk(Mode.BDAT, timeouts=Timeouts(0.05, 0.05, 0.05)) as talk:
        (outcome,) = await _outcomes(talk.send(10))
        assert isinstance(outcome, ConnectionLost)
        assert not talk.protocol.hung_up


async def _end(talk: Talk, how: str) -> None:
    """End the connection from the relay's side, as soon as all that it said has left."""
    await talk.writer.drain()
    if how == "421":
        talk.writer.write(b"421 4.7.0 enough\r\n")
        talk.writer.write_eof()
    elif how == "close":
        talk.writer.write_eof()
    else:
        reset_on_close = struct.pack("ii", 1, 0)
        talk.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset_on_close)
        talk.writer.transport.abort()
