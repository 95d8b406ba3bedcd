"""One relay, and several in order: which is dialled when, and when a relay counts as down. Real sockets, no worker."""

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from otpmail.errors import ConnectFailed, ConnectionLost
from otpmail.events import ALL_EVENTS, ChunkingDisabled, Event, RelayDown, RelayUp
from otpmail.model import Envelope
from otpmail.relays.connection import Connection
from otpmail.relays.failover import Failover
from otpmail.relays.relay import Relay
from otpmail.settings import RelaySettings
from otpmail.smtp.mode import Mode
from otpmail.smtp.reply_kind import kind_of_result
from outcomes import outcome_of
from relay import HOST, Faults
from relay import Relay as Server

_MAIL = Envelope("a@x.org", ("b@y.org",), b"Subject: s\r\n\r\n")

pytestmark = pytest.mark.usefixtures("_no_settings")


@pytest.fixture
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EMAIL", "APP_PASSWORD", "EMAIL_HOST", "EMAIL_RELAYS"):
        monkeypatch.delenv(name, raising=False)


class Noted(list[Event]):
    """An observer that keeps the events."""

    event_types = ALL_EVENTS

    def __init__(self) -> None:
        super().__init__()
        self.down = asyncio.Event()  # set once a relay has been down

    def notify(self, event: Event) -> None:
        """Keep it."""
        self.append(event)
        if isinstance(event, RelayDown):
            self.down.set()


def _relay(
    server: Server, noted: Noted, *, look_seconds: float = 1.0, notice_seconds: float = 1.0, **more: object
) -> Relay:
    make: Callable[..., RelaySettings] = RelaySettings
    fields: dict[str, object] = {
        "host": HOST,
        "port": server.port,
        "security": "plain",
        "EMAIL": "user",
        "APP_PASSWORD": "secret",
        "helo": "test",
        "retry_seconds": 0.05,
        **more,
    }
    return Relay(
        make(**fields),
        noted,
        workers=5,
        random=lambda: 0.5,
        look_seconds=look_seconds,
        notice_seconds=notice_seconds,
    )


async def _gone(connection: Connection) -> None:
    """Wait until it is lost, and release it, as a worker does."""
    lost = asyncio.Event()
    connection.watch(on_lost=lost.set, on_available=lambda: None)
    if not connection.lost_cause:
        await lost.wait()
    connection.owner.released(connection)
    await connection.close()


async def test_a_refused_sign_in_sends_the_others_to_the_next_relay() -> None:
    """After a refused sign-in other workers go to the next relay, although an older connection is still open."""
    noted = Noted()
    async with Server(Faults()) as first, Server(Faults()) as second:
        failover = Failover([_relay(first, noted), _relay(second, noted)])
        before = await failover.connect()
        first.faults = Faults(refuse_auth="535 5.7.8 changed")
        async with asyncio.timeout(20):
            others = await asyncio.gather(*(failover.connect() for _ in range(3)))
        assert {connection.owner.name for connection in others} == {f"{HOST}:{second.port}"}
        for connection in (before, *others):
            await connection.close()


async def test_a_relay_that_takes_no_more_connections_sends_the_others_to_the_next() -> None:
    """A relay that takes no more connections is not down and serves on; the other workers go to the next relay."""
    noted = Noted()
    async with Server(Faults(most_open=1)) as first, Server(Faults()) as second:
        relays = [_relay(first, noted, retry_seconds=60), _relay(second, noted)]
        failover = Failover(relays)
        only = await failover.connect()
        assert only.owner is relays[0]
        async with asyncio.timeout(20):
            others = [await failover.connect() for _ in range(3)]
        assert {connection.owner for connection in others} == {relays[1]}
        assert first.connections == 2  # the one that it had, and one that was refused for all
        assert not relays[0].down
        assert not only.lost_cause
        for connection in (only, *others):
            await connection.close()


