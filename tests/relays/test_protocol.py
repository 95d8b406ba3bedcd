"""A connection over a real socket: flow control, the clock, the order in which losses are told, and the way back."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from functools import partial

import pytest

from otpmail.errors import ConnectFailed, ConnectionLost, ProbeFailed
from otpmail.model import Envelope
from otpmail.relays.connection import Connection
from otpmail.settings import RelaySettings
from otpmail.smtp.mode import Mode
from otpmail.smtp.transaction import Results
from outcomes import outcome_of
from relay import HOST, Certificates, Faults, Relay


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EMAIL", "APP_PASSWORD", "EMAIL_HOST"):
        monkeypatch.delenv(name, raising=False)


def _settings(port: int, **more: object) -> RelaySettings:
    fields: dict[str, object] = {"host": HOST, "port": port, "security": "plain", "helo": "test", **more}
    make: Callable[..., RelaySettings] = RelaySettings
    return make(**fields)


@contextlib.asynccontextmanager
async def _connected(relay: Relay, tls: ssl.SSLContext | None = None, **more: object) -> AsyncIterator[Connection]:
    settings = _settings(relay.port, security="tls" if tls else "plain", **more)
    connection = await Connection.open(settings, tls or ssl.create_default_context(), lifetime=60)
    try:
        yield connection
    finally:
        await connection.close()


def _note(told: list[int], number: int, _: object) -> None:
    told.append(number)


def _mail(number: int = 0, size: int = 10) -> Envelope:
    lines = b"x" * 62 + b"\r\n"
    return Envelope("a@x.org", (f"p{number}@y.org",), lines * (size // 64) + b"x" * (size % 64) + b"\r\n")


@pytest.mark.parametrize("security", ["plain", "tls"])
async def test_a_window_of_mails(certificates: Certificates, security: str) -> None:
    """Over TCP and over TLS, a full window of mails is taken, each with its own result, and QUIT follows."""
    async with Relay(Faults(auth=(), security=security), certificates=certificates) as relay:  # type: ignore[arg-type]
        tls = certificates.client_context() if security == "tls" else None
        async with _connected(relay, tls) as connection:
            assert (connection.mode, connection.window) == (Mode.BDAT, 16)
            sending = [outcome_of(connection, _mail(n)) for n in range(16)]
            assert not connection.is_available
            results = await asyncio.gather(*sending)
            assert [result[0].address for result in results] == [f"p{n}@y.org" for n in range(16)]
            assert connection.sent == 16
            assert connection.is_available
        await relay.wait_for_command("QUIT")
        assert [mail.recipients for mail in relay.mails] == [(f"p{n}@y.org",) for n in range(16)]


@pytest.mark.parametrize("chunking", [True, False])
async def test_a_large_mail_stays_out_of_the_transports_buffer(chunking: bool) -> None:  # noqa: FBT001
    """Of 10 MiB to a relay that does not read, a few slices leave our hands; when it reads on, all arrives whole."""
    async with Relay(Faults(auth=(), chunking=chunking, silent_at="MAIL")) as relay:
        async with _connected(relay) as connection:
            transport = connection._pipeline._transport
            most = 0
            write = transport.write

            class Watched:
                def __getattr__(self, name: str) -> object:
                    return getattr(transport, name)

                def write(self, data: bytes) -> None:
                    nonlocal most
                    write(data)
                    most = max(most, transport.get_write_buffer_size())

            connection._pipeline._transport = Watched()  # type: ignore[assignment]
            relay.faults = Faults(auth=(), chunking=chunking, delay=0.05)
            (result,) = await outcome_of(connection, _mail(size=10 << 20))
            assert result.accepted
        assert len(relay.mails[0].content) == (10 << 20) + 2
        assert most <= 1 << 20


async def test_replies_are_read_while_a_large_mail_is_written() -> None:
    """A mail that was in flight before a large one has its result while that is still on its way."""
    async with Relay(Faults(auth=())) as relay, _connected(relay) as connection:
        small, large = outcome_of(connection, _mail(1)), outcome_of(connection, _mail(2, size=10 << 20))
        assert not connection.is_available
        done, _ = await asyncio.wait([small, large], return_when=asyncio.FIRST_COMPLETED)
        assert done == {small}
        assert (await large)[0].accepted
        assert connection.is_available


async def test_mails_handed_over_together_leave_in_one_write() -> None:
    """What is sent within one turn of the loop is one write, on an idle connection and behind a mail in flight."""
    async with Relay(Faults(auth=())) as relay, _connected(relay) as connection:
        transport = connection._pipeline._transport
        writes: list[bytes] = []

        class Watched:
            def __getattr__(self, name: str) -> object:
                return getattr(transport, name)

            def write(self, data: bytes) -> None:
                writes.append(data)
                transport.write(data)

        connection._pipeline._transport = Watched()  # type: ignore[assignment]
        sending = [outcome_of(connection, _mail(n)) for n in range(5)]
        await asyncio.sleep(0)  # the turn is over
        assert [data.count(b"BDAT") for data in writes] == [5]
        sending += [outcome_of(connection, _mail(n)) for n in range(5, 10)]
        await asyncio.gather(*sending)
        assert [data.count(b"BDAT") for data in writes] == [5, 5]
        assert len(relay.mails) == 10


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the relay here count as quick, however busy the machine is."""
    monkeypatch.setattr("otpmail.relays.protocol._QUICK_SECONDS", 30.0)


