"""Settled mails that are opened again, of whatever replica, by the content that is kept of them."""

from typing import Any

from otpmail.store.base import Entry
from otpmail.store.memory.mails import Accept, MemoryMailStore
from otpmail.store.redis.acceptance import Acceptance
from otpmail.store.redis.foreign import ForeignMails
from otpmail.store.redis.owned import Owned
from otpmail.store.redis.replica import Replica
from otpmail.store.redis.script import Script

_REOPEN = Script.load("mails", "mail_content", "mail_keep", "mail_reopen")


class Retries:
    """Finds settled mails of the server, and of `memory` alone, and opens them again; `accept` keeps the latter."""

    def __init__(
        self, replica: Replica, *, owned: Owned, foreign: ForeignMails, memory: MemoryMailStore, accept: Accept
    ) -> None:
        self._replica = replica
        self._client, self._keys, self._lease = replica.client, replica.keys, replica.lease
        self._owned = owned
        self._foreign = foreign
        self._memory = memory
        self._accept = accept
        self._now = replica.now

    def __repr__(self) -> str:
        return f"<Retries of {self._owned!r}>"

    async def retryable(self, caller: str, mail_id: str) -> Entry | None:
        """Return that caller's settled mail with its content, as it settled; None where its content is not kept."""
        if (entry := await self._memory.retryable(caller, mail_id)) is not None:
            return entry
        await self._owned.notes.wait_for(mail_id)
        return await self._foreign.content(caller, mail_id)

    async def reopen(self, entry: Entry, settle_time: float) -> bool:
        """Keep a settled mail as an accepted one again, in one step; False where it is not as it settled then."""
        mail = entry.mail
        if await self._memory.retryable(mail.caller, mail.id) is not None:
            return await self._memory.reopen_in(self._accept, entry, settle_time)
        await self._owned.notes.wait_for(mail.id)
        if await self._foreign.get(mail.caller, mail.id) is None:  # it is forgotten on our clock
            return False
        one = Acceptance.of(entry, self._replica)

        async def ask(name: str, epoch: str) -> list[Any]:
            """Run the script in the name of a lease."""
            return await self._ask(one, name, epoch, settle_time)

        step = await self._lease.run(ask, lambda _: self._owned.may_be_open(mail.id))
        [answer] = step.answer
        is_open = bool(answer.startswith(b"A"))
        if is_open:
            self._owned.hold_opened(mail.id, one._replace(fingerprint=answer[1:]).held_by(step.name))
        self._lease.counted(step.sent, step.total, 1)
        return is_open

    async def _ask(self, one: Acceptance, name: str, epoch: str, settle_time: float) -> list[Any]:
        keys = self._keys
        record = keys.mail(one.mail_id)
        names = (
            *(keys.epoch, keys.owners, keys.own(name), keys.settled, keys.answered, keys.contents),
            *(keys.content_octets, record, one.request or record),
        )
        [fingerprint, *_] = keys.fingerprints(one.fingerprint)
        words = (epoch, name, self._now(), one.mail_id, one.score, one.octets, fingerprint, one.head, settle_time)
        answer: list[Any] = await self._client.run(_REOPEN, names, words)
        return answer
