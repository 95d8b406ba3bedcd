"""What a server must be at the start, on real servers that are set to be otherwise."""

import re
from collections.abc import Iterator

import pytest

from otpmail.errors import StoreError
from otpmail.store.redis.checks import check_server
from otpmail.store.redis.client import Client
from redis_server import RedisServer
from store.redis.conftest import MakeClient


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of the test's own, which it may set otherwise."""
    with RedisServer() as started:
        yield started


async def _problem(client: Client, *, allow_volatile: bool = False, is_cluster: bool = False) -> str:
    with pytest.raises(StoreError) as caught:
        await check_server(client, allow_volatile=allow_volatile, is_cluster=is_cluster, replicas=0)
    await client.close()
    return re.sub(r"127\.0\.0\.1:\d+", "SERVER", str(caught.value))


async def test_a_good_server(redis_server: RedisServer, make_client: MakeClient) -> None:
    """Each kind of server with AOF and without eviction is taken."""
    await check_server(make_client(redis_server), allow_volatile=False, is_cluster=False, replicas=0)


async def test_eviction_is_refused(server: RedisServer, make_client: MakeClient) -> None:
    """A server that may drop keys when its memory is full could drop an accepted mail."""
    server.command("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    assert await _problem(make_client(server)) == (
        "STORE_URL: the server at SERVER may forget what it was given (maxmemory-policy volatile-lru); "
        "set maxmemory-policy noeviction"
    )


async def test_no_aof_is_refused_unless_that_is_accepted(server: RedisServer, make_client: MakeClient) -> None:
    """Without AOF a restart of the server loses promised mails; STORE_ALLOW_VOLATILE accepts that."""
    server.command("CONFIG", "SET", "appendonly", "no")
    assert await _problem(make_client(server)) == (
        "STORE_URL: the server at SERVER forgets at a restart what was promised, since it has no AOF; set appendonly "
        "yes, or accept that with STORE_ALLOW_VOLATILE=true"
    )
    await check_server(make_client(server), allow_volatile=True, is_cluster=False, replicas=0)


async def test_a_replica_is_refused(server: RedisServer, make_client: MakeClient) -> None:
    """A replica takes no changes, so the service would never work."""
    server.command("REPLICAOF", "127.0.0.1", 1)
    assert await _problem(make_client(server)) == (
        "STORE_URL: the server at SERVER is a replica; name its master, or the Sentinels with redis+sentinel://"
    )


async def test_a_node_of_a_cluster_needs_its_scheme(make_client: MakeClient) -> None:
    """A URL for one server does not follow a cluster, nor the other way round."""
    with RedisServer("redis-7", "--cluster-enabled", "yes") as node:
        assert await _problem(make_client(node)) == (
            "STORE_URL: the server at SERVER is part of a cluster; write redis+cluster://"
        )


async def test_few_replicas_are_a_warning(
    server: RedisServer, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A server whose replica is missing may get it soon, so the start goes on and the log says what does not work."""
    await check_server(make_client(server), allow_volatile=False, is_cluster=False, replicas=1)
    assert "has 0 replicas, and codes are checked only while it has 1 (STORE_WAIT_REPLICAS)" in caplog.text


async def test_no_server(server: RedisServer, make_client: MakeClient) -> None:
    """The line names the server that can't be reached."""
    client = make_client(server)
    server.kill()
    assert (await _problem(client)).startswith("STORE_URL: the server at SERVER can't be reached: ")


async def test_a_user_who_may_not_do_it(server: RedisServer, make_client: MakeClient) -> None:
    """A user without the right to INFO gets an error that says so."""
    server.command("ACL", "SETUSER", "default", "-info")
    assert await _problem(make_client(server)) == (
        "STORE_URL: the server at SERVER does not let the user of STORE_URL do this"
    )