@pytest.mark.usefixtures("quick")
async def test_mails_leave_together_where_the_relay_is_quick() -> None:
    """Till it has answered something nobody knows; then those about to be written are no load to the next one."""
    async with Relay(Faults(auth=())) as relay, _connected(relay) as connection:
        first = outcome_of(connection, _mail())
        assert not connection.batch_open
        await first
        sending = [outcome_of(connection, _mail(n)) for n in range(3)]
        assert (connection.batch_open, connection.in_flight) == (True, 3)
        await asyncio.sleep(0)  # the turn is over
        assert (connection.batch_open, connection.in_flight) == (False, 3), "they have left"
        await asyncio.gather(*sending)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("faults", [Faults(auth=(), chunking=False), Faults(auth=(), pipelining=False)])
async def test_mails_spread_where_one_would_wait_for_another(faults: Faults) -> None:
    """Where each content waits for its 354."""
    async with Relay(faults) as relay, _connected(relay) as connection:
        await outcome_of(connection, _mail())
        sending = outcome_of(connection, _mail())
        assert not connection.batch_open
        await sending


@pytest.mark.parametrize(("each", "together"), [(0.0001, 16), (0.001, 5), (0.003, 1), (0.006, 0)])
async def test_as_many_leave_together_as_the_relay_soon_answers(each: float, together: int) -> None:
    """By what it took for each the last time: the last of them waits for all others."""
    async with Relay(Faults(auth=())) as relay, _connected(relay) as connection:
        await outcome_of(connection, _mail())
        connection._pipeline._each = each
        sending: list[asyncio.Future[Results]] = []
        while len(sending) < 16 and (not sending or connection.batch_open):
            sending.append(outcome_of(connection, _mail()))
            connection._pipeline._busy_since += 60  # however long this takes
        assert len(sending) == max(1, together)
        await asyncio.gather(*sending)


async def test_what_each_mail_took_is_measured() -> None:
    """From when the first was sent until nothing was in flight, over all of them."""
    async with Relay(Faults(auth=(), delay=0.02)) as relay, _connected(relay) as connection:
        sending = [outcome_of(connection, _mail(n)) for n in range(4)]
        connection._pipeline._busy_since -= 60
        await asyncio.gather(*sending)
        assert 15 < connection._pipeline._each < 20


