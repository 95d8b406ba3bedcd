"""Sentinels and a cluster of real servers: the client finds the master, and the next one once that is gone."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from uuid import uuid4

import pytest
from redis.crc import key_slot

from otpmail.errors import StoreError, Unavailable
from otpmail.model import MailState
from otpmail.settings import StoreSettings
from otpmail.store.clock import StoreClock
from otpmail.store.redis.access import access_to, locator
from otpmail.store.redis.checks import check_server
from otpmail.store.redis.client import Client
from otpmail.store.redis.health import Health
from otpmail.store.redis.keys import Keys
from otpmail.store.redis.script import Script
from redis_layouts import Cluster, WatchedServers
from store.clocks import Clock
from store.entries import entry_of, mail_of, settled
from store.redis.replicas import replica

ADD = Script.of("add", b"return redis.call('INCRBY', KEYS[1], ARGV[1])")
NAMESPACE = "layouts"
KEY = Keys(NAMESPACE).named("count")


@pytest.fixture(scope="module")
def watched() -> Iterator[WatchedServers]:
    """A master, a replica and Sentinels."""
    with WatchedServers() as servers:
        yield servers


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three masters and a replica of ours."""
    with Cluster(key_slot(NAMESPACE.encode())) as nodes:
        yield nodes


def client_of(url: str) -> Client:
    """Return a client as the settings make it."""
    settings = StoreSettings.from_layers({"STORE_URL": url, "STORE_NAMESPACE": NAMESPACE})
    redis = settings.redis
    assert redis is not None
    access = access_to(redis, settings)
    return Client(locator(redis, access, settings), access, replicas=settings.replicas_to_wait_for)


@asynccontextmanager
async def _watched_client(url: str) -> AsyncIterator[Client]:
    client = client_of(url)
    health = Health(client, StoreClock(), Keys(NAMESPACE), code_clock=StoreClock())
    await health.begin()
    task = asyncio.create_task(health.run())
    try:
        yield client
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.close()


async def _go_on(client: Client, seconds: float = 20.0) -> tuple[int, float]:
    """Run a script, without repeating one that was sent, until one runs; return its result and how long that took."""
    started = time.monotonic()
    while True:
        try:
            return await client.run(ADD, [KEY], [1], replicated=True), time.monotonic() - started
        except Unavailable:
            if time.monotonic() - started > seconds:
                raise
            await asyncio.sleep(0.1)


async def _states_seen(url: str) -> list[MailState]:
    """Return the states that a watcher sees of a mail whose owner announces that it is being sent."""
    seen: list[MailState] = []
    async with AsyncExitStack() as stack:
        owner, other = [
            await stack.enter_async_context(
                replica(client_of(url), Clock(), NAMESPACE, subscribed=True, lease_seconds=30.0)
            )
            for _ in range(2)
        ]
        await owner.accept(entry := entry_of(mail_of(uuid4().hex)))
        async with asyncio.timeout(30):
            async for mail in other.mails.watch("shop", entry.mail.id):
                seen.append(mail.state)
                if mail == entry.mail:
                    owner.owner.show(replace(mail, state=MailState.SENDING))
                elif mail.state is MailState.SENDING:
                    owner.owner.show(settled(entry.mail))
    return seen


async def test_sentinels_without_such_a_service(watched: WatchedServers) -> None:
    """The line names what the Sentinels do not know."""
    client = client_of(watched.url.replace("/codes", "/mails"))
    with pytest.raises(StoreError, match="is a Sentinel that watches no service of the name 'mails'"):
        await check_server(client, allow_volatile=False, is_cluster=False, replicas=0)
    await client.close()


async def test_a_mail_is_watched_through_sentinels(watched: WatchedServers) -> None:
    """The states of a mail come to another replica through the master that the Sentinels name."""
    assert (await _states_seen(watched.url))[-2:] == [MailState.SENDING, MailState.RELAYED]


async def test_sentinels_lead_to_the_next_master(watched: WatchedServers) -> None:
    """After the master was killed the client goes on with a replica, which has all that was confirmed."""
    async with _watched_client(watched.url) as client:
        await check_server(client, allow_volatile=False, is_cluster=False, replicas=1)
        confirmed = [(await _go_on(client))[0] for _ in range(5)]
        assert confirmed[-1] >= 5
        old = client.endpoint
        watched.master.kill()
        count, seconds = await _go_on(client)
        assert count > confirmed[-1]
        assert client.endpoint != old
        assert seconds < 15


async def test_a_master_that_was_cut_off_confirms_nothing(watched: WatchedServers) -> None:
    """A master without its replicas has changes that may be lost, so none is confirmed."""
    async with _watched_client(watched.url) as client:
        assert (await _go_on(client))[0] >= 1
        master = watched.master
        for replica in watched.servers:
            if replica is not master:
                replica.kill()
        with pytest.raises(Unavailable):
            await client.run(ADD, [KEY], [1], replicated=True)


async def test_a_mail_is_watched_in_a_cluster(cluster: Cluster) -> None:
    """The states of a mail come to another replica through the node of a cluster that has our keys."""
    assert (await _states_seen(cluster.url))[-2:] == [MailState.SENDING, MailState.RELAYED]


async def test_a_cluster_leads_to_its_master(cluster: Cluster) -> None:
    """Any node leads to the one with our slot, then to the replica that took over, and to a node that was given it."""
    async with _watched_client(cluster.url) as client:
        await check_server(client, allow_volatile=False, is_cluster=True, replicas=1)
        assert client.endpoint == f"127.0.0.1:{cluster.master.port}"
        before, _ = await _go_on(client)  # a busy machine's replicas may be late to confirm the first
        cluster.master.kill()
        count, _ = await _go_on(client)
        assert count > before >= 1
        assert client.endpoint in {f"127.0.0.1:{replica.port}" for replica in cluster.replicas}

        other = next(node for node in cluster.nodes if node is not cluster.master)
        await client.command("FLUSHALL")  # a slot with keys is not handed over
        new = other.command("CLUSTER", "MYID").strip()
        for node in (other, *cluster.replicas, *cluster.nodes):
            if node is not cluster.master:
                node.command("CLUSTER", "SETSLOT", key_slot(NAMESPACE.encode()), "NODE", new)
        assert await _run_unreplicated(client) == 1
        assert client.endpoint == f"127.0.0.1:{other.port}"


async def _run_unreplicated(client: Client) -> int:
    for _ in range(100):
        with suppress(Unavailable):
            count: int = await client.run(ADD, [KEY], [1])
            return count
        await asyncio.sleep(0.1)
    raise TimeoutError
