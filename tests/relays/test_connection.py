"""A connection to the relay of the tests: how mails are sent on it, and when it ends."""

import asyncio
import contextlib
import gc
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial

import pytest

from alive import alive
from otpmail.errors import ConnectFailed, ConnectionLost, ProbeFailed
from otpmail.model import Envelope
from otpmail.relays.connection import Connection
from otpmail.relays.message_limit import Bounds
from otpmail.relays.protocol import RelayProtocol
from otpmail.relays.watchdog import Watchdog
from otpmail.settings import RelaySettings
from otpmail.smtp.mode import Mode
from otpmail.smtp.session import Session
from otpmail.smtp.transaction import Outcome
from outcomes import outcome_of
from relay import HOST, Certificates, Faults, Relay
from relays.dials import open_connection

_PARTS = (Connection, RelayProtocol, Session, Watchdog, ssl.SSLObject)


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
    connection = await open_connection(settings, tls)
    try:
        yield connection
    finally:
        await connection.close()


def _note(resolved: list[int], number: int, _: object) -> None:
    resolved.append(number)


def _nothing() -> None:
    pass


def _mail(number: int = 0, size: int = 10) -> Envelope:
    lines = b"x" * 62 + b"\r\n"
    return Envelope("a@x.org", (f"p{number}@y.org",), lines * (size // 64) + b"x" * (size % 64) + b"\r\n")


@pytest.mark.parametrize("end", ["closed", "421", "cut", "unanswered"])
@pytest.mark.parametrize("security", ["plain", "tls"])
async def test_the_memory_of_a_connection_is_free_at_once(certificates: Certificates, security: str, end: str) -> None:
    """All that a connection needs is gone with it, without a collection of garbage: those of all objects are rare.

    A relay may end a connection after each few mails.
    """
    tls = certificates.client_context() if security == "tls" else None
    async with Relay(Faults(auth=(), security=security), certificates=certificates) as relay:  # type: ignore[arg-type]
        gc.collect()
        before = alive(*_PARTS)
        gc.disable()
        try:
            for _ in range(3):
                await _open_and_end(relay, tls, end)
            async with asyncio.timeout(20):
                while alive(*_PARTS) > before:  # noqa: ASYNC110  the loop closes the transports in its next turns
                    await asyncio.sleep(0.01)
        finally:
            gc.enable()


async def _open_and_end(relay: Relay, tls: ssl.SSLContext | None, end: str) -> None:
    """Send a mail over a connection whose callbacks hold it, as a worker's do, and let it end in that way."""
    before = alive(*_PARTS)
    async with _connected(relay, tls) as connection:
        assert alive(*_PARTS) > before
        lost, outcomes = asyncio.Event(), list[Outcome]()
        connection.on_closed = partial(_note, [], 0, connection)
        connection.watch(
            on_lost=lost.set,
            on_available=partial(_note, [], 0, connection),
            on_limit=partial(_note, [], 0, connection),
        )
        await outcome_of(connection, _mail())
        silent_at, closing_at = ("MAIL" if end == one else None for one in ("unanswered", "421"))
        relay.faults = replace(relay.faults, silent_at=silent_at, closing_at=closing_at)
        if end == "cut":
            relay.cut_connections()
        elif end != "closed":
            connection.send(_mail(), outcomes.append)  # an error that is raised would hold all frames on its way
        if end in {"421", "cut"}:
            await lost.wait()
    assert [type(outcome) for outcome in outcomes] == ([ConnectionLost] if end in {"421", "unanswered"} else [])
    relay.faults = replace(relay.faults, silent_at=None, closing_at=None)


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


async def test_replies_are_read_while_a_large_mail_is_written() -> None:
    """A mail that was in flight before a large one gets its result while the large one is being written."""
    async with Relay(Faults(auth=())) as relay, _connected(relay) as connection:
        small, large = outcome_of(connection, _mail(1)), outcome_of(connection, _mail(2, size=10 << 20))
        assert not connection.is_available
        done, _ = await asyncio.wait([small, large], return_when=asyncio.FIRST_COMPLETED)
        assert done == {small}
        assert (await large)[0].accepted
        assert connection.is_available


@pytest.mark.parametrize("point", ["MAIL", "BDAT"])
async def test_a_silent_relay_is_left(point: str) -> None:
    """A reply that is overdue by EMAIL_FINAL_TIMEOUT ends the connection, and each mail gets ConnectionLost."""
    async with Relay(Faults(auth=())) as relay:
        async with _connected(relay, timeout=30, final_timeout=0.2) as connection:
            lost = asyncio.Event()
            connection.watch(on_lost=lost.set, on_available=lambda: None)
            relay.faults = Faults(auth=(), silent_at=point)
            resolved: list[int] = []
            sending = [outcome_of(connection, _mail(n)) for n in range(3)]
            for number, future in enumerate(sending):
                future.add_done_callback(partial(_note, resolved, number))
            outcomes = await asyncio.gather(*sending, return_exceptions=True)
            await lost.wait()
            assert resolved == [2, 1, 0]  # the last first: each goes to the front of the queue
            assert all(isinstance(outcome, ConnectionLost) for outcome in outcomes)
            assert [outcome.uncertain for outcome in outcomes if isinstance(outcome, ConnectionLost)] == [True] * 3
            assert not connection.is_available
            with pytest.raises(ConnectionLost):
                await outcome_of(connection, _mail())
        relay.cut_connections()


async def test_the_final_reply_has_a_longer_time() -> None:
    """EMAIL_TIMEOUT does not end a mail whose content the relay is looking at."""
    async with Relay(Faults(auth=())) as relay, _connected(relay, timeout=1.5, final_timeout=30) as connection:
        relay.faults = Faults(auth=(), silent_at="BDAT", times=1)
        sending = outcome_of(connection, _mail())
        await relay.wait_for_command("BDAT", 2)
        done, _ = await asyncio.wait([sending], timeout=2.0)
        assert not done
        relay.cut_connections()
        with pytest.raises(ConnectionLost) as caught:
            await sending
        assert caught.value.uncertain


@pytest.mark.parametrize("ends", [{"cut_before_reply": "BDAT"}, {"closing_at": "BDAT"}, {"closing_at": "RSET"}])
async def test_a_relay_that_hangs_up_over_the_probe(ends: dict[str, str]) -> None:
    """A relay that ends the connection over the probe raises ProbeFailed, also with 421, so it is not probed again."""
    async with Relay(Faults(auth=(), **ends)) as relay:  # type: ignore[arg-type]
        with pytest.raises(ProbeFailed):
            await open_connection(_settings(relay.port))
        connection = await open_connection(_settings(relay.port), mode=Mode.DATA)
        assert connection.mode is Mode.DATA
        assert (await outcome_of(connection, _mail()))[0].accepted
        await connection.close()


async def test_a_reply_that_comes_too_early_is_not_taken_for_an_answer() -> None:
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
        await open_connection(_settings(port))
    server.close()
    await gone.wait()


async def test_no_more_than_max_messages() -> None:
    """A connection takes EMAIL_MAX_MESSAGES mails and no more, and is due for replacement before the last one."""
    async with Relay(Faults(auth=())) as relay, _connected(relay, max_messages=4) as connection:
        assert connection.retire_at > asyncio.get_running_loop().time()
        for _ in range(4):
            assert connection.is_available
            await outcome_of(connection, _mail())
        assert connection.retire_at <= asyncio.get_running_loop().time()
        assert not connection.is_available


async def test_in_the_careful_range_mails_go_one_at_a_time() -> None:
    """Around a count at which the relay may end the connection, each mail waits for the answer to the one before."""
    async with Relay(Faults(auth=(), delay=0.01)) as relay, _connected(relay) as connection:
        connection.limit(Bounds(careful=range(2, 4)), None)
        together = []
        while connection.is_available:
            together.append(outcome_of(connection, _mail()))
        assert len(together) == 2
        await asyncio.gather(*together)
        assert connection.is_available
        alone = outcome_of(connection, _mail())
        assert not connection.is_available
        await alone
        beyond = [outcome_of(connection, _mail()) for _ in range(5)]
        assert connection.is_available
        await asyncio.gather(*beyond)


async def test_new_bounds_are_notified_when_they_change() -> None:
    """The connection notifies its worker of new bounds, since it may be exhausted now or due for replacement."""
    async with Relay(Faults(auth=())) as relay, _connected(relay) as connection:
        changes: list[int] = []
        connection.watch(on_lost=_nothing, on_available=_nothing, on_limit=lambda: changes.append(connection.most))
        for most in (100, 100, 50, 100):
            connection.limit(Bounds(most), None)
        assert changes == [100, 50, 100]


async def test_an_urgent_mail_may_exceed_the_limit_of_the_others() -> None:
    """A connection whose limit of mails in flight is reached takes urgent ones, up to its window and its last mail."""
    async with Relay(Faults(auth=(), silent_at="MAIL")) as relay, _connected(relay, window=4) as connection:
        connection.start_with(2)
        room = []
        for n in range(5):
            room.append((connection.is_available, connection.takes_urgent))
            if n < 4:
                connection.send(_mail(n), partial(_note, [], n))
        assert room == [(True, True), (True, True), (False, True), (False, True), (False, False)]
    async with Relay(Faults(auth=())) as relay, _connected(relay, max_messages=2) as connection:
        for n in range(2):
            assert connection.takes_urgent
            await outcome_of(connection, _mail(n))
        assert not connection.takes_urgent


async def test_an_urgent_mail_is_alone_where_the_relay_may_close() -> None:
    """Around a suspected limit of mails a connection takes no urgent mail beside another one, and none once lost."""
    async with Relay(Faults(auth=())) as relay, _connected(relay) as connection:
        assert connection.takes_urgent
        connection.limit(Bounds(careful=range(9)), None)
        assert (connection.is_available, connection.takes_urgent) == (True, False)
        connection.limit(Bounds(), None)
        connection.dismiss("left")
        assert not connection.takes_urgent
