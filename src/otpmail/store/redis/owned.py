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
from otpmail.store.redis.reader import Reader
from otpmail.store.redis.recent import RecentSettlements
from otpmail.store.redis.records import Records
from otpmail.store.redis.takeover import Taken, TakeOver

_log = logging.getLogger("otpmail")

CLAIM_SECONDS = 7 * 24 * 3600
"""How long the server keeps a claim whose process has ended."""

_MOST_DOUBTFUL = 10_000
_PATIENCE = 5  # renewals in a row after which the server knows more mails of ours than we do
_SLICE = 500


class Owned:
    """Follows the lease (`lease.Follower`), and keeps the books on what is ours.

    Its whole state: `held` are the open mails that the server has as ours, `claims` the request ids alone. `arriving`
    were taken over, and have no job yet. `_doubtful` may be ours on the server, while their callers were refused;
    `_doubtful_requests` names those that have a request id by that. `recent` are settlements of a moment ago.

    Contents for retries take `content_octets` at most on the server, and settlements `recent_octets` here.
    """

    def __init__(
        self,
        client: Client,
        keys: Keys,
        lease: Lease,
        records: Records,
        *,
        content_octets: int,
        recent_octets: int,
    ) -> None:
        self._client = client
        self._keys = keys
        self._lease = lease
        self._records = records
        self.notes = Notes(client, keys, lease, most_octets=content_octets)
        self.notes.accepted = self._accepted
        self._reader = Reader(client, keys)
        self._take_over = TakeOver(client, keys, lease, self._reader, self.add_taken)
        self.held: dict[str, Held] = {}
        self.claims: dict[str, Held] = {}
        self.arriving: dict[str, Entry] = {}
        self.arrivals: asyncio.Queue[list[Entry]] = asyncio.Queue()
        self.recent = RecentSettlements(recent_octets)
        self._doubtful: dict[str, Held] = {}
        self._doubtful_requests: dict[bytes, str] = {}
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
        if len(self._doubtful) >= _MOST_DOUBTFUL:
            self._trust(next(iter(self._doubtful)))
        self._doubtful[mail_id] = held
        if held.request is not None:
            self._doubtful_requests[held.request] = mail_id
        self.notes.add(Note("retract" if held.has_content else "release", mail_id, held))

    def retract_again(self, mail_id: str, request: bytes | None) -> None:
        """Take back what was to be taken back before, where a mail or its request id has turned up.

        The server may carry out a step whose answer was lost behind the note that was to undo it. A claim that was
        taken over has the id of the earlier mail then, and is known by its request id alone.
        """
        of_request = self._doubtful_requests.get(request) if request is not None else None
        for one in dict.fromkeys((mail_id, of_request)):
            if one is not None and (held := self._doubtful.get(one)) is not None:
                self.retract(one, held)

    def _trust(self, mail_id: str) -> None:
        """Take a mail back no more."""
        held = self._doubtful.pop(mail_id, None)
        if held is not None and held.request is not None and self._doubtful_requests.get(held.request) == mail_id:
            del self._doubtful_requests[held.request]

    def hold_claim(self, mail_id: str, held: Held) -> None:
        """Hold a request id for a mail."""
        self._trust(mail_id)
        self.claims[mail_id] = held

    def hold_opened(self, mail_id: str, held: Held) -> None:
        """Hold a settled mail that is open again."""
        self.may_be_open(mail_id)
        self.held[mail_id] = held

    def may_be_open(self, mail_id: str) -> None:
        """Take up a settled mail if the server turns out to have it as ours: it may have been opened again."""
        self._trust(mail_id)
        self.recent.discard(mail_id)

    def pop(self, mail_id: str) -> Held | None:
        """Return what is held of a mail that settles now, and hold it no more; None where the server has nothing."""
        return self.held.pop(mail_id, None) or self.claims.pop(mail_id, None)

    def settle(self, note: Note, octets: int) -> None:
        """Write a settlement, whose record has so many octets, and remember it for a while."""
        self.notes.add(note)
        self.recent.add(note, octets)

    async def close(self, seconds: float) -> None:
        """Write what was noted, hand over what is owned, and renew no more."""
        await self._take_over.stop()
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
        """Let go of the mails of a name that lost its lease; those in flight end here.

        Claims stay on the server. A repeated call takes them over, with the first Message-ID: the relay may have the
        mail of an attempt that was lost.
        """
        self._unreadable.clear()
        lost = [mail_id for some in (self.held, self.claims) for mail_id, held in some.items() if held.owner == name]
        for start in range(0, len(lost), _SLICE):
            some = lost[start : start + _SLICE]
            dropped = self.owner.drop(some) if self.owner is not None else ()
            for mail_id in (*dropped, *[one for one in some if self.arriving.pop(one, None) is not None]):
                self.pop(mail_id)
            await asyncio.sleep(0)

    def cancel(self, mail_ids: Sequence[str]) -> None:
        """Cancel mails for other replicas, or say that they can't be cancelled."""
        for mail_id in mail_ids:
            held = self.held.get(mail_id)
            if held is None or self.owner is None or mail_id in self.arriving:  # it has settled, or is asked for again
                continue
            if not self.owner.cancel(mail_id):
                self.notes.add(Note("deny", mail_id, held, numbers=(int(1000 * monotonic()),)))

    def leases_ended(self, owners: Sequence[str]) -> None:
        """Take over the mails of replicas that have ended."""
        self._take_over.begin(owners)

    def compare_count(self, mails: int) -> None:
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

    def add_taken(self, name: str, mails: Sequence[Taken]) -> None:
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
            self.hold_opened(mail_id, self._held_by(name, score, entry))
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
        """Write every mail and claim of ours again where the server lacks it, and then what settled a moment ago."""
        opened = [mail_id for mail_id, held in self.held.items() if held.owner == name]
        claimed = [mail_id for mail_id, held in self.claims.items() if held.owner == name]
        settled = [note.mail_id for note in self.recent if note.held.owner == name]
        for mail_ids, rewritten in ((opened, self._as_open), (claimed, self._as_claimed), (settled, self._as_settled)):
            for start in range(0, len(mail_ids), _SLICE):
                for note in map(rewritten, mail_ids[start : start + _SLICE]):
                    if note is not None:
                        self.notes.add(note)
                await self.notes.wait_for_all()

    def _as_open(self, mail_id: str) -> Note | None:
        held = self.held.get(mail_id)
        if held is None:
            return None
        octets, head = partial(self._entry_octets, mail_id), partial(self._head_octets, mail_id)
        return Note("rewrite", mail_id, held, octets, (held.score,), more=head)

    def _as_claimed(self, mail_id: str) -> Note | None:
        held = self.claims.get(mail_id)
        if held is None:
            return None
        numbers = (1000 * CLAIM_SECONDS, int(held.is_taken_over))
        return Note("reclaim", mail_id, held, lambda: held.caller if mail_id in self.claims else None, numbers)

    def _as_settled(self, mail_id: str) -> Note | None:
        note = self.recent.get(mail_id)
        is_open = mail_id in self.held or mail_id in self.claims or mail_id in self.notes.pending
        return None if note is None or is_open else note._replace(kind="again")

    def _entry_octets(self, mail_id: str) -> bytes | None:
        """Return a mail's octets for a server that has lost them; None where it has settled meanwhile."""
        entry = self._entry(mail_id)
        return None if entry is None else self._records.seal_entry(entry)

    def _head_octets(self, mail_id: str) -> bytes:
        entry = self._entry(mail_id)
        return b"" if entry is None else self._records.seal_head(entry)

    def _entry(self, mail_id: str) -> Entry | None:
        held = self.held.get(mail_id)
        entry = self.arriving.get(mail_id) or (self.owner.entry(mail_id) if self.owner is not None else None)
        return None if held is None or entry is None else replace(entry, fingerprint=held.fingerprint)

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

        One that was taken back is taken back again, and one that settled gets its record again. Any other comes from a
        take-over whose answer was lost, and is taken up: a copy is better than a loss.
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
            if mail_id in self._doubtful:
                self.retract(mail_id, replace(self._doubtful[mail_id], owner=name))
            elif (note := self.recent.get(mail_id)) is not None:
                self.notes.add(note._replace(kind="again", held=replace(note.held, owner=name)))
            else:
                await self._take_up(name, mail_id)

    def _accepted(self, note: Note) -> None:
        """Take up a mail that was to be taken back."""
        self._trust(note.mail_id)
        self._begin(self._take_up(note.held.owner, note.mail_id))

    async def _take_up(self, name: str, mail_id: str) -> None:
        while True:
            try:
                kept = await self._reader.kept(mail_id)
                score = await self._client.command("ZSCORE", self._keys.own(name), mail_id)
                break
            except Unavailable as error:
                await asyncio.sleep(error.retry_after)
        is_known = mail_id in self.held or name != self._lease.name
        if kept is not None and score is not None and not is_known:
            self.add_taken(name, [(mail_id, int(float(score)), *kept)])
