"""Request ids on the server: each names one mail, on whatever replica a call comes."""

import asyncio
from collections.abc import Callable

from otpmail.errors import Unavailable
from otpmail.store.base import Accepted, Conflict, Earlier, Request, Running, TakenOver
from otpmail.store.redis.client import Client
from otpmail.store.redis.foreign import Foreign
from otpmail.store.redis.keys import Keys
from otpmail.store.redis.lease import Lease
from otpmail.store.redis.notes import Held
from otpmail.store.redis.owned import Owned
from otpmail.store.redis.replies import AnswerLost
from otpmail.store.redis.script import Script

_CLAIM = Script.load("mails", "mail_claim")

LOST = (b"EPOCH", b"LOST")
"""The answers of a script where this replica must find its lease again."""

TRIES = 3
"""How often a step is tried that the server refuses over the lease."""

_CLAIM_SECONDS = 7 * 24 * 3600  # for which a claim is kept whose process has ended

_ACCEPTED = Accepted()


class Requests:
    """Claims request ids for mails without content on the server, and reads what any of them names."""

    def __init__(
        self,
        client: Client,
        keys: Keys,
        lease: Lease,
        owned: Owned,
        foreign: Foreign,
        *,
        now: Callable[[], float],
    ) -> None:
        self._client = client
        self._keys = keys
        self._lease = lease
        self._owned = owned
        self._foreign = foreign
        self._now = now
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
        held = self._owned.claims.pop(mail_id, None)
        if held is not None:
            self._owned.retract(mail_id, held)

    async def find(self, caller: str, request_id: str) -> Earlier | Running | None:
        """Return that caller's mail of a request id, while it or the id is remembered, None otherwise."""
        key = self._keys.request(caller, request_id)
        await self._owned.notes.wait_for(key)
        state, mail, owner = await self._client.command("HMGET", key, "state", "mail", "own")
        if state is None or (state == b"running" and not await self._is_alive(owner)):
            return None
        if state in {b"running", b"kept"}:
            return Running(mail.decode())
        record = await self._foreign.read(mail.decode())
        if record is None or max(record.forgotten, record.request_ends) <= self._now():
            return None
        return Earlier(record.mail)

    async def _is_alive(self, owner: bytes) -> bool:
        ends, (seconds, _) = await asyncio.gather(
            self._client.command("ZSCORE", self._keys.owners, owner), self._client.command("TIME")
        )
        return owner == self._lease.name.encode() or (ends is not None and float(ends) > 1000 * int(seconds))

    async def _claim(self, request: Request, mail_id: str) -> bytes:
        key, lease = self._keys.request(request.caller, request.request_id), self._lease
        await self._owned.notes.wait_for(key)
        for _ in range(TRIES):
            name, epoch, sent = lease.name, lease.epoch, lease.mark
            held = Held(name, 0, key, request.fingerprint, has_content=False)
            words = (epoch, name, self._now(), mail_id, request.fingerprint, 1000 * _CLAIM_SECONDS)
            try:
                status, *found = await self._client.run(_CLAIM, (self._keys.epoch, self._keys.owners, key), words)
            except AnswerLost:
                self._owned.retract(mail_id, held)
                raise
            if status != b"OK":
                await lease.recover(name, epoch)
                continue
            count: int
            answer: bytes
            count, answer = found
            if answer[:1] in {b"A", b"T"}:
                self._owned.claims[answer[1:].decode() or mail_id] = held
            elif (doubtful := self._owned.doubtful.get(answer[1:].decode())) is not None:
                self._owned.retract(answer[1:].decode(), doubtful)
            lease.counted(sent, count, 1)  # once it is held, so that it is written again with the others
            return answer
        raise Unavailable("the store gives this replica no lease")

    async def answer(self, answer: bytes) -> Accepted | Earlier | Running | Conflict | TakenOver:
        """Return what a script's answer means; a settled mail is read for it."""
        kind, mail_id = answer[:1], answer[1:].decode()
        if kind == b"A":
            return _ACCEPTED
        if kind == b"R":
            return Running(mail_id)
        if kind == b"T":
            return TakenOver(mail_id)
        if kind == b"C":
            return Conflict()
        record = await self._foreign.read(mail_id)
        if record is None or record.owner:  # it was forgotten, or opened again, meanwhile
            raise Unavailable("the mail of this request_id has just changed")
        return Earlier(record.mail)


def _claimed(asking: asyncio.Future[bytes], mail_id: str) -> str:
    """Return the id of the mail whose claim a call has got: after a take-over it is not the call's own."""
    if asking.cancelled() or asking.exception() is not None or asking.result()[:1] != b"T":
        return mail_id
    return asking.result()[1:].decode()
