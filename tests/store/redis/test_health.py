"""The health of a Redis store: away and back, full and not, a master that has become a replica."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest

from otpmail.errors import StoreError, Unavailable
from otpmail.store.base import StoreState
from otpmail.store.clock import StoreClock
from otpmail.store.digests import Digests
from otpmail.store.redis.client import Client
from otpmail.store.redis.health import Health
from otpmail.store.redis.keys import Keys
from redis_server import RedisServer
from store.redis.conftest import MakeClient

Change = Callable[[RedisServer], None]

SECONDS = 4.0
"""Within which a server that goes down, or is back, must be noticed: two, and two more on a busy machine."""


class Watch:
    """A health that runs, and the states it has reported."""

    def __init__(self, client: Client) -> None:
        self.clock = StoreClock(wall=lambda: 0.0)
        self.code_clock = StoreClock(wall=lambda: 0.0)
        self.keys = Keys("test", Digests({"k1": bytes(32)}))
        self.health = Health(client, self.clock, self.keys, code_clock=self.code_clock)
        self.health.changed = self._note
        self.states: list[StoreState] = []
        self._changed = asyncio.Event()

    async def next(self) -> tuple[StoreState, float]:
        """Wait for the next state, and return it with how many seconds that took."""
        started = time.monotonic()
        async with asyncio.timeout(10):
            await self._changed.wait()
        self._changed.clear()
        return self.states[-1], time.monotonic() - started

    def _note(self, state: StoreState) -> None:
        self.states.append(state)
        self._changed.set()


@pytest.fixture
async def server() -> AsyncIterator[RedisServer]:
    """A server of the test's own, which it may stop."""
    with RedisServer() as started:
        yield started


@pytest.fixture
async def client(server: RedisServer, make_client: MakeClient) -> Client:
    """A client of the test's own server."""
    return make_client(server)


@pytest.fixture
async def watch(client: Client) -> AsyncIterator[Watch]:
    """A health that runs."""
    watch = Watch(client)
    await watch.health.begin()
    task = asyncio.create_task(watch.health.run())
    yield watch
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ((RedisServer.pause, RedisServer.resume), "can't be reached: it did not answer in time"),
        ((RedisServer.kill, RedisServer.start), "can't be reached: "),
        ((RedisServer.demote, RedisServer.promote), "is a replica, and takes no changes"),
    ],
)
async def test_away_and_back(
    server: RedisServer, client: Client, watch: Watch, change: tuple[Change, Change], words: str
) -> None:
    """A server that stops, dies or is demoted is noticed though nobody asks it, and so is its return."""
    leave, come_back = change
    leave(server)
    state, seconds = await watch.next()
    assert words in state.problem
    assert (state.retry_after, client.is_away) == (1.0, True)
    assert seconds < SECONDS
    with pytest.raises(Unavailable):
        await client.command("PING")
    come_back(server)
    state, seconds = await watch.next()
    assert (state, client.is_away) == (StoreState(), False)
    assert seconds < SECONDS
    assert await client.command("PING") == b"PONG"


async def test_full_and_not(server: RedisServer, client: Client, watch: Watch) -> None:
    """A server without memory is a problem, but not away: what drops something goes on."""
    server.command("CONFIG", "SET", "maxmemory", 1)
    state, seconds = await watch.next()
    assert state.problem.endswith("has no memory left (maxmemory)")
    assert seconds < SECONDS
    assert await client.command("DEL", "{test}:nothing") == 0
    server.command("CONFIG", "SET", "maxmemory", 0)
    state, seconds = await watch.next()
    assert state == StoreState()
    assert seconds < SECONDS


async def test_the_clock_is_the_servers(client: Client) -> None:
    """The store's clock is set to the server's, whatever the machine's own says."""
    watch = Watch(client)
    assert watch.clock() < 1.0
    await watch.health.begin()
    assert watch.clock() == pytest.approx(time.time(), abs=5)


async def test_what_a_newer_version_has_written(client: Client) -> None:
    """A server with a later layout than this version knows is refused at the start."""
    watch = Watch(client)
    await client.command("SET", watch.keys.written_layout, 3)
    with pytest.raises(StoreError, match=r"was written by a newer otpmail \(layout 3; this one knows 2\)$"):
        await watch.health.begin()


async def test_a_server_that_is_set_forward_ends_no_mail(client: Client) -> None:
    """The clock of mails follows a server's that jumps ahead by a hundredth of a second at a time."""
    watch = Watch(client)
    await watch.health.begin()
    watch.clock.set_to(time.time() - 3600)
    for _ in range(3):
        await watch.health.look()
    assert watch.clock() < time.time() - 3590
    assert watch.code_clock() == pytest.approx(time.time(), abs=5)


async def test_layout_1_is_written_while_a_replica_knows_no_other(client: Client) -> None:
    """A replica writes the layout of the oldest one that is alive; a name without a layout stands for layout 1."""
    watch = Watch(client)
    now = int(time.time() * 1000)
    for ends, layout in ((now + 60_000, 1), (now - 1, 2), (0, 2), (1, 2)):
        await client.command("ZADD", watch.keys.owners, ends, "0123456789abcdef", now + 60_000, "2.0123456789abcdef")
        await watch.health.look()
        assert watch.keys.layout == layout


async def test_a_user_who_may_not_write(server: RedisServer, client: Client) -> None:
    """A user that may not write our keys is found at the start."""
    server.command("ACL", "SETUSER", "default", "resetkeys", "~other:*")
    with pytest.raises(StoreError, match="does not let the user of STORE_URL do this"):
        await Watch(client).health.begin()


async def test_a_mistake_in_a_look_is_shown(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An unexpected error while the server is watched is logged once and reported, and the next look ends that."""

    async def fail() -> float:
        raise RuntimeError("a mistake")

    with monkeypatch.context() as patch:
        patch.setattr(watch.health, "_ask", fail)
        state, _ = await watch.next()
        assert "can't be watched: RuntimeError('a mistake')" in state.problem
        await asyncio.sleep(0)
    state, _ = await watch.next()
    assert state == StoreState()
    assert [getattr(record, "event", "") for record in caplog.records].count("store-unwatched") == 1
