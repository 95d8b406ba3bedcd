"""Request ids on the server: each names one mail, on whatever replica a call comes."""

import asyncio
from dataclasses import replace
from typing import Any

from otpmail.errors import Unavailable
from otpmail.store.base import Accepted, Conflict, Earlier, Request, Running, TakenOver
from otpmail.store.redis.books import CLAIM_SECONDS
from otpmail.store.redis.foreign import ForeignMails
from otpmail.store.redis.keys import joined
from otpmail.store.redis.notes import Held
from otpmail.store.redis.owned import Owned
from otpmail.store.redis.records import Record
from otpmail.store.redis.replica import Replica
from otpmail.store.redis.script import Script

_CLAIM = Script.load("mails", "mail_claim")

_ACCEPTED = Accepted()


class Requests:
    """Claims request ids for mails without content on the server, and reads what any of them names."""

    def __init__(self, replica: Replica, owned: Owned, foreign: ForeignMails) -> None:
        self._client, self._keys, self._lease = replica.client, replica.keys, replica.lease
        self._owned = owned
        self._foreign = foreign
        self._now = replica.now
        self._claiming: dict[str, asyncio.Future[bytes]] = {}

    def __repr__(self) -> str:
        return f"<Requests {len(self._claiming)} being claimed>"

    async def claim(self, request: Request, mail_id: str) -> Accepted | Earlier | Running | Conflict | TakenOver:
        """Keep a request id for the mail that is about to be accepted, unless it came before."""
        asking = asyncio.ensure_future(self._claim(request, mail_id))
        self._claiming[mail_id] = asking
        asking.add_done_callback(lambda _: self._claiming.pop(mail_id, None))
        return await self.answer(await asyncio.shield(asking))

    def release(self, request: Request, mail_id: str) -> None:
        """Free a request id that was claimed for a mail which was not accepted: the caller's next try counts as new."""
        asking = self._claiming.get(mail_id)
        if asking is not None:  # its call was cancelled before the answer
            asking.add_done_callback(lambda _: self.release(request, _claimed(asking, mail_id)))
            return
        held = self._owned.books.claims.pop(mail_id, None)
        if held is not None:
            self._owned.doubtful.retract(mail_id, held)

    async def find(self, caller: str, request_id: str) -> Earlier | Running | None:
        """Return that caller's mail of a request id, while it or the id is remembered, None otherwise."""
        key = self._keys.request(caller, request_id)
        await self._owned.notes.wait_for(key)
        state, mail, owner = await self._client.command("HMGET", key, "state", "mail", "own")
        if state is None or (state == b"running" and not await self._foreign.is_alive(owner)):
            return None
        if state in {b"running", b"kept"}:
            return Running(mail.decode())
        record = await self._foreign.read(mail.decode())
        if not isinstance(record, Record) or max(record.forgotten, record.request_ends) <= self._now():
            return None
        return Earlier(record.mail)

    async def _claim(self, request: Request, mail_id: str) -> bytes:
        keys, owned = self._keys, self._owned
        key, caller = keys.request(request.caller, request.request_id), keys.caller(request.caller)
        await owned.notes.wait_for(key)

        def held_by(name: str) -> Held:
            """Return the claim as one of that owner."""
            return Held(name, 0, key, request.fingerprint, has_content=False, caller=caller)

        async def ask(name: str, epoch: str) -> list[Any]:
            """Run the script in the name of a lease."""
            names = (keys.epoch, keys.owners, key, keys.mail(mail_id))
            fingerprints = joined(keys.fingerprints(request.fingerprint))
            words = (epoch, name, self._now(), mail_id, fingerprints, 1000 * CLAIM_SECONDS, caller)
            answer: list[Any] = await self._client.run(_CLAIM, names, words)
            return answer

        step = await self._lease.run(ask, lambda name: owned.doubtful.retract(mail_id, held_by(name)))
        [answer] = step.answer
        kind, found = answer[:1], answer[1:].decode()
        if kind in {b"A", b"T"}:
            owned.hold_claim(found or mail_id, replace(held_by(step.name), is_taken_over=kind == b"T"))
        else:
            owned.doubtful.retract_again(found, key)
        self._lease.counted(step.sent, step.total, 1)  # once it is held, so that it is written again with the others
        return bytes(answer)

    async def answer(self, answer: bytes) -> Accepted | Earlier | Running | Conflict | TakenOver:
        """Return what a script's answer means; a settled mail is read for it."""
        kind, mail_id = answer[:1], answer[1:].decode()
        if kind == b"A":
            return _ACCEPTED
        if kind == b"R":
            return Running(mail_id)
        if kind == b"T":
            return TakenOver(mail_id)
        record = await self._foreign.read(mail_id)  # without its key nobody knows what was asked for
        if kind == b"C":
            return Conflict()
        if not isinstance(record, Record) or record.owner:  # it was forgotten, or opened again, meanwhile
            raise Unavailable("the mail of this request_id has just changed")
        return Earlier(record.mail)


def _claimed(asking: asyncio.Future[bytes], mail_id: str) -> str:
    """Return the id of the mail whose claim a call has got: after a take-over it is not the call's own."""
    if asking.cancelled() or asking.exception() is not None or asking.result()[:1] != b"T":
        return mail_id
    return asking.result()[1:].decode()