@pytest.mark.usefixtures("quick")
async def test_a_slow_answer_is_noticed_while_it_is_owed() -> None:
    """A quick relay that takes its time over this one: the next mail goes elsewhere, until it is quick again."""
    async with Relay(Faults(auth=())) as relay, _connected(relay) as connection:
        await outcome_of(connection, _mail())
        slow = outcome_of(connection, _mail())
        assert connection.batch_open
        connection._pipeline._busy_since -= 60  # as if a minute had passed
        assert not connection.batch_open
        await slow
        quick = outcome_of(connection, _mail())
        assert not connection.batch_open
        await quick
        last = outcome_of(connection, _mail())
        assert connection.batch_open
        await last


@pytest.mark.parametrize("point", ["MAIL", "BDAT"])
async def test_a_silent_relay_is_left(point: str) -> None:
    """A reply that is owed for EMAIL_FINAL_TIMEOUT ends the connection and tells each mail."""
    async with Relay(Faults(auth=())) as relay:
        async with _connected(relay, timeout=30, final_timeout=0.2) as connection:
            lost = asyncio.Event()
            connection.watch(on_lost=lost.set, on_available=lambda: None)
            relay.faults = Faults(auth=(), silent_at=point)
            told: list[int] = []
            sending = [outcome_of(connection, _mail(n)) for n in range(3)]
            for number, future in enumerate(sending):
                future.add_done_callback(partial(_note, told, number))
            outcomes = await asyncio.gather(*sending, return_exceptions=True)
            await lost.wait()
            assert told == [2, 1, 0]  # the last first: each goes to the front of the queue
            assert all(isinstance(outcome, ConnectionLost) for outcome in outcomes)
            assert [outcome.uncertain for outcome in outcomes if isinstance(outcome, ConnectionLost)] == [True] * 3
            assert not connection.is_available
            with pytest.raises(ConnectionLost):
                await outcome_of(connection, _mail())
        relay.cut_connections()


async def test_the_final_reply_has_a_longer_time() -> None:
    """EMAIL_TIMEOUT does not end a mail whose content the relay is looking at."""
    async with Relay(Faults(auth=())) as relay, _connected(relay, timeout=0.1, final_timeout=30) as connection:
        relay.faults = Faults(auth=(), silent_at="BDAT", times=1)
        sending = outcome_of(connection, _mail())
        await relay.wait_for_command("BDAT", 2)
        done, _ = await asyncio.wait([sending], timeout=0.5)
        assert not done
        relay.cut_connections()
        with pytest.raises(ConnectionLost) as caught:
            await sending
        assert caught.value.uncertain


async def test_a_relay_that_hangs_up_over_the_probe() -> None:
    """That is told apart, so that it is not asked again; a 421 is no more than a relay that is busy."""
    async with Relay(Faults(auth=(), cut_before_reply="BDAT")) as relay:
        with pytest.raises(ProbeFailed):
            await Connection.open(_settings(relay.port), ssl.create_default_context(), lifetime=60)
        connection = await Connection.open(
            _settings(relay.port), ssl.create_default_context(), lifetime=60, mode=Mode.DATA
        )
        assert connection.mode is Mode.DATA
        assert (await outcome_of(connection, _mail()))[0].accepted
        await connection.close()


async def test_what_the_relay_says_too_early_is_not_taken_for_an_answer() -> None:
    """A reply behind the one to EHLO, before anything more was asked, makes the connection unusable from the start."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        await reader.readline()
        writer.write(b"250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n250 one too many\r\n")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        gone.set()

    gone = asyncio.Event()
    server = await asyncio.start_server(serve, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(ConnectFailed, match="more than it was asked for"):
        await Connection.open(_settings(port), ssl.create_default_context(), lifetime=60)
    server.close()
    await gone.wait()


async def test_no_more_than_max_messages() -> None:
    """A connection takes EMAIL_MAX_MESSAGES mails and no more, and is due somewhat before."""
    async with Relay(Faults(auth=())) as relay, _connected(relay, max_messages=4) as connection:
        assert not connection.should_retire
        for _ in range(4):
            assert connection.is_available
            await outcome_of(connection, _mail())
        assert connection.should_retire
        assert not connection.is_available
