"""Request ids, guaranteed mails and how they settled, on a Redis server that several replicas use."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from sys import maxsize

from otpmail.errors import StoreError, Unavailable
from otpmail.model import Mail
from otpmail.store.base import (
    REQUEST_SECONDS,
    Accepted,
    Conflict,
    Earlier,
    Entry,
    Owner,
    Progress,
    Running,
    TakenOver,
)
from otpmail.store.cipher import Cipher
from otpmail.store.memory.mails import MemoryMailStore
from otpmail.store.redis.acceptance import Acceptance, Acceptor
from otpmail.store.redis.client import Client, Value
from otpmail.store.redis.foreign import Foreign
from otpmail.store.redis.forgetting import forget_ended
from otpmail.store.redis.keys import Keys
from otpmail.store.redis.lease import Lease
from otpmail.store.redis.notes import Note
from otpmail.store.redis.owned import Owned
from otpmail.store.redis.records import Records, score_of
from otpmail.store.redis.replies import AnswerLost
from otpmail.store.redis.requests import LOST, TRIES, Requests
from otpmail.store.redis.script import Script

_REOPEN = Script.load("mails", "mail_reopen")

_FLUSH_SECONDS = 5.0


class RedisMailStore:
    """Guaranteed mails, and every mail with a request id, on the server; the others as `MemoryMailStore` has them.

    The content of open mails is in this process too, as long as it owns them: a server that was emptied gets it again.
    `octets` is the memory that settled mails take here. It remembers `remember_count` settled mails of all replicas.
    """

    durable = True

    def __init__(
        self,
        clock: Callable[[], float],
        client: Client,
        keys: Keys,
        cipher: Cipher,
        *,
        lease_seconds: float,
        remember_seconds: float,
        remember_count: int,
        remember_octets: int = maxsize,
    ) -> None:
        self.now = clock
        self._client = client
        self._keys = keys
        self._records = Records(cipher)
        self._lease = Lease(client, keys, lease_seconds)
        self._owned = Owned(client, keys, self._lease, self._records)
        self._foreign = Foreign(client, keys, self._lease, self._records, now=clock)
        self._acceptor = Acceptor(
            client, keys, self._lease, now=clock, begun=self._owned.begun, doubtful=self._owned.doubt
        )
        self._remember_seconds = remember_seconds
        self._remember_count = remember_count
        self._memory = MemoryMailStore(
            clock, remember_seconds=remember_seconds, remember_count=remember_count, remember_octets=remember_octets
        )
        self.octets = 0
        self._requests = Requests(client, keys, self._lease, self._owned, self._foreign, now=clock)
        self.claim, self.release, self.find = self._requests.claim, self._requests.release, self._requests.find
        self.may_send = self._lease.is_held
        self.watch = self._foreign.watch

    def __repr__(self) -> str:
        return f"<RedisMailStore {self._lease!r}, {self._owned!r}, {self._memory!r}>"

    async def open(self) -> None:
        """Take a lease, and take over what others have left from now on. Raises Unavailable."""
        await self._lease.open()

    async def close(self) -> None:
        """Write what was noted, and hand over what is owned, in some seconds at most."""
        await self._owned.close(_FLUSH_SECONDS)

    def watch_lease(self, problem_changed: Callable[[str], None]) -> None:
        """Call `problem_changed` with why the lease can't be renewed, and with an empty text once it is again."""
        self._lease.problem_changed = problem_changed

    def follow(self, owner: Owner) -> None:
        """Ask `owner` about the mails of this process from now on."""
        self._owned.owner = owner

    # Mails in.

    async def accept(self, entries: Sequence[Entry]) -> list[Accepted | Earlier | Running | Conflict]:
        """Keep mails, with their content and request ids; those of one turn of the loop in one step of the server."""
        kept = [self._acceptance(entry) for entry in entries]
        for one in kept:
            if one.request is not None and one.request in self._owned.notes.pending:
                await self._owned.notes.wait_for(one.request)
            self._acceptor.add(one)
        for one in kept:
            with suppress(Unavailable, StoreError):  # which is looked at once all are answered
                await one.answer
        try:
            return [await self._answered(one, one.answer.result()) for one in kept]
        except BaseException:  # their callers do not learn which mails were kept
            for one in kept:
                self._take_back(one)
            raise

    async def issue(
        self, entry: Entry, code: bytes, words: Sequence[Value]
    ) -> tuple[Accepted | Earlier | Running | Conflict | None, bytes]:
        """Keep the mail of a code, if the server decides for its challenge, with the record `code` (see `Acceptor`).

        Returns the answer about the mail, None where nothing has changed, and the server's answer about the code.
        """
        one = self._acceptance(entry)
        if one.request is not None:
            await self._owned.notes.wait_for(one.request)
        try:
            kept, sending = await self._acceptor.issue(one, code, words)
        except BaseException:
            self._owned.held.pop(one.mail_id, None)
            raise
        if not kept:
            self._owned.held.pop(one.mail_id, None)
            return None, sending
        return await self._answered(one, kept), sending

    # What becomes of them.

    async def begin_attempts(self, progresses: Mapping[str, Progress]) -> None:
        """Note that attempts at accepted mails are about to begin; on the server on return. Raises Unavailable."""
        undone = {mail_id: replace(progress, begun=False) for mail_id, progress in progresses.items()}
        notes, undo = ([*filter(None, map(self._progress, some, some.values()))] for some in (progresses, undone))
        await self._owned.notes.write_next(notes, undo)

    def deferred(self, mail_id: str, progress: Progress) -> None:
        """Note how far an accepted mail has come."""
        note = self._progress(mail_id, progress)
        if note is not None:
            self._owned.notes.add(note)
            if note.held.owner != self._lease.name:  # it is let go: another replica may have it
                del self._owned.held[mail_id]

    def settle(self, mail: Mail, *, keep_request: bool = True, entry: Entry | None = None) -> None:
        """Note the final state of a mail, and drop its content unless there is an `entry`."""
        held = self._owned.settled(mail.id)
        if held is None:  # its caller waits for the relay, and it has no request id
            self._memory.settle(mail, keep_request=keep_request, entry=entry)
            self.octets = self._memory.octets
            return
        now = self.now()
        forgotten = (mail.settle_time or now) + self._remember_seconds
        request_ends = mail.create_time + REQUEST_SECONDS if keep_request and mail.request_id else 0.0
        seal = partial(self._records.seal_settled, mail, forgotten=forgotten, request_ends=request_ends)
        content = bytes if entry is None else partial(self._records.seal_entry, entry)
        kept, found = _milliseconds(max(forgotten, request_ends) - now), _milliseconds(request_ends - now)
        numbers = (kept, request_ends, found)
        self._owned.notes.add(Note("settle", mail.id, held, seal, numbers, mail.settle_time or now, content))

    # Settled mails, and those of others.

    async def get(self, caller: str, mail_id: str) -> Mail | None:
        """Return that caller's mail, of any owner, also one that has not settled."""
        if (mail := await self._memory.get(caller, mail_id)) is not None:
            return mail
        await self._owned.notes.wait_for(mail_id)
        return await self._foreign.get(caller, mail_id)

    async def cancel(self, caller: str, mail_id: str) -> Mail | None:
        """Let the owner of that caller's mail cancel it, and return it as it settled."""
        if (mail := await self._memory.get(caller, mail_id)) is not None:
            return mail
        await self._owned.notes.wait_for(mail_id)
        return await self._foreign.cancel(caller, mail_id)

    async def remembered(self) -> AsyncIterator[Sequence[Mail]]:
        """Yield the settled mails of all callers, and those that other replicas own, in slices."""
        async for some in self._memory.remembered():
            yield some
        await self._owned.notes.wait_for_all()
        for key in (self._keys.settled, self._keys.answered):
            async for some in self._foreign.settled(key):
                yield some
        async for some in self._foreign.open():
            yield some

    async def retryable(self, caller: str, mail_id: str) -> Entry | None:
        """Return that caller's settled mail with its content, as it settled; None where its content is not kept."""
        if (entry := await self._memory.retryable(caller, mail_id)) is not None:
            return entry
        await self._owned.notes.wait_for(mail_id)
        return await self._foreign.content(caller, mail_id)

    async def reopen(self, entry: Entry, settle_time: float) -> bool:
        """Keep a settled mail as an accepted one again, in one step; False where it is not as it settled then."""
        mail = entry.mail
        if (kept := await self._memory.retryable(mail.caller, mail.id)) is not None:
            return await self._reopen_from_memory(entry, kept, settle_time)
        await self._owned.notes.wait_for(mail.id)
        if await self._foreign.content(mail.caller, mail.id) is None:  # it is forgotten on our clock
            return False
        one = self._acceptance(entry)
        for _ in range(TRIES):
            name, epoch = self._lease.name, self._lease.epoch
            try:
                answer = await self._reopen(one, name, epoch, settle_time)
            except AnswerLost:
                self._owned.may_return(mail.id)
                raise
            if answer not in LOST:
                is_open = answer.startswith(b"A")
                if is_open:
                    self._owned.held[mail.id] = one._replace(fingerprint=answer[1:]).held_by(name)
                return is_open
            await self._lease.recover(name, epoch)
        raise Unavailable("the store gives this replica no lease")

    def forget_oldest(self) -> bool:
        """Forget the oldest mails in memory; False where none are left. Those on the server take no memory here."""
        forgotten = self._memory.forget_oldest()
        self.octets = self._memory.octets
        return forgotten

    async def forget_ended(self) -> None:
        """Forget what is past its time, or beyond the most there may be. Raises Unavailable."""
        await forget_ended(self._client, self._keys, self._foreign, most=self._remember_count)

    async def arrivals(self) -> AsyncIterator[Sequence[Entry]]:
        """Yield the mails of replicas that have ended, in slices: by priority, then by age. It does not end."""
        owned = self._owned
        while True:
            entries = await owned.arrivals.get()
            yield [entry for entry in entries if entry.mail.id in owned.arriving]
            for entry in entries:
                owned.arriving.pop(entry.mail.id, None)

    # Words for the server.

    async def _reopen(self, one: Acceptance, name: str, epoch: str, settle_time: float) -> bytes:
        keys = self._keys
        record = keys.mail(one.mail_id)
        names = (keys.epoch, keys.owners, keys.own(name), keys.settled, keys.answered, record, one.request or record)
        words = (epoch, name, self.now(), one.mail_id, one.score, one.octets, one.fingerprint, settle_time)
        answer: bytes = await self._client.run(_REOPEN, names, words)
        return answer

    async def _reopen_from_memory(self, entry: Entry, kept: Entry, settle_time: float) -> bool:
        """Write a mail to the server that settled without having been there."""
        if not await self._memory.reopen(entry, settle_time):
            return False
        try:
            await self.accept([entry])
        except BaseException:
            self._memory.settle(kept.mail, entry=kept)
            raise
        finally:
            self.octets = self._memory.octets
        return True

    async def _answered(self, one: Acceptance, octets: bytes) -> Accepted | Earlier | Running | Conflict:
        """Return the server's answer about a mail that it was to keep, and hold the mail if it is kept."""
        if octets != b"A":
            self._owned.held.pop(one.mail_id, None)
        answer = await self._requests.answer(octets)
        if isinstance(answer, Running) and (doubtful := self._owned.doubtful.get(answer.mail_id)) is not None:
            self._owned.retract(answer.mail_id, doubtful)  # it was kept after all, and is taken up then
        assert not isinstance(answer, TakenOver)
        self._owned.claims.pop(one.mail_id, None)
        return answer

    def _take_back(self, one: Acceptance) -> None:
        """Take back a mail that the server has kept, since its call is refused."""
        held = self._owned.held.pop(one.mail_id, None)
        if held is not None and one.answer.exception() is None and one.answer.result() == b"A":
            self._owned.retract(one.mail_id, held)

    def _acceptance(self, entry: Entry) -> Acceptance:
        mail = entry.mail
        key = self._keys.request(mail.caller, mail.request_id) if mail.request_id else None
        return Acceptance(
            mail.id,
            score_of(entry.priority, mail.create_time),
            key,
            entry.fingerprint,
            self._records.seal_entry(entry),
            asyncio.get_running_loop().create_future(),
        )

    def _progress(self, mail_id: str, progress: Progress) -> Note | None:
        held = self._owned.held.get(mail_id)
        if held is None:
            return None
        return Note("defer", mail_id, held, partial(self._records.seal_progress, mail_id, progress))


def _milliseconds(seconds: float) -> int:
    """Return a time for which a key is kept: the server takes no less than one."""
    return max(1, int(1000 * seconds))
