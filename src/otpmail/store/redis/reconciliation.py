"""Compares the mails that the server has as ours with our books, and corrects either."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any

from otpmail.errors import Unavailable
from otpmail.store.redis.books import Books
from otpmail.store.redis.doubtful import Doubtful
from otpmail.store.redis.notes import Note, Notes
from otpmail.store.redis.replica import Replica
from otpmail.store.redis.takeover import Take

_PATIENCE = 5  # renewals in a row after which the server knows more mails of ours than we do
_SLICE = 500


class Reconciliation:
    """Writes again what the server has lost, and finds mails that only the server knows as ours: `take` gets them.

    `unreadable` are mails of ours that can't be read, and stay as they are.
    """

    def __init__(self, replica: Replica, *, notes: Notes, books: Books, doubtful: Doubtful, take: Take) -> None:
        self._client, self._keys, self._lease = replica.client, replica.keys, replica.lease
        self._notes = notes
        self._books = books
        self._doubtful = doubtful
        self._take = take
        self._reader = replica.reader
        self._surplus = 0  # renewals in a row that counted mails which we do not know
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_auditing = False
        self.unreadable: set[str] = set()

    def __repr__(self) -> str:
        return f"<Reconciliation {len(self._tasks)} under way>"

    def close(self) -> None:
        """End what is under way."""
        for task in self._tasks:
            task.cancel()

    def begin(self) -> None:
        """Write to a server that has lost changes what is ours, and settlements of mails that it does not know."""
        self._notes.repeat_settled()
        self._begin(self._rewrite(self._lease.name))
        self._begin_audit()

    def compare_count(self, mails: int) -> None:
        """Look for mails that only the server knows as ours, where it counts more than we have."""
        known = len(self._books.held) + len(self.unreadable) + len(self._notes.waiting)
        self._surplus = self._surplus + 1 if mails > known else 0
        if self._surplus >= _PATIENCE:
            self._begin_audit()

    def accepted(self, note: Note) -> None:
        """Take up a mail that was to be taken back, of which another call knows."""
        self._doubtful.trust(note.mail_id)
        self._begin(self._take_up(note.held.owner, note.mail_id))

    async def _rewrite(self, name: str) -> None:
        """Write every mail and claim of ours again where the server lacks it, and then what settled a moment ago."""
        opened = self._books.of(name)
        settled = [note.mail_id for note in self._books.recent if note.held.owner == name]
        for mail_ids, rewritten in ((opened, self._books.rewritten), (settled, self._as_settled)):
            for start in range(0, len(mail_ids), _SLICE):
                for note in map(rewritten, mail_ids[start : start + _SLICE]):
                    if note is not None:
                        self._notes.add(note)
                await self._notes.wait_for_all()

    def _as_settled(self, mail_id: str) -> Note | None:
        note = self._books.recent.get(mail_id)
        is_open = self._books.is_open(mail_id) or mail_id in self._notes.pending
        return None if note is None or is_open else note._replace(kind="again")

    def _begin_audit(self) -> None:
        if not self._is_auditing:
            self._surplus, self._is_auditing = 0, True
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
            if mail_id in self._books.held or mail_id in self.unreadable or mail_id in self._notes.pending:
                continue
            if (held := self._doubtful.get(mail_id)) is not None:
                self._doubtful.retract(mail_id, replace(held, owner=name))
            elif (note := self._books.recent.get(mail_id)) is not None:
                self._notes.add(note._replace(kind="again", held=replace(note.held, owner=name)))
            else:
                await self._take_up(name, mail_id)

    async def _take_up(self, name: str, mail_id: str) -> None:
        while True:
            try:
                kept = await self._reader.kept(mail_id)
                score = await self._client.command("ZSCORE", self._keys.own(name), mail_id)
                break
            except Unavailable as error:
                await asyncio.sleep(error.retry_after)
        is_known = mail_id in self._books.held or name != self._lease.name
        if kept is not None and score is not None and not is_known:
            self._take(name, [(mail_id, int(float(score)), *kept)])
