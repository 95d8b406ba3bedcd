"""Writes batches of changes, a commit for each batch, and survives what the disk does. Runs in the writer thread."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from otpmail.errors import CallerError, StoreError, Unavailable
from otpmail.store.base import StoreState
from otpmail.store.clock import StoreClock
from otpmail.store.sqlite.database import Database, is_environmental, is_full

_log = logging.getLogger("otpmail")

RETRY_SECONDS = 0.5
"""How often a store that can't be written is tried again."""

Work = Callable[[sqlite3.Connection], Any]
"""A change of one mail or record, or a look at it. It raises CallerError and StoreError only before it writes."""


class Change(NamedTuple):
    """A change to write. Without a `future` nobody waits for it, and it is repeated until it is written.

    `octets` are what it adds to the file; None for one that adds none, which goes on while the disk is full. `keys` are
    those of the request ids that it asks for. A later change with the same `seq` replaces an earlier one that could not
    be written, so a mail has one at most.
    """

    work: Work
    future: "asyncio.Future[Any] | None" = None
    octets: int | None = None
    keys: Sequence[int] = ()
    seq: int | None = None


class Outcome(NamedTuple):
    """The end of a change that somebody waits for."""

    future: "asyncio.Future[Any]"
    result: object
    error: Exception | None = None


class Bulk(Protocol):
    """Reads and writes rows within a transaction, those of many changes by one statement."""

    def read_ahead(self, connection: sqlite3.Connection, keys: Iterable[int]) -> None:
        """Read what the changes of the transaction ask for."""

    def write_out(self, connection: sqlite3.Connection) -> None:
        """Write the rows that were collected."""

    def end(self, *, committed: bool) -> None:
        """Forget them, since the transaction has ended."""