async def test_a_relay_without_room_for_one_connection_is_dialled_with_backoff() -> None:
    """A relay that refuses each mail for the number of connections, also on the only one, is not dialled on and on."""
    # Microsoft 365, where other programs hold the three connections of the mailbox.
    faults = Faults(most_open=0, crowded_at="MAIL", crowded="432 4.3.2 Concurrent connections limit exceeded")
    async with Server(faults) as server:
        relay = _relay(server, Noted(), retry_seconds=60)
        while not relay.retry_after and server.connections < 20:  # the first is spared, and the clock may be coarse
            connection = await relay.connect()
            envelope = Envelope("a@example.org", ("b@example.org",), b"Subject: x\r\n\r\n")
            [refused] = await outcome_of(connection, envelope)
            connection.owner.refused(connection, kind_of_result(refused))
            await _gone(connection)
        assert relay.retry_after > 40


async def test_only_patient_dials_wait_for_a_relay_that_takes_no_more_connections() -> None:
    """Patient dials wait for a free slot or the next try, and other dials raise ConnectFailed."""
    async with Server(Faults(most_open=1)) as server:
        relay = _relay(server, Noted(), retry_seconds=60)
        only = await relay.connect()
        async with asyncio.timeout(20):
            with pytest.raises(ConnectFailed, match="takes no further connection"):
                await relay.connect(patient=False)
        waiting = asyncio.create_task(relay.connect())
        await asyncio.wait({waiting}, timeout=0.05)
        assert not waiting.done()
        assert server.connections == 2
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        await only.close()


async def test_no_worker_waits_for_the_dial_to_a_relay_that_is_down() -> None:
    """While one worker dials the first relay, which does not answer, others get the second at once."""
    noted = Noted()
    async with Server(Faults()) as first, Server(Faults()) as second:
        await first.close()
        failover = Failover([_relay(first, noted, timeout=30), _relay(second, noted)])
        second_choice = await failover.connect()
        assert second_choice.owner.name == f"{HOST}:{second.port}"
        first.faults = Faults(silent_at="CONNECT")
        await first.start()
        await asyncio.sleep(
            failover.return_at(second_choice) - asyncio.get_running_loop().time() + 0.01
        )  # loops wake early
        trying = asyncio.create_task(failover.connect_before(second_choice))
        await first.wait_for_connections(1)
        async with asyncio.timeout(20):
            another = await failover.connect()
        assert another.owner.name == f"{HOST}:{second.port}"
        trying.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await trying
        for connection in (second_choice, another):
            await connection.close()
        first.cut_connections()


async def test_workers_behind_a_dial_move_on_once_the_relay_counts_as_down() -> None:
    """A relay that does not answer any more holds up the worker that dials it, and no other."""
    noted = Noted()
    async with Server(Faults()) as first, Server(Faults()) as second:
        relays = _relay(first, noted, timeout=30, look_seconds=0.05), _relay(second, noted)
        failover = Failover(relays)
        only = await failover.connect()
        first.faults = Faults(silent_at="CONNECT")
        first.cut_connections()
        await _gone(only)
        dialling = asyncio.create_task(failover.connect())
        await first.wait_for_connections(2)
        async with asyncio.timeout(20):
            second_choice = await failover.connect()
        assert second_choice.owner.name == f"{HOST}:{second.port}"
        assert not dialling.done()
        dialling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await dialling
        await second_choice.close()
        first.cut_connections()


async def test_an_earlier_relay_that_is_down_gives_no_connection() -> None:
    """`connect_before` raises ConnectFailed at once."""
    noted = Noted()
    async with Server(Faults()) as first, Server(Faults()) as second:
        await first.close()
        failover = Failover([_relay(first, noted, retry_seconds=60), _relay(second, noted)])
        second_choice = await failover.connect()
        with pytest.raises(ConnectFailed):
            await failover.connect_before(second_choice)
        assert failover.return_at(second_choice) > asyncio.get_running_loop().time() + 30
        assert not failover.down
        await second_choice.close()


