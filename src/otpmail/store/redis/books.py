"""The mails that this replica owns, as far as this process knows, and how a server that lost them gets them again."""

from dataclasses import replace
from functools import partial

from otpmail.store.base import Entry, Owner
from otpmail.store.redis.notes import Held, Note
from otpmail.store.redis.recent import RecentSettlements
from otpmail.store.redis.records import Records

CLAIM_SECONDS = 7 * 24 * 3600
"""How long the server keeps a claim whose process has ended."""


class Books:
    """The mails and request ids of this replica.

    Its whole state: `held` are the open mails that the server has as ours, `claims` the request ids alone. `arriving`
    were taken over, and have no job yet; `owner` has the jobs. `recent` are settlements of a moment ago, which take
    `recent_octets` at most.
    """

    def __init__(self, records: Records, *, recent_octets: int) -> None:
        self._records = records
        self.held: dict[str, Held] = {}
        self.claims: dict[str, Held] = {}
        self.arriving: dict[str, Entry] = {}
        self.recent = RecentSettlements(recent_octets)
        self.owner: Owner | None = None

    def __repr__(self) -> str:
        return f"<Books {len(self.held)} mails, {len(self.claims)} claims, {len(self.arriving)} arriving>"

    def pop(self, mail_id: str) -> Held | None:
        """Return what is held of a mail that settles now, and hold it no more; None where the server has nothing."""
        return self.held.pop(mail_id, None) or self.claims.pop(mail_id, None)

    def is_open(self, mail_id: str) -> bool:
        """Whether a mail or its request id is ours, and has not settled."""
        return mail_id in self.held or mail_id in self.claims

    def of(self, name: str) -> list[str]:
        """Return the mails and claims that are ours under that name."""
        return [mail_id for some in (self.held, self.claims) for mail_id, held in some.items() if held.owner == name]

    def rewritten(self, mail_id: str) -> Note | None:
        """Return the note that writes an open mail, or a claim, to a server that has lost it; None for another."""
        if (held := self.held.get(mail_id)) is not None:
            octets, head = partial(self._octets, mail_id), partial(self._head, mail_id)
            return Note("rewrite", mail_id, held, octets, (held.score,), more=head)
        if (held := self.claims.get(mail_id)) is not None:
            caller, numbers = held.caller, (1000 * CLAIM_SECONDS, int(held.is_taken_over))
            return Note("reclaim", mail_id, held, lambda: caller if mail_id in self.claims else None, numbers)
        return None

    def _octets(self, mail_id: str) -> bytes | None:
        """Return a mail's octets for a server that has lost them; None where it has settled meanwhile."""
        entry = self._entry(mail_id)
        return None if entry is None else self._records.seal_entry(entry)

    def _head(self, mail_id: str) -> bytes:
        entry = self._entry(mail_id)
        return b"" if entry is None else self._records.seal_head(entry)

    def _entry(self, mail_id: str) -> Entry | None:
        held = self.held.get(mail_id)
        entry = self.arriving.get(mail_id) or (self.owner.entry(mail_id) if self.owner is not None else None)
        return None if held is None or entry is None else replace(entry, fingerprint=held.fingerprint)
