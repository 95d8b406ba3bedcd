"""Request ids, guaranteed mails and how they settled, on a Redis server that several replicas use."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from otpmail.errors import CallerError, StoreError, Unavailable
from otpmail.model import Mail
from otpmail.store.base import (
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
from otpmail.store.forgotten import Forgotten
from otpmail.store.memory.mails import MemoryMailStore
from otpmail.store.redis.acceptance import Acceptance, Acceptor
from otpmail.store.redis.announcements import Announcements
from otpmail.store.redis.client import Client
from otpmail.store.redis.erasing import Erasing
from otpmail.store.redis.foreign import ForeignMails
from otpmail.store.redis.forgetting import Forgetting
from otpmail.store.redis.keys import Keys
from otpmail.store.redis.lease import Lease
from otpmail.store.redis.notes import Note
from otpmail.store.redis.owned import Owned
from otpmail.store.redis.reader import Reader
from otpmail.store.redis.records import Records, present
from otpmail.store.redis.replica import Replica
from otpmail.store.redis.requests import Requests
from otpmail.store.redis.resp import Value
from otpmail.store.redis.retries import Retries
from otpmail.store.redis.settlement import Times, settlement_of
from otpmail.store.redis.subscription import Subscription
from otpmail.store.retention import Retention
from otpmail.store.wanted import Wanted, ever

_FLUSH_SECONDS = 5.0


class RedisMailStore:
    """Guaranteed mails, and every mail with a request id, on the server; the others as `MemoryMailStore` has them.

    The content of open mails is in this process too, as long as it owns them: a server that was emptied gets it again.
    `retention` says what it remembers of the settled mails of all replicas. They take its octets at most of the memory
    here, and the contents of those that may be retried as much of the server's.
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
        retention: Retention,
    ) -> None:
        self.now = clock
        self._keys, self._records, self._lease = keys, Records(cipher), Lease(client, keys, lease_seconds)
        self._replica = replica = Replica(
            client, keys, self._lease, self._records, reader=Reader(client, keys), now=clock
        )
        self._owned = Owned(replica, retention)
        self._books = self._owned.books
        self._announcements = Announcements(replica, self._books)
        self._foreign = ForeignMails(replica, self._announcements)
        self._forgetting = Forgetting(replica, self._foreign, retention)
        self._owned.notes.found_no_room = self._forgetting.begin_making_room
        self._acceptor = Acceptor(replica, begun=self._owned.begun, doubtful=self._owned.doubt)
        self._retention = retention
        self._forgotten = Forgotten(keys.names_of_person)
        self._memory = MemoryMailStore(clock, retention=retention, forgotten=self._forgotten)
        self._requests = Requests(replica, self._owned, self._foreign)
        self.claim, self.release, self.find = self._requests.claim, self._requests.release, self._requests.find
        retries = Retries(replica, owned=self._owned, foreign=self._foreign, memory=self._memory, accept=self.accept)
        self.retryable, self.reopen = retries.retryable, retries.reopen
        self._erasing = Erasing(replica, self._forgotten, foreign=self._foreign, owned=self._owned, memory=self._memory)
        self.erase, self.begin_forgetting = self._erasing.erase, self._erasing.begin
        self.is_accepted, self.may_send, self.watch = self._owned.is_accepted, self._lease.is_held, self._foreign.watch

    def __repr__(self) -> str:
        return f"<RedisMailStore {self._lease!r}, {self._owned!r}, {self._memory!r}>"

    @property
    def unwritten(self) -> int:
        """How many notes the server lacks."""
        return len(self._owned.notes.waiting)

    @property
    def octets(self) -> int:
        """The memory that settled mails take here."""
        return self._memory.octets + self._books.recent.octets

    async def open(self) -> None:
        """Take a lease, and take over what others have left from now on. Raises Unavailable."""
        await self._erasing.refresh()
        await self._lease.open()

    async def close(self) -> None:
        """Write what was noted, and hand over what is owned, in some seconds at most."""
        await self._announcements.close()
        await self._erasing.close()
        await self._owned.close(_FLUSH_SECONDS)
        await self._forgetting.close()

    def subscribe(self, subscription: Subscription) -> None:
        """Receive what other replicas announce of mails."""
        self._announcements.subscribe(subscription)
        self._erasing.subscribe(subscription)

    def watch_lease(self, problem_changed: Callable[[str], None]) -> None:
        """Call `problem_changed` with why the lease can't be renewed, and with an empty text once it is again."""
        self._lease.problem_changed = problem_changed

    def follow(self, owner: Owner) -> None:
        """Ask `owner` about the mails of this process from now on."""
        self._books.owner = owner

    # Mails in.

    async def accept(self, entries: Sequence[Entry]) -> list[Accepted | Earlier | Running | Conflict]:
        """Keep mails, with their content and request ids; those of one turn of the loop in one step of the server."""
        kept = [Acceptance.of(entry, self._replica) for entry in entries]
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
        self, entry: Entry, record: Sequence[bytes], words: Sequence[Value]
    ) -> tuple[Accepted | Earlier | Running | Conflict | None, bytes]:
        """Keep the mail of a code, if the server decides for its challenge, with the code's `record` (see `Acceptor`).

        Returns the answer about the mail, None where nothing has changed, and the server's answer about the code.
        """
        one = Acceptance.of(entry, self._replica)
        if one.request is not None:
            await self._owned.notes.wait_for(one.request)
        try:
            kept, sending = await self._acceptor.issue(one, record, words)
        except BaseException:
            self._books.held.pop(one.mail_id, None)
            raise
        if not kept:
            self._books.held.pop(one.mail_id, None)
            return None, sending
        return await self._answered(one, kept), sending

    # Accepted mails.

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
                del self._books.held[mail_id]

    def settle(self, mail: Mail, *, keep_request: bool = True, entry: Entry | None = None) -> None:
        """Note the final state of a mail, and drop its content unless there is an `entry`."""
        held = self._books.pop(mail.id)
        if held is None:  # its caller waits for the relay, and it has no request id
            self._memory.settle(mail, keep_request=keep_request, entry=entry)
            return
        if mail.create_time <= self._forgotten.latest and (left := self._forgotten.left_of(mail)) is not None:
            mail, entry = left, None
        times = Times(self.now(), self._retention, keep_request)
        whose = self._keys.caller(mail.caller)
        self._owned.settle(*settlement_of(mail, held, self._records, times, entry, caller=whose))

    # Settled mails, and those of others.

    async def get(self, caller: str, mail_id: str) -> Mail | None:
        """Return that caller's mail, of any owner, also one that has not settled."""
        if (mail := await self._memory.get(caller, mail_id)) is not None:
            return mail
        await self._owned.notes.wait_for(mail_id)
        return await self._foreign.get(caller, mail_id)

    async def caller_of(self, mail_id: str) -> str | None:
        """Return whose mail it is, of any owner, also of one that has not settled."""
        if (caller := await self._memory.caller_of(mail_id)) is not None:
            return caller
        await self._owned.notes.wait_for(mail_id)
        return await self._foreign.caller_of(mail_id)

    async def cancel(self, caller: str, mail_id: str) -> Mail | None:
        """Let the owner of that caller's mail cancel it, and return it as it settled."""
        if (mail := await self._memory.get(caller, mail_id)) is not None:
            return mail
        await self._owned.notes.wait_for(mail_id)
        return await self._foreign.cancel(caller, mail_id)

    async def remembered(self, wanted: Wanted = ever) -> AsyncIterator[Sequence[Mail]]:
        """Yield the settled mails of all callers, and those that other replicas own, in slices.

        The open ones come first: one that settles meanwhile is found among the others.
        """
        async for some in self._memory.remembered():
            yield some
        async for some in self._foreign.open(wanted):
            yield some
        yield [present(entry) for entry in self._books.arriving.values()]
        await self._owned.notes.wait_for_all()
        async for some in self._foreign.settled(wanted):
            yield some

    def forget_oldest(self) -> bool:
        """Forget the oldest mails in memory; False where none are left. Those on the server take no memory here."""
        return self._memory.forget_oldest()

    async def forget_ended(self) -> None:
        """Forget what is past its time, or beyond the most there may be. Raises Unavailable."""
        await self._erasing.refresh()
        await self._forgetting.forget_ended()

    async def arrivals(self) -> AsyncIterator[Sequence[Entry]]:
        """Yield the mails of replicas that have ended, in slices: by priority, then by age. It does not end."""
        books = self._books
        while True:
            entries = await self._owned.arrivals.get()
            yield [entry for entry in entries if entry.mail.id in books.arriving]
            for entry in entries:
                books.arriving.pop(entry.mail.id, None)

    async def _answered(self, one: Acceptance, octets: bytes) -> Accepted | Earlier | Running | Conflict:
        """Return the server's answer about a mail that it was to keep, and hold the mail if it is kept.

        An earlier mail that can't be read now counts as running: `get` raises for it, and the other mails are kept.
        """
        if octets == b"A":
            self._books.claims.pop(one.mail_id, None)
            return Accepted()
        self._books.held.pop(one.mail_id, None)
        try:
            answer = await self._requests.answer(octets)
        except CallerError:
            return Running(octets[1:].decode())
        if isinstance(answer, Running):  # it may have been kept after all, and is taken up then
            self._owned.doubtful.retract_again(answer.mail_id, one.request)
        assert not isinstance(answer, TakenOver)
        self._books.claims.pop(one.mail_id, None)
        return answer

    def _take_back(self, one: Acceptance) -> None:
        """Take back a mail that the server has kept, since its call is refused."""
        held = self._books.held.pop(one.mail_id, None)
        if held is not None and one.answer.exception() is None and one.answer.result() == b"A":
            self._owned.doubtful.retract(one.mail_id, held)

    def _progress(self, mail_id: str, progress: Progress) -> Note | None:
        held = self._books.held.get(mail_id)
        if held is None:
            return None
        return Note("defer", mail_id, held, partial(self._records.seal_progress, mail_id, progress))