async def test_while_one_dials_a_relay_that_is_down_others_look_again_later() -> None:
    """While one worker dials a relay, others are refused at once, and `return_at` moves on so that they wait."""
    noted = Noted()
    async with Server(Faults(silent_at="CONNECT")) as server:
        await server.close()
        relay = _relay(server, noted)
        dialling = asyncio.create_task(relay.connect())
        await noted.down.wait()
        await server.start()
        await server.wait_for_connections(1)
        assert relay.retry_after == 0
        assert relay.return_at >= asyncio.get_running_loop().time() + 0.9
        with pytest.raises(ConnectFailed):
            await relay.connect(patient=False)
        dialling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await dialling
        server.cut_connections()


async def test_every_worker_dials_for_itself_where_we_closed_the_last_connection() -> None:
    """With a limit of one mail on a connection all workers need a new one at once, and nothing has failed."""
    async with Server(Faults()) as server:
        relay = _relay(server, Noted())
        for connection in [await relay.connect() for _ in range(2)]:
            relay.released(connection)
            await connection.close()
        server.faults = Faults(silent_at="CONNECT")
        dialling = [asyncio.create_task(relay.connect()) for _ in range(2)]
        await server.wait_for_connections(4)
        server.faults = Faults()
        server.cut_connections()
        connections = await asyncio.gather(*dialling)
        assert {connection.owner for connection in connections} == {relay}
        for connection in connections:
            await connection.close()


async def test_a_slot_that_is_freed_is_used_at_once() -> None:
    """A dial that waits for a relay with a limit of connections starts when one is closed, not when it is released."""
    noted = Noted()
    async with Server(Faults(most_open=1)) as server:
        relay = _relay(server, noted, retry_seconds=60)
        only = await relay.connect()
        waiting = asyncio.create_task(relay.connect())
        await server.wait_for_connections(2)
        await server.wait_for_open(1)
        only.owner.released(only)
        await only.close()
        async with asyncio.timeout(20):
            connection = await waiting
        assert server.connections == 3
        await connection.close()


async def test_a_relay_that_begins_to_hang_up_counts_as_down() -> None:
    """A relay that was up, and then hangs up after each sign-in, is down although no dial fails."""
    noted = Noted()
    async with Server(Faults()) as server:
        relay = _relay(server, noted, notice_seconds=0.2)
        connection = await relay.connect()
        assert isinstance(noted[0], RelayUp)
        server.faults = Faults(cut_after_reply="RSET")
        server.cut_connections()

        async def work(connection: Connection) -> None:
            while True:
                await _gone(connection)
                connection = await relay.connect()

        working = asyncio.create_task(work(connection))
        async with asyncio.timeout(10):
            await noted.down.wait()
        assert relay.down
        assert sum(isinstance(event, RelayDown) for event in noted) == 1
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working


async def test_a_relay_is_down_while_one_dial_is_refused_and_another_hangs() -> None:
    """A connection too many is no failure beside other dials, but if none of them opens soon, the relay is down."""
    noted = Noted()
    async with Server(Faults()) as server:
        relay = _relay(server, noted, timeout=60, notice_seconds=0.05)
        only = await relay.connect()
        only.keep_idle(0)
        relay.released(only)
        await only.close()
        server.faults = Faults(silent_at="CONNECT", times=1, most_open=1)
        hanging = asyncio.create_task(relay.connect())
        await server.wait_for_connections(2)
        waiting = asyncio.create_task(relay.connect())
        async with asyncio.timeout(10):
            await noted.down.wait()
        assert relay.down
        for task in (hanging, waiting):
            task.cancel()
        await asyncio.wait([hanging, waiting])
        server.cut_connections()


async def test_chunks_are_avoided_after_two_probes_that_end_a_connection() -> None:
    """After two failed probes in a row mails go by DATA without a probe, since one may be a network fault."""
    noted = Noted()
    async with Server(Faults(cut_before_reply="BDAT", times=1)) as server:
        relay = _relay(server, noted)
        connection = await relay.connect()
        assert connection.mode is Mode.BDAT
        await connection.close()
        connection.owner.released(connection)
        server.faults = Faults(cut_before_reply="BDAT")
        connection = await relay.connect()
        assert connection.mode is Mode.DATA
        assert sum(isinstance(event, ChunkingDisabled) for event in noted) == 1
        await connection.close()


