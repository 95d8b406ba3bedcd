"""The checks of a server at the start, on real servers that fail them."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from otpmail.errors import StoreError
from otpmail.store.redis.checks import FitnessWatch, check_server
from otpmail.store.redis.client import Client
from otpmail.store.redis.dial import Access, ByCluster, BySentinel, OneServer
from ports import HOST
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
    client = make_client(redis_server)
    await check_server(client, allow_volatile=False, is_cluster=False, replicas=0)
    assert await client.probe("PING") == b"PONG"


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


async def test_a_server_that_is_set_otherwise_later(
    server: RedisServer, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that evicts, or has no AOF, since the start is an error in the log, once until that is mended."""
    watch = FitnessWatch(client := make_client(server), allow_volatile=False)
    await client.probe("PING")
    said = []
    for setting in (
        ("maxmemory-policy", "noeviction"),
        ("maxmemory-policy", "allkeys-lru"),
        ("maxmemory", "1gb"),
        ("maxmemory-policy", "noeviction"),
        ("appendonly", "no"),
        ("appendonly", "yes"),
        ("maxmemory-policy", "allkeys-lru"),
    ):
        server.command("CONFIG", "SET", *setting)
        caplog.clear()
        await watch.look()
        said.append([record.message.partition("; ")[0].partition(",")[0] for record in caplog.records])
    begin = f"STORE_URL: the server at 127.0.0.1:{server.port}"
    evicts = f"{begin} may forget what it was given (maxmemory-policy allkeys-lru)"
    assert said == [[], [evicts], [], [], [f"{begin} forgets at a restart what was promised"], [], [evicts]]


async def test_the_aof_of_a_volatile_server_is_not_watched(
    server: RedisServer, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    """With STORE_ALLOW_VOLATILE a server without AOF is no error later either."""
    server.command("CONFIG", "SET", "appendonly", "no")
    await FitnessWatch(make_client(server), allow_volatile=True).look()
    assert not caplog.records


async def test_a_replica_is_refused(server: RedisServer, make_client: MakeClient) -> None:
    """A replica takes no changes, so the service would never work."""
    server.demote()
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
        "STORE_URL: the server at SERVER does not let the user of STORE_URL do this; docs/stores.md has the "
        "rights that it needs"
    )


@asynccontextmanager
async def _answering(reply: bytes) -> AsyncIterator[Client]:
    """Make a client of a server that answers each command so, or closes the connection for want of an answer."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"INFO\r\n")
        writer.write(reply)
        writer.close()

    async with await asyncio.start_server(serve, HOST) as listening:
        client = Client(OneServer(listening.sockets[0].getsockname()), Access())
        yield client
        await client.close()


_LOADING = b"redis_version:7.2.0\r\nloading:1\r\nrole:master\r\naof_enabled:0\r\n"


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "answers, but not as Redis or Valkey do"),
        (b"$2\r\nhi\r\n", "answers, but not as Redis or Valkey do"),
        (b"-ERR unknown command\r\n", "unknown command"),
        (
            b"-DENIED Redis is running in protected mode because protected mode is enabled and so on\r\n",
            "is in protected mode; set requirepass there, and STORE_PASSWORD_FILE here",
        ),
        (
            b"-ERR unknown command `SENTINEL`, with args beginning with: `get-master-addr-by-name`, `main`, \r\n",
            "is no Sentinel; for a server of its own write redis://",
        ),
        (
            b"-ERR unknown command 'SENTINEL', with args beginning with: 'get-master-addr-by-name' 'main' \r\n",
            "is no Sentinel; for a server of its own write redis://",
        ),
        (b"-ERR This instance has cluster support disabled\r\n", "is part of no cluster; write redis://"),
        (b"-ERR DB index is out of range\r\n", "has no database of the number in STORE_URL"),
        (b"-STRANGE " + b"x" * 1000 + b"\r\n", f"STRANGE {'x' * 192}"),
        (b"", "can't be reached: Connection closed by server; if its port speaks TLS, write rediss in place of redis"),
        (b"$%d\r\n%s\r\n" % (len(_LOADING), _LOADING), "is reading its data; start otpmail again once it has"),
    ],
)
async def test_what_is_no_server(reply: bytes, words: str) -> None:
    """Whatever else listens there is named; a server that reads its data still has no AOF by its own words."""
    async with _answering(reply) as client:
        assert await _problem(client) == f"STORE_URL: the server at SERVER {words}"


async def test_tls_where_there_is_none(server: RedisServer, make_client: MakeClient) -> None:
    """A server that waits for more than the start of TLS gets a line that names the scheme."""
    client = make_client(server, access=Access(context=ssl.create_default_context()))
    assert (await _problem(client)).endswith("; if its port speaks no TLS, write redis in place of rediss")


async def test_a_database_that_is_not_there(redis_server: RedisServer, make_client: MakeClient) -> None:
    """The line says that the number in STORE_URL is too great for the server."""
    client = make_client(redis_server, access=Access(database=1 << 20))
    assert await _problem(client) == "STORE_URL: the server at SERVER has no database of the number in STORE_URL"


async def test_another_scheme_is_needed(redis_server: RedisServer) -> None:
    """A server alone is neither a Sentinel nor a part of a cluster, by the words of each kind of server."""
    address = (HOST, redis_server.port)
    for locator, words in (
        (BySentinel((address,), "main", Access()), "is no Sentinel; for a server of its own write redis://"),
        (ByCluster((address,), 0, Access()), "is part of no cluster; write redis://"),
    ):
        assert await _problem(Client(locator, Access())) == f"STORE_URL: the server at SERVER {words}"
