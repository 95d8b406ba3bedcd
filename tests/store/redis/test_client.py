"""The client of a Redis server: batches, scripts that a server has forgotten, lost answers, refusals."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest

from cutting_proxy import CuttingProxy
from otpmail.errors import StoreError, Unavailable
from otpmail.store.redis.client import Client
from otpmail.store.redis.dial import Access, OneServer
from otpmail.store.redis.replies import AnswerLost, Fault, StoreRefuses
from otpmail.store.redis.script import Script
from ports import HOST
from redis_server import KINDS, RedisServer
from store.redis.conftest import MakeClient

ADD = Script.of("add", b"return redis.call('INCRBY', KEYS[1], ARGV[1])")
READ = Script.of("read", b"return redis.call('GET', KEYS[1])")
WRITE = Script.of("write", b"return redis.call('SET', KEYS[1], ARGV[1])")


@pytest.fixture
def key() -> str:
    """A key that no other test has."""
    return f"{{test}}:{uuid4()}"


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A server of the test's own, which it may stop."""
    with RedisServer() as server:
        yield server


async def test_what_is_asked_in_one_turn_goes_in_few_pipelines(
    redis_server: RedisServer, make_client: MakeClient, key: str
) -> None:
    """A thousand scripts of one turn of the loop run once each, and take less than a hundred reads of the server."""
    client = make_client(redis_server)
    await client.run(ADD, [key], [0])
    reads = _stat(redis_server, "total_reads_processed")
    answers = await asyncio.gather(*[client.run(ADD, [key], [1]) for _ in range(1000)])
    assert sorted(answers) == list(range(1, 1001))
    assert _stat(redis_server, "total_reads_processed") - reads < 100


async def test_a_forgotten_script_runs_once_with_the_rest(
    redis_server: RedisServer, make_client: MakeClient, key: str
) -> None:
    """After SCRIPT FLUSH each script of a pipeline runs once, and so do the commands between them."""
    client = make_client(redis_server, lanes=1)
    await asyncio.gather(client.run(ADD, [key], [0]), client.run(WRITE, [f"{key}:other"], ["1"]))
    redis_server.command("SCRIPT", "FLUSH")
    asked = []
    for number in range(20):
        asked += [
            client.run(ADD, [key], [1]),
            client.run(WRITE, [f"{key}:other"], [str(number)]),
            client.command("PING"),
        ]
    answers = await asyncio.gather(*asked)
    assert sorted(answers[::3]) == list(range(1, 21))
    assert answers[1::3] == [b"OK"] * 20
    assert answers[2::3] == [b"PONG"] * 20


async def test_a_wrong_script_harms_nobody_else(redis_server: RedisServer, make_client: MakeClient, key: str) -> None:
    """A script that fails raises StoreError for who asked, and the rest of its pipeline has its answers."""
    client = make_client(redis_server, lanes=1)
    wrong = client.run(Script.of("wrong", b"return redis.call('INCR', 'not', 'so')"), [key])
    right = client.run(ADD, [key], [1])
    with pytest.raises(StoreError):
        await wrong
    assert await right == 1


async def test_a_cancelled_caller_stops_nothing(redis_server: RedisServer, make_client: MakeClient, key: str) -> None:
    """A caller that is cancelled leaves its future; the script runs, and so do those beside it."""
    client = make_client(redis_server, lanes=1)
    given_up, kept = client.run(ADD, [key], [1]), client.run(ADD, [key], [1])
    given_up.cancel()
    assert await kept == 2


async def test_a_connection_that_was_closed_while_idle(
    redis_server: RedisServer, make_client: MakeClient, key: str
) -> None:
    """A server that closes idle connections fails no call: they are opened again before a command is sent."""
    client = make_client(redis_server)
    await asyncio.gather(client.run(ADD, [key], [1]), client.probe("PING"))
    redis_server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await asyncio.sleep(0.1)  # the loop learns of it
    assert await client.probe("PING") == b"PONG"
    assert await client.run(ADD, [key], [1]) == 2


async def test_a_connection_that_the_network_has_forgotten(redis_server: RedisServer, key: str) -> None:
    """A connection that was idle for long is replaced before a command is sent: it may have no way to the server."""
    async with CuttingProxy(redis_server.port) as proxy:
        client = Client(OneServer((HOST, proxy.port)), Access(), lanes=1, idle_seconds=0.1)
        assert await client.run(ADD, [key], [1]) == 1
        proxy.forget()
        await asyncio.sleep(0.2)  # seconds; a loop may wake early
        assert await client.run(ADD, [key], [1]) == 2
        await client.close()


async def test_a_server_that_hangs(own_server: RedisServer, make_client: MakeClient, key: str) -> None:
    """A script without an answer in a second raises AnswerLost, is not run again, and the next ones run after it."""
    client = make_client(own_server)
    faults: list[Fault] = []
    client.failed = faults.append
    await client.run(ADD, [key], [1])
    own_server.pause()
    with pytest.raises(AnswerLost):
        await client.run(ADD, [key], [1])
    own_server.resume()
    assert await client.run(ADD, [key], [1]) == 3
    endpoint = f"127.0.0.1:{own_server.port}"
    assert faults == [(f"STORE_URL: the server at {endpoint} can't be reached: it did not answer in time", True)]


async def test_a_server_that_is_killed_and_comes_back(
    own_server: RedisServer, make_client: MakeClient, key: str
) -> None:
    """Without a server each script raises Unavailable; once it is back scripts run again, its forgotten ones too."""
    client = make_client(own_server)
    await client.run(ADD, [key], [1])
    own_server.kill()
    for _ in range(3):
        with pytest.raises(Unavailable):
            await client.run(ADD, [key], [1])
    own_server.start()
    assert await client.run(ADD, [key], [1]) == 2


