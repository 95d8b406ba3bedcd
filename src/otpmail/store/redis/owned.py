"""The mails that this replica owns: what it must tell the server about them, and what the server tells it."""

import asyncio
import logging
from collections.abc import Sequence
from time import monotonic

from otpmail.errors import StoreError, Unavailable
from otpmail.store.base import Entry
from otpmail.store.log_lines import log_unreadable, log_unwritten
from otpmail.store.redis.acceptance import Acceptance
from otpmail.store.redis.books import Books
from otpmail.store.redis.doubtful import Doubtful
from otpmail.store.redis.notes import Held, Note, Notes
from otpmail.store.redis.reconciliation import Reconciliation
from otpmail.store.redis.replica import Replica
from otpmail.store.redis.takeover import Taken, TakeOver
from otpmail.store.retention import Retention

_log = logging.getLogger("otpmail")

_SLICE = 500
_RECENT_OCTETS = 8 << 20  # of settlements that a server which lost its last changes gets again


class Owned:
    """Follows the lease (`lease.Follower`), and keeps the `books` on what is ours.

    `arrivals` has the mails of other replicas that this one has taken over. `retention` says how long the server keeps
    settled mails, and bounds the contents for retries there.
    """

    def __init__(self, replica: Replica, retention: Retention) -> None:
        self._keys, self._lease, self._records = replica.keys, replica.lease, replica.records
        self.books = Books(self._records, recent_octets=min(_RECENT_OCTETS, retention.octets // 8))
        self.notes = Notes(replica, retention)
        self.doubtful = Doubtful(self.notes)
        self._reconciliation = Reconciliation(
            replica, notes=self.notes, books=self.books, doubtful=self.doubtful, take=self.add_taken
        )
        self.notes.accepted = self._reconciliation.accepted
        self._take_over = TakeOver(replica, self.add_taken)
        self.arrivals: asyncio.Queue[list[Entry]] = asyncio.Queue()
        self._lease.follower = self

    def __repr__(self) -> str:
        return f"<Owned {self.books!r}>"

    # For the store.

    def begun(self, acceptance: Acceptance, owner: str) -> None:
        """Note a mail that the server is about to have."""
        self.books.held[acceptance.mail_id] = acceptance.held_by(owner)

    def doubt(self, acceptance: Acceptance, owner: str) -> None:
        """Take back a mail that the server may have, since its caller is refused."""
        self.doubtful.retract(acceptance.mail_id, acceptance.held_by(owner))

    def hold_claim(self, mail_id: str, held: Held) -> None:
        """Hold a request id for a mail."""
        self.doubtful.trust(mail_id)
        self.books.claims[mail_id] = held

    def hold_opened(self, mail_id: str, held: Held) -> None:
        """Hold a settled mail that is open again."""
        self.may_be_open(mail_id)
        self.books.held[mail_id] = held

    def may_be_open(self, mail_id: str) -> None:
        """Take up a settled mail if the server turns out to have it as ours: it may have been opened again."""
        self.doubtful.trust(mail_id)
        self.books.recent.discard(mail_id)

    async def is_accepted(self, mail_id: str) -> bool:
        """Whether a mail was accepted after all that was taken back, since its answer was lost."""
        await self.notes.wait_for(mail_id)
        return self.doubtful.get(mail_id) is None

    def settle(self, note: Note, octets: int) -> None:
        """Write a settlement, whose record has so many octets, and remember it for a while."""
        self.notes.add(note)
        self.books.recent.add(note, octets)

    async def close(self, seconds: float) -> None:
        """Write what was noted, hand over what is owned, and renew no more."""
        await self._take_over.stop()
        self._reconciliation.close()
        await self.notes.close(seconds)
        if self.notes.waiting:
            log_unwritten(len(self.notes.waiting))
        try:
            await self._lease.close()
        except (Unavailable, StoreError) as error:
            text = "the mails of this replica could not be handed over; others have them once its lease ends: %s"
            _log.warning(text, error, extra={"event": "lease-unreleased", "fields": {}})

    # For the lease.

    def emptied(self) -> None:
        """Write what is ours again."""
        self._reconciliation.begin()

    async def fenced(self, name: str) -> None:
        """Let go of the mails of a name that lost its lease; those in flight end here.

        Claims stay on the server. A repeated call takes them over, with the first Message-ID: the relay may have the
        mail of an attempt that was lost.
        """
        books = self.books
        self._reconciliation.unreadable.clear()
        lost = books.of(name)
        for start in range(0, len(lost), _SLICE):
            some = lost[start : start + _SLICE]
            dropped = books.owner.drop(some) if books.owner is not None else ()
            for mail_id in (*dropped, *[one for one in some if books.arriving.pop(one, None) is not None]):
                books.pop(mail_id)
            await asyncio.sleep(0)

    def cancel(self, mail_ids: Sequence[str]) -> None:
        """Cancel mails for other replicas, or say that they can't be cancelled."""
        books = self.books
        for mail_id in mail_ids:
            held = books.held.get(mail_id)
            if (
                held is None or books.owner is None or mail_id in books.arriving
            ):  # it has settled, or is asked for again
                continue
            if not books.owner.cancel(mail_id):
                self.notes.add(Note("deny", mail_id, held, numbers=(int(1000 * monotonic()),)))

    def leases_ended(self, owners: Sequence[str]) -> None:
        """Take over the mails of replicas that have ended."""
        self._take_over.begin(owners)

    def compare_count(self, mails: int) -> None:
        """Look for mails that only the server knows as ours, where it counts more than we have."""
        self._reconciliation.compare_count(mails)

    def resumed(self) -> None:
        """Go on with mails that were held up."""
        if self.books.owner is not None:
            self.books.owner.resume()

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
                self._reconciliation.unreadable.add(mail_id)
                continue
            self.hold_opened(mail_id, self._held_by(name, score, entry))
            self.books.arriving[mail_id] = entry
            entries.append(entry)
        if entries:
            self.arrivals.put_nowait(entries)
        if unreadable:
            log_unreadable(len(unreadable), unreadable[0])

    def _held_by(self, name: str, score: int, entry: Entry) -> Held:
        mail = entry.mail
        request = self._keys.request(mail.caller, mail.request_id) if mail.request_id else None
        return Held(name, score, request, entry.fingerprint, has_content=True)
