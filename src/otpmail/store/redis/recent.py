"""Settlements of a moment ago, which a server that was emptied or set back gets again."""

from collections.abc import Iterator
from itertools import chain

from otpmail.store.redis.notes import Note

_OCTETS = 500  # of a note beside its record


class RecentSettlements:
    """Notes of settled mails by mail id, without contents for retries: the latest, of `most_octets` at most.

    A repeated request id is answered from the record of its mail. So after a failover that lost a settlement the server
    needs all of it again, not only the fact that the mail has settled.

    Its whole state are two halves: the older one goes when the newer one is full.
    """

    def __init__(self, most_octets: int) -> None:
        self._most = most_octets // 2
        self._newer: dict[str, Note] = {}
        self._older: dict[str, Note] = {}
        self._newer_octets = self._older_octets = 0

    def __repr__(self) -> str:
        return f"<RecentSettlements {len(self._newer) + len(self._older)} in {self.octets} octets>"

    @property
    def octets(self) -> int:
        """The memory that they take."""
        return self._newer_octets + self._older_octets

    def add(self, note: Note, octets: int) -> None:
        """Remember a settlement, whose record has so many octets."""
        self._newer[note.mail_id] = note if note.more is bytes else note._replace(more=bytes)
        self._newer_octets += octets + _OCTETS
        if self._newer_octets > self._most:
            self._older, self._older_octets = self._newer, self._newer_octets
            self._newer, self._newer_octets = {}, 0

    def get(self, mail_id: str) -> Note | None:
        """Return the settlement of a mail."""
        return self._newer.get(mail_id) or self._older.get(mail_id)

    def discard(self, mail_id: str) -> None:
        """Forget the settlement of a mail that is open again."""
        self._newer.pop(mail_id, None)
        self._older.pop(mail_id, None)

    def __iter__(self) -> Iterator[Note]:
        """Yield them, the oldest first."""
        return chain(self._older.values(), self._newer.values())
