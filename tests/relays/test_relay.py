"""One relay, and several in order: who is dialled when, and when a relay counts as away. Real sockets, no worker."""

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from otpmail.errors import ConnectFailed
from otpmail.events import ALL_EVENTS, ChunkingDisabled, Event, RelayDown, RelayUp
from otpmail.relays import availability
from otpmail.relays import relay as module
from otpmail.relays.connection import Connection
from otpmail.relays.failover import Failover
from otpmail.relays.relay import Relay
from otpmail.settings import RelaySettings
from otpmail.smtp.mode import Mode
from relay import HOST, Faults
from relay import Relay as Server

pytestmark = pytest.mark.usefixtures("_no_settings")


@pytest.fixture
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EMAIL", "APP_PASSWORD", "EMAIL_HOST", "EMAIL_RELAYS"):
        monkeypatch.delenv(name, raising=False)


class Noted(list[Event]):
    """An observer that keeps what it was told."""

    event_types = ALL_EVENTS

    def notify(self, event: Event) -> None:
        """Keep it."""
        self.append(event)


def _relay(server: Server, noted: Noted, **more: object) -> Relay:
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
    return Relay(make(**fields), noted, random=lambda: 0.5)


async def _gone(connection: Connection) -> None:
    """Wait until it is lost, and give it back, as a worker does."""
    lost = asyncio.Event()
    connection.watch(on_lost=lost.set, on_available=lambda: None)
    if not connection.lost_cause:
        await lost.wait()
    connection.owner.released(connection)
    await connection.close()


async def test_a_refused_sign_in_sends_the_others_to_the_next_relay() -> None:
    """Though a connection from before is open, and its wait is a minute: the next relay is there now."""
    noted = Noted()
    async with Server(Faults()) as first, Server(Faults()) as second:
        route = Failover([_relay(first, noted), _relay(second, noted)])
        before = await route.connect()
        first.faults = Faults(refuse_auth="535 5.7.8 changed")
        async with asyncio.timeout(5):
            others = await asyncio.gather(*(route.connect() for _ in range(3)))
        assert {connection.owner.name for connection in others} == {f"{HOST}:{second.port}"}
        for connection in (before, *others):
            await connection.close()


async def test_a_relay_that_takes_no_more_connections_sends_the_others_to_the_next() -> None:
    """Its wait is a minute, and it is not away: what it has serves on, the next relay takes the rest at once."""
    noted = Noted()
    async with Server(Faults(most_open=1)) as first, Server(Faults()) as second:
        relays = [_relay(first, noted, retry_seconds=60), _relay(second, noted)]
        route = Failover(relays)
        only = await route.connect()
        assert only.owner is relays[0]
        async with asyncio.timeout(5):
            others = [await route.connect() for _ in range(3)]
        assert {connection.owner for connection in others} == {relays[1]}
        assert first.connections == 2  # the one that it had, and one that was refused for all
        assert not relays[0].down
        assert not only.lost_cause
        for connection in (only, *others):
            await connection.close()


async def test_only_the_patient_wait_at_a_relay_that_takes_no_more_connections() -> None:
    """For a slot, or its next try; others are told that there is none."""
    async with Server(Faults(most_open=1)) as server:
        relay = _relay(server, Noted(), retry_seconds=60)
        only = await relay.connect()
        async with asyncio.timeout(5):
            with pytest.raises(ConnectFailed, match="is not to be dialled yet"):
                await relay.connect(patient=False)
        waiting = asyncio.create_task(relay.connect())
        await asyncio.wait({waiting}, timeout=0.05)
        assert not waiting.done()
        assert server.connections == 2
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        await only.close()


async def test_nobody_queues_behind_the_dial_to_a_relay_that_is_away() -> None:
    """While one worker tries the first relay, which does not answer, others have the second at once."""
    noted = Noted()
    async with Server(Faults()) as first, Server(Faults()) as second:
        await first.close()
        route = Failover([_relay(first, noted, timeout=30), _relay(second, noted)])
        stand_in = await route.connect()
        assert stand_in.owner.name == f"{HOST}:{second.port}"
        first.faults = Faults(silent_at="CONNECT")
        await first.start()
        await asyncio.sleep(route.return_at(stand_in) - asyncio.get_running_loop().time() + 0.01)  # loops wake early
        trying = asyncio.create_task(route.connect_before(stand_in))
        await first.wait_for_connections(1)
        async with asyncio.timeout(5):
            another = await route.connect()
        assert another.owner.name == f"{HOST}:{second.port}"
        trying.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await trying
        for connection in (stand_in, another):
            await connection.close()
        first.cut_connections()