class Committer:
    """Commits changes to `database`, and keeps those that nobody waits for while it can't be written.

    `report` is called with each change of the state. The time of the `clock` is written once in a while.
    """

    def __init__(self, database: Database, bulk: Bulk, clock: StoreClock, report: Callable[[StoreState], None]) -> None:
        self._database = database
        self._bulk = bulk
        self._clock = clock
        self._report = report
        self._looked = 0.0
        self.state = StoreState()
        self._takes_no_change = False
        self.unwritten: dict[object, Change] = {}
        """Changes in their order, by the `seq` of their mail or by a key of their own."""

    def __repr__(self) -> str:
        return f"<Committer {self.state!r}, {len(self.unwritten)} unwritten>"

    @property
    def is_full(self) -> bool:
        """Whether nothing may be added."""
        return bool(self.state.problem)

    def commit(self, changes: Sequence[Change]) -> list[Outcome]:
        """Write the changes, and return the outcomes of those that somebody waits for, once they are durable."""
        if added := sum([change.octets or 0 for change in changes]):
            self._look_for_room(added)
        if self.state.problem:
            changes, refused = self._admit(changes)
        else:
            refused = []
        if self._takes_no_change:
            self._put_by(changes)
            return refused
        try:
            return [*refused, *self._transact(changes)]
        except Exception as error:  # noqa: BLE001  a fault over one change must not stop the others
            return [*refused, *self._commit_in_parts(changes, error)]

    def retry(self) -> None:
        """Look whether a store that had a problem takes changes again, and write what nobody waits for."""
        if not self._database.is_there():
            self._lose()
            return
        notes = list(self.unwritten.values())
        self.unwritten = {}
        self._takes_no_change = False
        try:
            self._transact(notes)
        except Exception as error:  # noqa: BLE001  as in `commit`
            self._commit_in_parts(notes, error)
        if self._takes_no_change:
            return
        try:
            self._database.probe()
        except sqlite3.Error as error:
            self._fail(error, takes_no_change=not is_full(error))
            return
        self._set(StoreState() if self._database.has_room() else StoreState(self._no_room(), RETRY_SECONDS))

    def refuse(self, changes: Sequence[Change], error: Exception) -> list[Outcome]:
        """Put changes by over a mistake of ours, and take no others until `retry` has looked."""
        if not self.state.problem:
            _log.error("the store's changes could not be written: %r", error, exc_info=error, extra=_FAULT)
        self._takes_no_change = True
        self._set(StoreState(f"STORE_URL: {self._database.path} can't be written: {error!r}", RETRY_SECONDS))
        return self._put_by(changes)

    def _look_for_room(self, added: int) -> None:
        if not self.state.problem and not self._database.has_room(added):
            self._set(StoreState(self._no_room(), RETRY_SECONDS))

    def _no_room(self) -> str:
        return f"STORE_URL: the disk of {self._database.path} is nearly full; no mail is accepted until it has room"

    def _admit(self, changes: Sequence[Change]) -> tuple[list[Change], list[Outcome]]:
        """Part the changes that may be tried while there is a problem from those that may not."""
        tried, refused = [], []
        for change in changes:
            if change.future is not None and (self._takes_no_change or change.octets is not None):
                refused.append(Outcome(change.future, None, self.unavailable()))
            else:
                tried.append(change)
        return tried, refused

    def unavailable(self) -> Unavailable:
        """Return the error for a caller while the store takes nothing new. It does not name the file."""
        words = "the service's store takes no changes now; its log says why"
        return Unavailable(words, retry_after=max(1.0, self.state.retry_after))

    def _transact(self, changes: Sequence[Change]) -> list[Outcome]:
        """Write all in one commit, or nothing."""
        outcomes, committed = [], False
        connection = self._database.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            if keys := [key for change in changes for key in change.keys]:
                self._bulk.read_ahead(connection, keys)
            for work, future, *_ in changes:
                if future is not None and future.cancelled():  # its call has gone, so nothing of it need be kept
                    continue
                try:
                    result, error = work(connection), None
                except (CallerError, StoreError) as refusal:
                    if future is None and isinstance(refusal, StoreError):
                        raise  # it is dropped, and the log says so
                    result, error = None, refusal
                if future is not None:
                    outcomes.append(Outcome(future, result, error))
            self._bulk.write_out(connection)
            self._keep_time(connection)
            connection.execute("COMMIT")
            committed = True
        finally:
            self._bulk.end(committed=committed)
            self._database.roll_back()
        return outcomes

    def _keep_time(self, connection: sqlite3.Connection) -> None:
        """Write the time, twice a second at most: a clock that is set back meanwhile keeps no code alive."""
        now = self._clock()
        if now - self._looked >= RETRY_SECONDS:
            if not self._database.is_there():
                raise FileNotFoundError(self._database.path)
            mark = self._clock.mark()
            connection.execute("UPDATE clock SET time = ?, boot = ?, boot_seconds = ?", (mark.time, *mark.boot))
            self._looked = now

    def _commit_in_parts(self, changes: Sequence[Change], error: Exception) -> list[Outcome]:
        """Go on after a commit that failed, and was taken back whole."""
        if isinstance(error, sqlite3.Error) and is_full(error):  # deletes may go on
            try:
                self._transact([change for change in changes if change.future is None])
            except Exception as again:  # noqa: BLE001  as in `commit`
                error = again
            else:
                self._fail(error, takes_no_change=False)
                return self._put_by([change for change in changes if change.future is not None])
        if isinstance(error, FileNotFoundError):
            self._lose()
            return self._put_by(changes)
        if isinstance(error, sqlite3.Error) and is_environmental(error):
            self._fail(error, takes_no_change=True)
            return self._put_by(changes)
        if len(changes) > 1:
            return [outcome for change in changes for outcome in self.commit([change])]
        return self._drop(changes[0], error) if changes else []

    def _put_by(self, changes: Sequence[Change]) -> list[Outcome]:
        """Keep the changes that nobody waits for, and refuse the others."""
        for change in changes:
            if change.future is None:
                key = object() if change.seq is None else change.seq
                self.unwritten.pop(key, None)
                self.unwritten[key] = change
        refusal = self.unavailable()
        return [Outcome(change.future, None, refusal) for change in changes if change.future is not None]

    def _drop(self, change: Change, error: Exception) -> list[Outcome]:
        """Give up one change that can't be written whatever the disk does."""
        if change.future is not None:
            return [Outcome(change.future, None, error)]
        fields = {"event": "store-change-dropped", "fields": {}}
        _log.error("a change of the store could not be written, and was dropped", exc_info=error, extra=fields)
        return []

    def _fail(self, error: sqlite3.Error, *, takes_no_change: bool) -> None:
        self._takes_no_change = takes_no_change
        self._set(StoreState(self._database.describe(error), RETRY_SECONDS))

    def _lose(self) -> None:
        self._takes_no_change = True
        problem = f"STORE_URL: {self._database.path} was moved or removed while the service runs"
        self._set(StoreState(problem, RETRY_SECONDS))

    def _set(self, state: StoreState) -> None:
        if not state.problem:
            self._takes_no_change = False
        is_change = bool(state.problem) is not bool(self.state.problem)
        self.state = state
        if is_change:
            self._report(state)


_FAULT = {"event": "store-fault", "fields": {}}