async def test_nothing_is_sent_while_the_server_is_away(
    redis_server: RedisServer, make_client: MakeClient, key: str
) -> None:
    """While `is_away` is set, callers are refused at once, and only a probe asks the server."""
    client = make_client(redis_server)
    client.is_away = True
    with pytest.raises(Unavailable) as caught:
        await client.run(ADD, [key], [1])
    assert caught.value.retry_after == 1.0
    assert await client.probe("PING") == b"PONG"
    client.is_away = False
    assert await client.run(ADD, [key], [1]) == 1


async def test_a_replica_refuses(own_server: RedisServer, make_client: MakeClient, key: str) -> None:
    """A server that was made a replica refuses changes with a line for the log, and takes them once it is a master."""
    client = make_client(own_server)
    faults: list[Fault] = []
    client.failed = faults.append
    own_server.demote()
    with pytest.raises(StoreRefuses, match="is a replica") as caught:
        await client.run(WRITE, [key], ["x"])
    assert caught.value.kind == "READONLY"
    endpoint = f"127.0.0.1:{own_server.port}"
    assert faults == [(f"STORE_URL: the server at {endpoint} is a replica, and takes no changes", True)]
    own_server.promote()
    assert await client.run(WRITE, [key], ["x"]) == b"OK"


async def test_full_memory_refuses(redis_server: RedisServer, make_client: MakeClient, key: str) -> None:
    """A server at maxmemory refuses a script that writes, in the words of each version, and is not away."""
    client = make_client(redis_server)
    faults: list[Fault] = []
    client.failed = faults.append
    before = redis_server.command("CONFIG", "GET", "maxmemory").split("\r\n")[4]
    redis_server.command("CONFIG", "SET", "maxmemory", 1)
    try:
        with pytest.raises(StoreRefuses, match="no memory left") as caught:
            await client.run(WRITE, [key], ["x"])
    finally:
        redis_server.command("CONFIG", "SET", "maxmemory", before)
    assert caught.value.kind == "OOM"
    endpoint = f"127.0.0.1:{redis_server.port}"
    assert faults == [(f"STORE_URL: the server at {endpoint} has no memory left (maxmemory)", False)]
    assert await client.run(WRITE, [key], ["x"]) == b"OK"


async def test_a_wrong_password(own_server: RedisServer, make_client: MakeClient, key: str) -> None:
    """The line for the log names the setting, and no password."""
    own_server.command("CONFIG", "SET", "requirepass", "hunter2")
    faults: list[Fault] = []
    for access in (Access(), Access(password="hunter3"), Access(user="nobody", password="hunter2")):
        client = make_client(own_server, access=access)
        client.failed = faults.append
        with pytest.raises(Unavailable):
            await client.run(ADD, [key], [1])
    endpoint = f"127.0.0.1:{own_server.port}"
    assert faults == [
        (f"STORE_URL: the server at {endpoint} wants a password: set STORE_PASSWORD_FILE", True),
        *[(f"STORE_URL: the server at {endpoint} refuses the user or the password of STORE_URL", True)] * 2,
    ]
    assert await make_client(own_server, access=Access(password="hunter2")).run(ADD, [key], [1]) == 1


async def test_too_few_replicas(own_server: RedisServer, make_client: MakeClient, key: str) -> None:
    """A change that a replica must have raises AnswerLost where no replica is; others of its pipeline have answers."""
    client = make_client(own_server, replicas=1, lanes=1)
    plain, replicated = client.run(ADD, [key], [1]), client.run(ADD, [key], [1], replicated=True)
    assert await plain == 1
    with pytest.raises(AnswerLost, match="too few replicas"):
        await replicated


@pytest.mark.parametrize("kind", KINDS)
async def test_an_earlier_change_is_waited_for(make_client: MakeClient, key: str, kind: str) -> None:
    """A script that finds the change of another client raises AnswerLost until a replica has that change."""
    at_once = ("--repl-diskless-sync-delay", "0")
    with RedisServer(kind, *at_once) as server, RedisServer(kind, "--replicaof", HOST, str(server.port)) as copy:
        writer, reader = [make_client(server, replicas=1, lanes=1) for _ in range(2)]
        assert await _until_confirmed(writer, ADD, key, 1) is not None
        assert await _until_confirmed(reader, READ, key) is not None
        copy.pause()
        with pytest.raises(AnswerLost):
            await writer.run(ADD, [key], [1000], replicated=True)
        with pytest.raises(AnswerLost):
            await reader.run(READ, [key], replicated=True)
        copy.resume()
        assert int(await _until_confirmed(reader, READ, key)) > 1000


async def _until_confirmed(client: Client, script: Script, key: str, *args: int) -> Any:
    """Run a script until the replica, which may have just started or be held up, has what it finds or changes."""
    async with asyncio.timeout(60):
        while True:
            with suppress(Unavailable):
                return await client.run(script, [key], args, replicated=True)
            await asyncio.sleep(0.05)


async def test_a_closed_client_refuses(redis_server: RedisServer, make_client: MakeClient, key: str) -> None:
    """`close` waits for what is under way, and refuses what comes later."""
    client = make_client(redis_server)
    under_way = client.run(ADD, [key], [1])
    await asyncio.sleep(0)
    await client.close()
    assert await under_way == 1
    with pytest.raises(Unavailable, match="stopping"):
        await client.run(ADD, [key], [1])


def _stat(server: RedisServer, name: str) -> int:
    lines = server.command("INFO", "stats").split("\r\n")
    return next(int(line.partition(":")[2]) for line in lines if line.startswith(f"{name}:"))
