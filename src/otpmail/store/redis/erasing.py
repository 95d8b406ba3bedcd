"""Erases a person from the settled mails on the server, and from those in the memory of every replica."""

import asyncio
import secrets
from contextlib import suppress

from otpmail.errors import StoreError
from otpmail.store.memory.mails import MemoryMailStore
from otpmail.store.redis.foreign import ForeignMails
from otpmail.store.redis.owned import Owned
from otpmail.store.redis.replica import Replica
from otpmail.store.redis.script import Script
from otpmail.store.redis.subscription import Subscription

_ERASE = Script.load("mail_content", "mail_erase")
_ORIGIN = 8  # octets of a replica's name in a message


class Erasing:
    """Erases at once what the server has, and what this replica has in `memory`; the others do when they are told.

    A message that is lost leaves what another replica has in its memory alone, for as long as mails are remembered.
    """

    def __init__(self, replica: Replica, *, foreign: ForeignMails, owned: Owned, memory: MemoryMailStore) -> None:
        self._client, self._keys, self._records = replica.client, replica.keys, replica.records
        self._foreign = foreign
        self._owned = owned
        self._memory = memory
        self._origin = secrets.token_bytes(_ORIGIN)
        self._told: set[asyncio.Task[int]] = set()

    def __repr__(self) -> str:
        return f"<Erasing, told {len(self._told)}>"

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

    async def close(self) -> None:
        """Erase no more."""
        for task in self._told:
            task.cancel()
        await asyncio.gather(*self._told, return_exceptions=True)

    def _receive(self, message: bytes) -> None:
        if message[:_ORIGIN] != self._origin:
            task = asyncio.create_task(self._memory.erase(message[_ORIGIN:]))
            self._told.add(task)
            task.add_done_callback(self._told.discard)