async def test_who_waits_for_a_dial_moves_on_once_the_relay_counts_as_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that was well and then says nothing holds up the worker that dials it, and nobody behind that."""
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(availability, "NOTICE_SECONDS", 0.05)
    noted = Noted()
    async with Server(Faults()) as first, Server(Faults()) as second:
        route = Failover([_relay(first, noted, timeout=30), _relay(second, noted)])
        only = await route.connect()
        first.faults = Faults(silent_at="CONNECT")
        first.cut_connections()
        await _gone(only)
        dialling = asyncio.create_task(route.connect())
        await first.wait_for_connections(2)
        async with asyncio.timeout(5):
            stand_in = await route.connect()
        assert stand_in.owner.name == f"{HOST}:{second.port}"
        assert not dialling.done()
        dialling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await dialling
        await stand_in.close()
        first.cut_connections()


async def test_an_earlier_relay_that_is_away_cannot_be_returned_to() -> None:
    """Asked for a connection before the present one, the route says that there is none, and waits for nothing."""
    noted = Noted()
    async with Server(Faults()) as first, Server(Faults()) as second:
        await first.close()
        route = Failover([_relay(first, noted, retry_seconds=60), _relay(second, noted)])
        stand_in = await route.connect()
        with pytest.raises(ConnectFailed):
            await route.connect_before(stand_in)
        assert route.return_at(stand_in) > asyncio.get_running_loop().time() + 30
        assert not route.down
        await stand_in.close()


async def test_while_one_tries_a_relay_that_is_away_others_look_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are refused at once, so they must not be told to try at once: they would do nothing else."""
    noted = Noted()
    dials = 0
    silence = asyncio.Event()

    async def say_nothing(*_: object, **__: object) -> Connection:
        nonlocal dials
        dials += 1
        if dials > 1:
            silence.set()
            await asyncio.Event().wait()
        raise ConnectFailed("refused")

    monkeypatch.setattr(Connection, "open", say_nothing)
    relay = _relay(Server(port=25), noted)
    trying = asyncio.create_task(relay.connect())
    await silence.wait()
    assert relay.retry_after == 0
    assert relay.return_at >= asyncio.get_running_loop().time() + 0.9
    with pytest.raises(ConnectFailed):
        await relay.connect(patient=False)
    trying.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await trying


async def test_a_slot_that_is_freed_is_had_at_once() -> None:
    """Whoever waits at a relay that has enough of us gets through when one of ours is closed, not when it is let go."""
    noted = Noted()
    async with Server(Faults(most_open=1)) as server:
        relay = _relay(server, noted, retry_seconds=60)
        only = await relay.connect()
        waiting = asyncio.create_task(relay.connect())
        await server.wait_for_connections(2)
        await server.wait_for_open(1)
        only.owner.released(only)
        await only.close()
        async with asyncio.timeout(5):
            connection = await waiting
        assert server.connections == 3
        await connection.close()


async def test_a_relay_that_comes_to_hang_up_counts_as_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was up, and then signs everybody in and hangs up, is told to be down though a dial never fails."""
    monkeypatch.setattr(availability, "NOTICE_SECONDS", 0.2)
    noted = Noted()
    async with Server(Faults()) as server:
        relay = _relay(server, noted)
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
            while not relay.down:  # noqa: ASYNC110 -- it is told by a timer of its own
                await asyncio.sleep(0.01)
        assert sum(isinstance(event, RelayDown) for event in noted) == 1
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working


async def test_chunks_are_distrusted_after_two_probes_that_end_a_connection() -> None:
    """One may have been the network's doing and says nothing of the relay; after two in a row it is not asked again."""
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
    """That says something of the relay, and no time makes it good."""
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