async def test_chunks_that_were_seen_to_run_are_never_sent_again() -> None:
    """The relay was seen to do so, and time does not change it."""
    noted = Noted()
    async with Server(Faults(runs_refused_chunks=True)) as server:
        relay = _relay(server, noted, max_age=0.01)
        for _ in range(2):
            connection = await relay.connect()
            assert connection.mode is Mode.DATA
            await connection.close()
            connection.owner.released(connection)
        probes = sum(command.line.startswith("BDAT") for command in server.commands)
        assert probes == 1
        assert sum(isinstance(event, ChunkingDisabled) for event in noted) == 1


async def _send(connection: Connection) -> None:
    """Send a mail, and tell its relay what a worker does."""
    connection.owner.throttle.take_slot(urgent=True)
    results = await outcome_of(connection, _MAIL)
    if results[0].accepted:
        connection.owner.accepted_mail(connection)
    else:
        connection.owner.refused(connection, kind_of_result(results[0]))


async def test_a_relay_that_hung_up_is_up_with_the_first_mail_that_it_accepts() -> None:
    """Its next connection may end at once too, so it is not up when that opens; a mail proves that it is."""
    noted = Noted()
    async with Server(Faults(cut_before_reply="MAIL", times=1)) as server:
        relay = _relay(server, noted, notice_seconds=60)
        cut, unused = await relay.connect(), await relay.connect()
        with pytest.raises(ConnectionLost):
            await outcome_of(cut, _MAIL)
        await _gone(cut)
        await server.close()
        unused.keep_idle(0)
        await _gone(unused)
        dialling = asyncio.create_task(relay.connect())
        await noted.down.wait()
        await server.start()
        async with asyncio.timeout(20):
            connection = await dialling
        assert relay.down
        await _send(connection)
        assert not relay.down
        assert sum(isinstance(event, RelayUp) for event in noted) == 2
        await connection.close()


async def test_a_probe_that_the_relay_counts_as_an_error_costs_no_pause() -> None:
    """A relay that says 421 "too many errors" to the probe is dialled again at once, by DATA, and is never down."""
    noted = Noted()
    async with Server(Faults(most_errors=1)) as server:
        relay = _relay(server, noted, retry_seconds=60)
        async with asyncio.timeout(10):
            first = await relay.connect()
            second = await relay.connect()
        assert (first.mode, second.mode) == (Mode.DATA, Mode.DATA)
        assert server.connections == 3
        assert not any(isinstance(event, RelayDown) for event in noted)
        assert sum(isinstance(event, ChunkingDisabled) for event in noted) == 1
        for connection in (first, second):
            await connection.close()


async def test_a_relay_that_refuses_all_as_too_fast_is_tried_by_one_worker() -> None:
    """Workers leave a relay that refuses all for the next one; one tries it, and all return once it takes a mail."""
    noted = Noted()
    too_fast = Faults(refuse_sender="450 4.7.1 Error: too much mail from 127.0.0.1")
    async with Server(too_fast) as first, Server(Faults()) as second:
        relays = [_relay(first, noted), _relay(second, noted)]
        failover = Failover(relays)
        refused, idle = await failover.connect(), await failover.connect()
        async with asyncio.timeout(10):
            while not refused.lost_cause:
                await asyncio.sleep(relays[0].throttle.urgent_pause())
                await _send(refused)
        assert idle.lost_cause
        assert relays[0].refuses_all
        for connection in (refused, idle):
            await _gone(connection)
        on_second = await failover.connect()
        assert on_second.owner is relays[1]
        assert not relays[0].down
        tries = await asyncio.gather(*(failover.connect_before(on_second) for _ in range(3)), return_exceptions=True)
        (trial,) = [result for result in tries if isinstance(result, Connection)]
        assert failover.return_at(on_second) > asyncio.get_running_loop().time()
        first.faults = Faults()
        await _send(trial)
        assert not relays[0].refuses_all
        back = await failover.connect_before(on_second)
        assert back.owner is relays[0]
        for connection in (on_second, trial, back):
            await connection.close()
