"""The mails that this replica owns: what it must tell the server about them, and what the server tells it."""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any

from otpmail.errors import StoreError, Unavailable
from otpmail.store.base import Entry, Owner
from otpmail.store.redis.acceptance import Acceptance
from otpmail.store.redis.client import Client
from otpmail.store.redis.keys import Keys
from otpmail.store.redis.lease import Lease
from otpmail.store.redis.notes import Held, Note, Notes
from otpmail.store.redis.records import Records
from otpmail.store.redis.takeover import Taken, TakeOver

_log = logging.getLogger("otpmail")

_MOST_LATELY = 10_000  # settled mails that are remembered, in each of two halves
_MOST_DOUBTFUL = 10_000
_PATIENCE = 5  # renewals in a row after which the server knows more mails of ours than we do
_SLICE = 500


class Owned:
    """Follows the lease (`lease.Follower`), and keeps the books on what is ours.

    Its whole state: `held` are the open mails that the server has as ours, `claims` the request ids alone. `arriving`
    were taken over, and have no job yet. `doubtful` may be ours on the server, while their callers were refused.
    `_lately` have settled not long ago: a server that lost its last changes may name them again.
    """

    def __init__(self, client: Client, keys: Keys, lease: Lease, records: Records) -> None:
        self._client = client
        self._keys = keys
        self._lease = lease
        self._records = records
        self.notes = Notes(client, keys, lease)
        self.notes.accepted = self._accepted
        self.take_over = TakeOver(client, keys, lease, self.taken)
        self.held: dict[str, Held] = {}
        self.claims: dict[str, Held] = {}
        self.arriving: dict[str, Entry] = {}
        self.arrivals: asyncio.Queue[list[Entry]] = asyncio.Queue()
        self.doubtful: dict[str, Held] = {}
        self._lately: tuple[set[str], set[str]] = (set(), set())
        self._unknown = 0  # renewals in a row that counted mails which we do not know
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_auditing = False
        self._unreadable: set[str] = set()
        self.owner: Owner | None = None
        lease.follower = self

    def __repr__(self) -> str:
        return f"<Owned {len(self.held)} mails, {len(self.claims)} claims, {len(self.arriving)} arriving>"

    # For the store.

    def begun(self, acceptance: Acceptance, owner: str) -> None:
        """Note a mail that the server is about to have."""
        self.held[acceptance.mail_id] = acceptance.held_by(owner)

    def doubt(self, acceptance: Acceptance, owner: str) -> None:
        """Take back a mail that the server may have, since its caller is refused."""
        self.retract(acceptance.mail_id, acceptance.held_by(owner))

    def retract(self, mail_id: str, held: Held) -> None:
        """Take back a mail, or a claim, that the server may have, now and whenever it turns up again."""
        if len(self.doubtful) >= _MOST_DOUBTFUL:
            self.doubtful.pop(next(iter(self.doubtful)))
        self.doubtful[mail_id] = held
        self.notes.add(Note("retract" if held.has_content else "release", mail_id, held))

    def settled(self, mail_id: str) -> Held | None:
        """Return what is held of a mail that settles now, and hold it no more; None where the server has nothing."""
        held = self.held.pop(mail_id, None) or self.claims.pop(mail_id, None)
        if held is not None:
            self._lately[0].add(mail_id)
            if len(self._lately[0]) >= _MOST_LATELY:
                self._lately = (set(), self._lately[0])
        return held

    def may_return(self, mail_id: str) -> None:
        """Take up a settled mail if the server turns out to have it as ours: it may have been opened again."""
        for some in self._lately:
            some.discard(mail_id)

    async def close(self, seconds: float) -> None:
        """Write what was noted, hand over what is owned, and renew no more."""
        await self.take_over.stop()
        for task in self._tasks:
            task.cancel()
        await self.notes.close(seconds)
        if self.notes.waiting:
            _log.error(
                "the store could not be written before the stop; mails that were sent may be sent again",
                extra={"event": "store-unwritten", "fields": {"changes": len(self.notes.waiting)}},
            )
        with suppress(Unavailable):
            await self._lease.close()

    # For the lease.

    def emptied(self) -> None:
        """Write what is ours again, and settlements to a server that does not know their mails."""
        self.notes.repeat_settled()
        self._begin(self._rewrite(self._lease.name))
        self._begin_audit()

    async def fenced(self, name: str) -> None:
        """Let go of the mails of a name that lost its lease; those in flight end here."""
        lost = [mail_id for some in (self.held, self.claims) for mail_id, held in some.items() if held.owner == name]
        for start in range(0, len(lost), _SLICE):
            some = lost[start : start + _SLICE]
            dropped = self.owner.drop(some) if self.owner is not None else ()
            for mail_id in (*dropped, *[one for one in some if self.arriving.pop(one, None) is not None]):
                held = self.held.pop(mail_id, None) or self.claims.pop(mail_id, None)
                if held is not None and not held.has_content:
                    self.notes.add(Note("release", mail_id, held))
            await asyncio.sleep(0)

    def asked(self, mail_ids: Sequence[str]) -> None:
        """Cancel mails for other replicas, or say that they can't be cancelled."""
        for mail_id in mail_ids:
            held = self.held.get(mail_id)
            if held is None or self.owner is None or mail_id in self.arriving:  # it has settled, or is asked for again
                continue
            if not self.owner.cancel(mail_id):
                self.notes.add(Note("deny", mail_id, held, numbers=(int(1000 * monotonic()), 0, 0)))

    def ended(self, owners: Sequence[str]) -> None:
        """Take over the mails of replicas that have ended."""
        self.take_over.begin(owners)

    def counted(self, mails: int) -> None:
        """Look for mails that only the server knows as ours, where it counts more than we have."""
        known = len(self.held) + len(self._unreadable) + len(self.notes.waiting)
        self._unknown = self._unknown + 1 if mails > known else 0
        if self._unknown >= _PATIENCE:
            self._begin_audit()

    def resumed(self) -> None:
        """Go on with mails that were held up."""
        if self.owner is not None:
            self.owner.resume()

    # Mails of others.

    def taken(self, name: str, mails: Sequence[Taken]) -> None:
        """Take up mails that were moved to this replica under `name`; one that can't be read stays on the server."""
        entries: list[Entry] = []
        unreadable: list[str] = []
        for mail_id, score, octets, progress, orphaned in mails:
            try:
                entry = self._records.open_entry(mail_id, octets, progress, orphaned=orphaned)
            except (StoreError, ValueError) as error:
                unreadable.append(str(error))
                self._unreadable.add(mail_id)
                continue
            self.held[mail_id] = self._held_by(name, score, entry)
            self.arriving[mail_id] = entry
            entries.append(entry)
        if entries:
            self.arrivals.put_nowait(entries)
        if unreadable:
            _log.error(
                "%d accepted mails can't be read, and stay in the store: %s",
                len(unreadable),
                unreadable[0],
                extra={"event": "mails-unreadable", "fields": {"mails": len(unreadable)}},
            )

    def _held_by(self, name: str, score: int, entry: Entry) -> Held:
        mail = entry.mail
        request = self._keys.request(mail.caller, mail.request_id) if mail.request_id else None
        return Held(name, score, request, entry.fingerprint, has_content=True)

    # The server's books against ours.

    async def _rewrite(self, name: str) -> None:
        """Write every mail and claim of ours again, where the server lacks it."""
        ours = (*self.held.items(), *self.claims.items())
        for start in range(0, len(ours), _SLICE):
            for mail_id, held in ours[start : start + _SLICE]:
                if held.owner == name:
                    numbers = (held.score, int(held.has_content), 0)
                    self.notes.add(Note("rewrite", mail_id, held, partial(self._entry_octets, mail_id), numbers))
            await self.notes.wait_for_all()

    def _entry_octets(self, mail_id: str) -> bytes | None:
        """Return a mail's octets for a server that has lost them; None where it has settled meanwhile."""
        if mail_id in self.claims:
            return b""
        held = self.held.get(mail_id)
        entry = self.arriving.get(mail_id) or (self.owner.entry(mail_id) if self.owner is not None else None)
        if held is None or entry is None:
            return None
        return self._records.seal_entry(replace(entry, fingerprint=held.fingerprint))

    def _begin_audit(self) -> None:
        if not self._is_auditing:
            self._unknown, self._is_auditing = 0, True
            self._begin(self._find_unknown(self._lease.name))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, Unavailable):
            context = {"message": "the mails of this replica could not be compared", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)

    async def _find_unknown(self, name: str) -> None:
        """Find the mails that the server has as ours and we do not know.

        One that settled, or was taken back, is struck out again. Any other comes from a take-over whose answer was
        lost, and is taken up: a copy is better than a loss.
        """
        try:
            start = 0
            while found := await self._client.command("ZRANGE", self._keys.own(name), start, start + _SLICE - 1):
                start += len(found)
                await self._judge(name, [one.decode() for one in found])
        finally:
            self._is_auditing = False

    async def _judge(self, name: str, mail_ids: Sequence[str]) -> None:
        for mail_id in mail_ids:
            if mail_id in self.held or mail_id in self._unreadable or mail_id in self.notes.pending:
                continue
            if mail_id in self.doubtful:
                self.retract(mail_id, self.doubtful[mail_id])
            elif mail_id in self._lately[0] or mail_id in self._lately[1]:
                self.notes.add(Note("retract", mail_id, Held(name, 0, None, b"", has_content=True)))
            else:
                await self._take_up(name, mail_id)

    def _accepted(self, note: Note) -> None:
        """Take up a mail that was to be taken back."""
        self.doubtful.pop(note.mail_id, None)
        self._begin(self._take_up(note.held.owner, note.mail_id))

    async def _take_up(self, name: str, mail_id: str) -> None:
        key = self._keys.mail(mail_id)
        while True:
            try:
                octets, progress, orphaned = await self._client.command("HMGET", key, "entry", "progress", "orphaned")
                score = await self._client.command("ZSCORE", self._keys.own(name), mail_id)
                break
            except Unavailable as error:
                await asyncio.sleep(error.retry_after)
        if octets is not None and score is not None and mail_id not in self.held:
            self.taken(name, [(mail_id, int(float(score)), octets, progress, orphaned is not None)])
