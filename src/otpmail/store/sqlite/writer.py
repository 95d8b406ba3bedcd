"""Hands changes from the loop to the thread that owns the file, many at a time, and brings back the answers."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TypeVar

from otpmail.errors import StoreEnded, Unavailable
from otpmail.store.base import StoreState
from otpmail.store.clock import StoreClock
from otpmail.store.log_lines import log_unwritten
from otpmail.store.sqlite.commits import RETRY_SECONDS, Bulk, Change, Committer, Outcome
from otpmail.store.sqlite.database import Database
from otpmail.store.sqlite.stall import STALL_SECONDS, StallWatch
from otpmail.threads import start_daemon

_log = logging.getLogger("otpmail")

NOTE_SECONDS = 0.01
"""How long a change that nobody waits for waits for others."""

_IDLE_SECONDS = 1.0
_CLOSE_SECONDS = 5.0
_MOST_OCTETS = 8 << 20  # in one commit, so that the log stays small
_MOST_CHANGES = 2_000

T = TypeVar("T")


class Writer:
    """The thread of a store's file. `ask` and `note` are called on the loop, everything else runs in the thread.

    Changes that are asked for in one turn of the loop are handed over as one batch. The thread commits all batches that
    are there at once. While it is stuck in one step for `stall_seconds`, nothing more is asked of it. `changed` is
    called on the loop where the store takes no changes, and where it does again.
    """

    def __init__(
        self, database: Database, clock: StoreClock, bulk: Bulk, *, stall_seconds: float = STALL_SECONDS
    ) -> None:
        self._database = database
        self._batches: SimpleQueue[list[Change] | None] = SimpleQueue()
        self._batch: list[Change] = []
        self._is_handing_over = False
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop
        self._ended: asyncio.Future[int] | None = None
        self._is_open = self._closed = False
        self._taken: list[Change] = []  # by the thread, which has not answered them yet
        self._fault: BaseException | None = None  # that has ended the thread
        self._retry_at = 0.0
        self._stall = StallWatch(lambda: not self._batches.empty(), self._announce, seconds=stall_seconds)
        self._state, self._has_problem = StoreState(), False  # of the committer; what `changed` was told last
        self.committer = Committer(database, bulk, clock, self._report)
        self.changed: Callable[[StoreState], None] = lambda _: None

    def __repr__(self) -> str:
        return f"<Writer {len(self._batch)} to hand over, {self.committer!r}>"

    async def open(self, prepare: Callable[[sqlite3.Connection], T]) -> T:
        """Start the thread, open the file, and return what `prepare` makes of it. Raises StoreError."""
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[T] = self._loop.create_future()
        self._ended = self._loop.create_future()
        start_daemon(partial(self._run, opened, prepare), "store")
        prepared = await opened
        self._is_open = True
        return prepared

    def ask(
        self, work: Callable[[sqlite3.Connection], T], octets: int | None = None, keys: Sequence[int] = ()
    ) -> "asyncio.Future[T]":
        """Do the work with the next commit; what is returned has its result once that is durable.

        It raises what the work raises, and Unavailable while the store takes no changes. `octets` and `keys` are those
        of its `Change`.
        """
        answer: asyncio.Future[T] = self._loop.create_future()
        if self._closed or self._fault is not None:
            stopping = Unavailable("the service is stopping")
            answer.set_exception(stopping if self._fault is None else StoreEnded())
            return answer
        if self._stall.is_stuck:
            answer.set_exception(self.committer.unavailable())
            return answer
        self._batch.append(Change(work, answer, octets, keys))
        if not self._is_handing_over:
            self._is_handing_over = True
            self._loop.call_soon(self._hand_over)
        return answer

    def note(self, work: Callable[[sqlite3.Connection], object], seq: int | None = None) -> None:
        """Do the work in its order with the next commit, in a hundredth of a second or so. Nobody waits for it.

        `seq` is that of the one mail which it is about (see `Change`).
        """
        if self._fault is not None:
            return
        self._batch.append(Change(work, seq=seq))
        if self._timer is None and not self._is_handing_over:
            self._timer = self._loop.call_later(NOTE_SECONDS, self._hand_over)

    async def fail_with_thread(self) -> None:
        """Wait until the store closes. Raises StoreEnded when its thread has ended by a mistake of ours."""
        assert self._ended is not None
        await asyncio.shield(self._ended)
        if self._fault is not None:
            raise StoreEnded from self._fault

    async def close(self, *, seconds: float = _CLOSE_SECONDS) -> None:
        """Write what was noted, and close the file; after `seconds` the thread is left behind, and the log says so."""
        if self._ended is None or self._closed:
            return
        self._closed = True
        self._hand_over()
        self._batches.put(None)
        try:
            unwritten = await asyncio.wait_for(asyncio.shield(self._ended), seconds)
        except TimeoutError:
            unwritten = len(self.committer.unwritten) or (-1 if self._is_open else 0)
        if unwritten:
            log_unwritten(max(0, unwritten))

    def _hand_over(self) -> None:
        self._is_handing_over = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._batch:
            # The list changes its owner whole: nothing is appended to it any more.
            self._batches.put(self._batch)
            self._batch = []
            self._stall.follow()

    def _report(self, state: StoreState) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._note_state, state)

    def _note_state(self, state: StoreState) -> None:
        self._state = state
        self._announce()

    def _announce(self) -> None:
        """Report whether the store takes changes, where that is new."""
        state = self._state
        if self._stall.is_stuck and not state.problem:
            words = "takes no change: its disk has not answered for some seconds"
            state = StoreState(f"STORE_URL: {self._database.path} {words}", RETRY_SECONDS)
        if bool(state.problem) is not self._has_problem:
            self._has_problem = bool(state.problem)
            self.changed(state)

    def _end(self, fault: BaseException | None) -> None:
        """Note on the loop that the thread has ended, and refuse what it has not answered."""
        assert self._ended is not None
        unwritten = len(self.committer.unwritten)
        if fault is not None:
            self._fault = fault
            _log.error("the thread of the store has ended: %r", fault, exc_info=fault, extra=_ENDED)
            self._hand_over()
            left = self._taken
            while not self._batches.empty():
                left += self._batches.get_nowait() or []
            futures = [change.future for change in left]
            unwritten += futures.count(None)
            _settle([Outcome(future, None, StoreEnded()) for future in futures if future is not None])
        self._stall.close()
        self._ended.set_result(unwritten)

    # In the thread.

    def _run(self, opened: "asyncio.Future[T]", prepare: Callable[[sqlite3.Connection], T]) -> None:
        try:
            self._database.open()
            try:
                prepared = self._database.read(prepare)
            except BaseException:
                self._database.close()
                raise
        except BaseException as error:  # noqa: BLE001  the caller's to handle
            self._call(_settle, [Outcome(opened, None, _as_exception(error))])
            assert self._ended is not None
            self._call(_settle, [Outcome(self._ended, 0)])
            return
        self._call(_settle, [Outcome(opened, prepared)])
        fault: BaseException | None = None
        try:
            while self._step():
                pass
            if self.committer.unwritten:
                self.committer.retry()
        except BaseException as error:  # noqa: BLE001  those who wait for the thread must know
            fault = error
        with suppress(Exception):
            self._database.close()
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._end, fault)

    def _step(self) -> bool:
        """Commit what is there, and wait for it if nothing is; returns False once the store closes."""
        committer = self.committer
        self._taken = []
        goes_on = self._next(RETRY_SECONDS if committer.state.problem else _IDLE_SECONDS)
        changes = self._taken
        self._stall.begin_step()
        try:
            if committer.state.problem and monotonic() >= self._retry_at:
                self._retry_at = monotonic() + RETRY_SECONDS
                committer.retry()
            outcomes = committer.commit(changes) if changes else []
        except Exception as error:  # noqa: BLE001  without this thread all calls would wait for ever
            outcomes = committer.refuse(changes, error)
        self._call(_settle, outcomes)
        if goes_on and not changes and not committer.state.problem:
            self._tidy()
        self._stall.end_step()
        return goes_on

    def _next(self, seconds: float) -> bool:
        """Wait for a batch, and take it with those behind it, as many as one commit takes; False with the last."""
        changes, octets = self._taken, 0
        try:
            batch = self._batches.get(timeout=seconds)
            while batch is not None:
                changes += batch
                octets += sum([change.octets or 0 for change in batch])
                if octets >= _MOST_OCTETS or len(changes) >= _MOST_CHANGES:
                    return True
                batch = self._batches.get_nowait()
        except Empty:
            return True
        return False

    def _tidy(self) -> None:
        """Give free pages back to the file system, slice by slice, while nothing else is to do."""
        with suppress(sqlite3.Error):  # the next commit meets it too
            shrinks = False
            while self._batches.empty() and self._database.vacuum_slice():
                shrinks = True
                self._stall.begin_step()  # the next slice, or the checkpoint
            if shrinks:
                self._database.checkpoint()

    def _call(self, function: Callable[[Sequence[Outcome]], None], outcomes: Sequence[Outcome]) -> None:
        if outcomes:
            with suppress(RuntimeError):  # the loop has ended, and those who wait with it
                self._loop.call_soon_threadsafe(function, outcomes)


def _settle(outcomes: Sequence[Outcome]) -> None:
    for answer, result, error in outcomes:
        if answer.done():  # cancelled
            continue
        if error is None:
            answer.set_result(result)
        else:
            answer.set_exception(error)


_ENDED = {"event": "store-ended", "fields": {}}


def _as_exception(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError(repr(error))
