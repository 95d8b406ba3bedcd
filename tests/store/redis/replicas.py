"""Replicas in one process: each with its client, its mails, and an owner that does what a test says."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from otpmail.store.cipher import Cipher
from otpmail.store.digests import Digests
from otpmail.store.redis.client import Client
from otpmail.store.redis.dial import Access, OneServer
from otpmail.store.redis.keys import Keys
from otpmail.store.redis.mails import RedisMailStore
from otpmail.store.redis.subscription import Subscription
from otpmail.store.retention import Retention
from ports import HOST
from store.entries import DAY, REMEMBER_COUNT, REMEMBER_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from otpmail.model import Mail
    from otpmail.store.base import Entry, Request
    from redis_server import RedisServer
    from store.clocks import Clock

SECONDS = 30
"""For what comes by itself."""

TAKING = b"2000\r\n$1\r\n1\r\n"
"""How a step ends that takes a lease of two seconds."""

KEYS = {"k1": bytes(32)}
_PAST = 2  # milliseconds since the epoch; 0 and 1 are no times (mails.lua)


class Owner:
    """The mails of a replica. `entries` are open, `in_flight` can be neither cancelled nor dropped."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.in_flight: set[str] = set()
        self.cancelled: list[str] = []
        self.dropped: list[str] = []
        self.resumed = 0
        self.watchers: dict[str, set[asyncio.Queue[Mail | None]]] = {}
        self.on_cancel: Callable[[str], None] = lambda _: None

    def entry(self, mail_id: str) -> Entry | None:
        """Return an open mail."""
        return self.entries.get(mail_id)

    def cancel(self, mail_id: str) -> bool:
        """Settle an open mail as cancelled, unless it is in flight."""
        if mail_id in self.in_flight:
            return False
        self.cancelled.append(mail_id)
        self.on_cancel(mail_id)
        return True

    def drop(self, mail_ids: Iterable[str]) -> Sequence[str]:
        """Note the mails that are not in flight."""
        dropped = [mail_id for mail_id in mail_ids if mail_id not in self.in_flight]
        self.dropped += dropped
        return dropped

    def resume(self) -> None:
        """Count."""
        self.resumed += 1

    def watch(self, mail_id: str, states: asyncio.Queue[Mail | None]) -> Callable[[], None]:
        """Put the mail as it was accepted into `states`, and what `show` is given."""
        entry = self.entries.get(mail_id)
        states.put_nowait(None if entry is None else entry.mail)
        self.watchers.setdefault(mail_id, set()).add(states)
        return lambda: self.watchers[mail_id].discard(states)

    def show(self, mail: Mail) -> None:
        """Let the watchers see a state."""
        for states in self.watchers[mail.id]:
            states.put_nowait(mail)


class Replica:
    """One replica. `die` ends it without a word, and `end_lease` has others see the end of its lease now."""

    def __init__(self, client: Client, mails: RedisMailStore, end_lease: Callable[[str], None]) -> None:
        self.client = client
        self.mails = mails
        self._end_lease = end_lease
        self.owner = Owner()
        mails.follow(self.owner)

    async def accept(self, *entries: Entry) -> None:
        """Accept mails that this replica then owns."""
        assert [type(answer).__name__ for answer in await self.mails.accept(entries)] == ["Accepted"] * len(entries)
        self.owner.entries |= {entry.mail.id: entry for entry in entries}

    @property
    def name(self) -> str:
        """The name under which it owns mails."""
        return self.mails._lease.name

    async def die(self) -> None:
        """Never speak to the server again. Nobody has to wait for the end of the lease, unless the memory is full."""
        await self.client.close()
        self.end_lease()

    def end_lease(self) -> None:
        """Set the end of the lease on the server to a time that is past."""
        self._end_lease(self.name)

    async def arrived(self, count: int) -> list[Entry]:
        """Return the first mails that arrive, so many of them."""
        entries: list[Entry] = []
        arrivals = self.mails.arrivals()
        while len(entries) < count:
            entries += await anext(arrivals)
        return entries


@asynccontextmanager
async def replica(
    server: RedisServer | Client,
    clock: Clock,
    namespace: str,
    *,
    keys: Mapping[str, bytes] = KEYS,
    lease_seconds: float = 1.0,
    port: int = 0,
    subscribed: bool = False,
    remember_octets: int = 1 << 30,
    remember_seconds: float = REMEMBER_SECONDS,
    request_seconds: float = DAY,
) -> AsyncIterator[Replica]:
    """Open a replica, and close it at the end. `port` is that of a proxy before the server.

    One that is not `subscribed` knows of others what the server keeps, and no more.
    """
    client = server if isinstance(server, Client) else Client(OneServer((HOST, port or server.port)), Access())
    mails = RedisMailStore(
        clock,
        client,
        Keys(namespace, Digests(keys)),
        Cipher(keys),
        lease_seconds=lease_seconds,
        retention=Retention(
            seconds=remember_seconds, count=REMEMBER_COUNT, octets=remember_octets, request_seconds=request_seconds
        ),
    )
    await mails.open()
    subscription = Subscription(client)
    mails.subscribe(subscription)
    listening = asyncio.create_task(subscription.run()) if subscribed else None
    try:
        yield Replica(client, mails, partial(_end_lease, server, namespace))
    finally:
        if listening is not None:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        await mails.close()
        await client.close()


def _end_lease(server: RedisServer | Client, namespace: str, name: str) -> None:
    if not isinstance(server, Client):
        server.command("ZADD", f"{{{namespace}}}:owners", "XX", _PAST, name)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so that nobody announces."""
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110  as above
            await asyncio.sleep(0.01)


def owned(server: RedisServer, namespace: str) -> set[str]:
    """Return the ids of the open mails of all replicas."""
    script = """
        local mails = {}
        for _, owner in ipairs(redis.call('ZRANGE', KEYS[1] .. 'owners', 0, -1)) do
          for _, mail in ipairs(redis.call('ZRANGE', KEYS[1] .. 'own:' .. owner, 0, -1)) do
            mails[#mails + 1] = mail
          end
        end
        return table.concat(mails, ' ')
    """
    return set(server.command("EVAL", script, 1, f"{{{namespace}}}:").split())


def empty(server: RedisServer, namespace: str) -> None:
    """Forget all that the replicas have written, as FLUSHALL does; other tests use the server too."""
    script = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', key) end"
    server.command("EVAL", script, 0, f"{{{namespace}}}:*")


async def claimed(one: Replica, request: Request, mail_id: str, *, other_than: object) -> object:
    """Claim a request id until the answer is another than the first one, which nobody announces."""
    async with asyncio.timeout(SECONDS):
        while (answer := await one.mails.claim(request, mail_id)) == other_than:  # noqa: ASYNC110  as above
            await asyncio.sleep(0.02)
    return answer
