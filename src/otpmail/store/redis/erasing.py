"""Erases a person from the settled mails on the server, and from those in the memory of every replica."""

import asyncio
import secrets
import struct
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from otpmail.errors import StoreError, Unavailable
from otpmail.store.forgotten import Forgotten, Span, owner_of
from otpmail.store.memory.mails import MemoryMailStore
from otpmail.store.redis.foreign import ForeignMails
from otpmail.store.redis.owned import Owned
from otpmail.store.redis.replica import Replica
from otpmail.store.redis.script import Script
from otpmail.store.redis.subscription import Subscription

_ERASE = Script.load("mail_content", "mail_erase")
_ORIGIN = 8  # octets of a replica's name in a message
_SPAN = struct.Struct("<dd")  # the digest of the caller follows
_CLOCKS = 1.0  # seconds that the clocks of two replicas may differ
_SLICE = 50  # records at a time
_PERSONS = 500  # of which as many are read at a time


class Erasing:
    """Erases at once on the server, and in the `memory` of this replica. Other replicas follow its announcement.

    A message that is lost leaves what another replica has in its memory alone, for as long as mails are remembered.
    The persons to forget in mails that settle later are on the server, where all replicas look now and then.
    """

    def __init__(
        self, replica: Replica, forgotten: Forgotten, *, foreign: ForeignMails, owned: Owned, memory: MemoryMailStore
    ) -> None:
        self._forgotten, self._now = forgotten, replica.now
        self._client, self._keys, self._records = replica.client, replica.keys, replica.records
        self._foreign = foreign
        self._owned = owned
        self._memory = memory
        self._origin = secrets.token_bytes(_ORIGIN)
        self._told: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Erasing, told {len(self._told)}>"

    async def begin(self, caller: str, person: bytes, until: float) -> None:
        """Have the mails that are open now settle without a person, in every replica."""
        span = Span(self._now() + _CLOCKS, until, owner_of(caller))
        name = self._forgotten.add(person, span)
        self._memory.count()
        octets = _SPAN.pack(span.since, span.until) + span.owner
        await self._client.command("HSET", self._keys.forgetting, name, octets)
        await self._client.command("PUBLISH", self._keys.forgotten, self._origin + person)

    async def refresh(self) -> None:
        """Read whom to forget, in slices, and drop those whose mails have all settled. Raises Unavailable."""
        began, cursor = self._now(), b"0"
        while True:
            cursor, found = await self._client.command("HSCAN", self._keys.forgetting, cursor, "COUNT", _PERSONS)
            spans = {name: _span_of(octets) for name, octets in zip(found[::2], found[1::2], strict=True)}
            for name, span in spans.items():
                if span.until > began:
                    self._forgotten.put(name, span)
            if ended := [name for name, span in spans.items() if span.until <= began]:
                await self._client.command("HDEL", self._keys.forgetting, *ended)
            if int(cursor) == 0:
                break
        await self._forgotten.sweep(began)
        self._memory.count()

    async def erase(self, person: bytes) -> int:
        """Erase a person; returns from how many mails that this replica or the server has. Raises Unavailable."""
        erased = await self._memory.erase(person)
        await self._owned.notes.wait_for_all()
        for index in (self._keys.settled, self._keys.answered):
            async for mail_ids, octets in self._foreign.settled_octets(index):
                for mail_id, one in zip(mail_ids, octets, strict=True):
                    erased += 0 if one is None else await self._erase(mail_id, one, person)
        await self._client.command("PUBLISH", self._keys.forgotten, self._origin + person)
        return erased

    async def _erase(self, mail_id: str, octets: bytes, person: bytes) -> int:
        """Erase a person from a mail; one that can't be read, as without its key, stays."""
        with suppress(StoreError, ValueError):
            left = self._records.erased(mail_id, octets, person)
            if left is None:
                return 0
            # A server that loses the mail is not given it again, so its request id is free then.
            self._owned.books.recent.discard(mail_id)
            names = (self._keys.contents, self._keys.content_octets, self._keys.mail(mail_id))
            return int(await self._client.run(_ERASE, names, (mail_id, octets, left)))
        return 0

    def subscribe(self, subscription: Subscription) -> None:
        """Receive whom other replicas were asked to forget."""
        subscription.add(self._keys.forgotten, self._receive)
        subscription.call_when_connected(lambda: self._run(self._look()))

    async def close(self) -> None:
        """Erase no more."""
        for task in self._told:
            task.cancel()
        await asyncio.gather(*self._told, return_exceptions=True)

    def _receive(self, message: bytes) -> None:
        if message[:_ORIGIN] != self._origin:
            self._run(self._forget(message[_ORIGIN:]))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._told.add(task)
        task.add_done_callback(self._told.discard)

    async def _look(self) -> None:
        with suppress(Unavailable):  # the subscription is lost with the server, and comes again with it
            await self.refresh()

    async def _learn(self, person: bytes) -> None:
        """Read of one person since when to forget it."""
        names = self._forgotten.names(person)
        for name, octets in zip(names, await self._client.command("HMGET", self._keys.forgetting, *names), strict=True):
            if octets is not None:
                self._forgotten.put(name, _span_of(octets))
        self._memory.count()

    async def _forget(self, person: bytes) -> None:
        """Erase a person here, and from what this replica has settled a moment ago, which the other may not have seen.

        While the server is down it has told nobody: the next refresh finds the person.
        """
        with suppress(Unavailable):
            await self._learn(person)
            await self._memory.erase(person)
            await self._owned.notes.wait_for_all()
            recent = [note.mail_id for note in self._owned.books.recent]
            for start in range(0, len(recent), _SLICE):
                async for mail_id, one in self._foreign.settled_of(recent[start : start + _SLICE]):
                    await self._erase(mail_id, one, person)


def _span_of(octets: bytes) -> Span:
    since, until = _SPAN.unpack_from(octets)
    return Span(since, until, octets[_SPAN.size :])
