"""Every store behind the same fixtures, on a clock that the test moves."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from sys import maxsize
from typing import Any
from uuid import uuid4

import pytest

from otpmail.store.base import Entry, MailStore
from otpmail.store.challenges import ChallengeStore
from otpmail.store.cipher import Cipher
from otpmail.store.clock import Boot, StoreClock
from otpmail.store.digests import Digests
from otpmail.store.memory import MemoryStore
from otpmail.store.memory.codes import MemoryChallengeStore
from otpmail.store.redis.client import Client
from otpmail.store.redis.codes import RedisChallengeStore
from otpmail.store.redis.dial import Access, OneServer
from otpmail.store.redis.keys import Keys
from otpmail.store.redis.mails import RedisMailStore
from otpmail.store.retention import MOST_REQUESTS, Retention
from otpmail.store.sqlite import SqliteStore
from otpmail.store.sqlite.codes import SqliteChallengeStore
from otpmail.store.sqlite.database import Database
from ports import HOST
from redis_server import KINDS, RedisServer
from rules import BOOK, POLICY
from store.clocks import Clock
from store.entries import DAY, REMEMBER_COUNT, REMEMBER_SECONDS

KEYS = {"k1": bytes(32)}

AnyStore = MemoryStore | SqliteStore
Challenges = MemoryChallengeStore | SqliteChallengeStore


@pytest.fixture
def clock() -> Clock:
    """A clock that stands until the test moves it."""
    return Clock()


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, clock: Clock, tmp_path: Path) -> AsyncIterator[AnyStore]:
    """Each store in turn, open."""
    if request.param == "memory":
        opened: MemoryStore | SqliteStore = MemoryStore(
            clock, retention=Retention(seconds=REMEMBER_SECONDS, count=REMEMBER_COUNT), rules=POLICY
        )
    else:
        opened = sqlite_store(tmp_path / "store.db", clock)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
def servers() -> Iterator[Callable[[str], RedisServer]]:
    """Return the server of a kind, which all tests share; it is started for the first of them."""
    with ExitStack() as stack:
        running: dict[str, RedisServer] = {}

        def server(kind: str) -> RedisServer:
            if kind not in running:
                running[kind] = stack.enter_context(RedisServer(kind))
            return running[kind]

        yield server


@pytest.fixture(params=["memory", "sqlite", *KINDS])
async def mails(
    request: pytest.FixtureRequest, clock: Clock, tmp_path: Path, servers: Callable[[str], RedisServer]
) -> AsyncIterator[MailStore]:
    """The mails of each store in turn. `@pytest.mark.requests` says how its request ids are kept."""
    mark = request.node.get_closest_marker("requests")
    said = {"seconds": DAY, "most": MOST_REQUESTS} | ({} if mark is None else mark.kwargs)
    kept = {"request_seconds": said["seconds"], "most_requests": said["most"]}
    async with AsyncExitStack() as stack:
        if request.param in KINDS:
            replica = redis_mails(servers(request.param), clock, **kept)
            yield await stack.enter_async_context(replica)
            return
        opened: AnyStore = MemoryStore(
            clock,
            retention=Retention(
                seconds=REMEMBER_SECONDS,
                count=REMEMBER_COUNT,
                request_seconds=said["seconds"],
                request_count=said["most"],
            ),
            rules=POLICY,
        )
        if request.param == "sqlite":
            opened = sqlite_store(tmp_path / "store.db", clock, **kept)
        await opened.open()
        stack.push_async_callback(opened.close)
        yield opened.mails


@asynccontextmanager
async def redis_mails(
    server: RedisServer,
    clock: Clock,
    *,
    namespace: str = "",
    keys: dict[str, bytes] | None = None,
    lease_seconds: float = 5.0,
    request_seconds: float = DAY,
    most_requests: int = MOST_REQUESTS,
) -> AsyncIterator[RedisMailStore]:
    """Open the mails of a replica, in a namespace of its own unless told otherwise, and close them at the end."""
    client = Client(OneServer((HOST, server.port)), Access())
    mails = RedisMailStore(
        clock,
        client,
        Keys(namespace or uuid4().hex, Digests(keys or KEYS)),
        Cipher(keys or KEYS),
        lease_seconds=lease_seconds,
        retention=Retention(
            seconds=REMEMBER_SECONDS, count=REMEMBER_COUNT, request_seconds=request_seconds, request_count=most_requests
        ),
    )
    await mails.open()
    try:
        yield mails
    finally:
        await mails.close()
        await client.close()


@pytest.fixture(params=["memory", "sqlite", *KINDS])
async def replicas(
    request: pytest.FixtureRequest, clock: Clock, tmp_path: Path, servers: Callable[[str], RedisServer]
) -> AsyncIterator[Sequence[ChallengeStore]]:
    """The codes of two replicas on each store in turn; a store of one process is there twice."""
    async with AsyncExitStack() as stack:
        if request.param in KINDS:
            keys = Keys(uuid4().hex, Digests(KEYS))
            clients = [Client(OneServer((HOST, servers(request.param).port)), Access()) for _ in range(2)]
            for client in clients:
                stack.push_async_callback(client.close)
            yield [RedisChallengeStore(clock, client, keys, POLICY, BOOK, time=clock) for client in clients]
            return
        opened: AnyStore = MemoryStore(
            clock, retention=Retention(seconds=REMEMBER_SECONDS, count=REMEMBER_COUNT), rules=POLICY
        )
        if request.param == "sqlite":
            opened = sqlite_store(tmp_path / "store.db", clock)
        await opened.open()
        stack.push_async_callback(opened.close)
        yield [opened.challenges] * 2


@pytest.fixture
def codes(replicas: Sequence[ChallengeStore]) -> ChallengeStore:
    """The codes of each store in turn."""
    return replicas[0]


@pytest.fixture
def challenges(store: AnyStore) -> Challenges:
    """The codes of each store in turn."""
    return store.challenges


def sqlite_store(
    path: Path,
    clock: Clock,
    *,
    keys: dict[str, bytes] | None = None,
    remember_octets: int = 1 << 30,
    request_seconds: float = DAY,
    most_requests: int = MOST_REQUESTS,
    most_addresses: int = maxsize,
    **options: Any,
) -> SqliteStore:
    """Return a SQLite store on the test's clock, not yet open; `options` are those of its `Database`."""
    return SqliteStore(
        Database(path, **options),
        keys or KEYS,
        StoreClock(wall=clock, elapsed=clock, boot=lambda: Boot("test", clock())),
        retention=Retention(
            seconds=REMEMBER_SECONDS,
            count=REMEMBER_COUNT,
            octets=remember_octets,
            request_seconds=request_seconds,
            request_count=most_requests,
            addresses=most_addresses,
        ),
        rules=POLICY,
    )


async def left_in(store: SqliteStore) -> list[Entry]:
    """Return the mails that an earlier process has left in the file and that can be read, in the order of the store."""
    entries, _ = await store.mails.read([left.mail_id for left in store.mails.left()])
    return entries
