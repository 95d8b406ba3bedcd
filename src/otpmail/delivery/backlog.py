"""The mails that wait in a store without their content in memory, until workers soon have use for them.

A relay that is down for hours leaves a mail for each call, and none of them is needed before the relay is back. So of
the mails beyond some thousands this process holds no more than their ids, terms and sources.
"""

import asyncio
import heapq
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from itertools import islice

from otpmail.counts import counted
from otpmail.delivery.closing import STOPPED, Closed
from otpmail.delivery.job import Job
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.delivery.queue import MailQueue
from otpmail.delivery.waiting import HELD_OCTETS, MOST_HELD, WAITING_OCTETS, HeldJobs, Lanes, Waiting
from otpmail.errors import Unavailable
from otpmail.events import MailAccepted, Observer
from otpmail.limits.memory import Memory
from otpmail.model import Priority
from otpmail.store.base import ContentStore, Entry
from otpmail.store.log_lines import log_unreadable
from otpmail.timers import CallLater, Timer

_log = logging.getLogger("otpmail")

_SLICE = 100  # mails that are read at a time: a few milliseconds
_LOADED_AT_ONCE = 300
NEAR = 500
"""Mails in a lane up to which all are in memory, since to read one again costs 50 us."""

_NEAR_OCTETS = 16 << 20
_HELD_PART = 8  # of the budget: what mails that only wait may take of it
_STALE = 1_000  # deadlines of mails that were taken up, beyond as many as wait
_EARLIER_PROCESS = ""  # whose mails those of an earlier process are, for the limits: no caller has this name


class Backlog:
    """Submits jobs that a durable store keeps: at once, or when their lane has drained to its low-water mark.

    Within a lane its sources take turns, and the mails of each go first in first out. A mail is taken up before its
    turn at its deadline, and when a call needs it (`recall`). Without `contents` all jobs are submitted at once. A lane
    has `near` jobs before others wait, more only where the queue's high-water mark is above that. Of those that wait
    `held` are in memory whole.

    Its whole state: `_mails` by id, `_held` with the jobs of some, and `_lanes` in which they wait for their turn.
    `deadlines` is a heap, and `_wanted` are those to be taken up next. A mail that was taken up stays in the last three
    until it is met there.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        queue: MailQueue,
        memory: Memory,
        observer: Observer,
        contents: ContentStore | None = None,
        *,
        now: Callable[[], float],
        call_later: CallLater | None = None,
        near: int = NEAR,
        held: int = MOST_HELD,
    ) -> None:
        self._lifecycle = lifecycle
        self._queue = queue
        self._memory = memory
        self._observer = observer
        self._contents = contents
        self._now = now
        self._near = near
        self._call_later = call_later or asyncio.get_running_loop().call_later
        self._mails: dict[str, Waiting] = {}
        self._held = HeldJobs(held, min(HELD_OCTETS, memory.for_mails // _HELD_PART))
        self._lanes = Lanes()
        self.deadlines: list[Waiting] = []
        self._wanted: dict[str, None] = {}
        self._recalls: dict[str, asyncio.Future[Unavailable | None]] = {}
        self._alarm: Timer | None = None
        self._changed = asyncio.Event()
        self._empty, self._loaded = asyncio.Event(), asyncio.Event()
        self._empty.set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Backlog {len(self._mails)} waiting, {len(self._wanted)} wanted, {self._queue!r}>"

    def __len__(self) -> int:
        """How many mails wait in the store."""
        return len(self._mails)

    def waiting(self) -> dict[str, int]:
        """Return how many mails wait for a worker, in the queue and in the store, by the name of their priority."""
        queued = self._queue.waiting()
        return {
            priority.name.lower(): queued[priority.name.lower()] + self._lanes.lengths[priority]
            for priority in Priority
        }

    def submit(self, job: Job) -> None:
        """Accept a job that the store keeps. Raises Unavailable after `close`."""
        is_next = not self._lanes.lengths[job.priority] and self._is_near(job.priority)
        if self._contents is None or is_next or not job.pending:
            self._lifecycle.submit(job)
            return
        if self._closed:
            raise Unavailable(STOPPED)
        self._add(Waiting(job.id, job.priority, job.deadline, job.source))
        self._memory.unsettled += self._held.add(job)
        if MailAccepted in self._observer.event_types:
            self._observer.notify(MailAccepted(job.mail, job.trace))

    async def recall(self, mail_id: str) -> None:
        """Take up a mail before its turn; at once, where it does not wait here. Raises Unavailable."""
        if self._contents is None:
            return
        await self._loaded.wait()
        if mail_id not in self._mails or self._closed:
            return
        recalled = self._recalls.get(mail_id)
        if recalled is None:
            recalled = self._recalls[mail_id] = asyncio.get_running_loop().create_future()
            self._want(mail_id)
        if (error := await asyncio.shield(recalled)) is not None:
            raise error

    async def jobs(self) -> AsyncIterator[Sequence[Job]]:
        """Yield the mails that wait in the store, in slices, as jobs without content; those that wait now."""
        if self._contents is None:
            return
        ids = iter(list(self._mails))
        while some := list(islice(ids, _SLICE)):
            entries, _ = await self._contents.read(some)
            yield [Job.from_entry(replace(entry, envelope=entry.envelope.without_content())) for entry in entries]

    async def run(self, take_up: Callable[[Entry, str], None], resume: Callable[[Job], None]) -> None:
        """Take up mails until the service stops, or it is cancelled.

        `take_up` submits a mail with its source, which is empty for one that an earlier process has accepted. `resume`
        submits one that is in memory.
        """
        if self._contents is None:
            return
        await self._load(self._contents)
        unreadable = 0
        while not self._closed:
            ids = self._next_ids()
            if not ids:
                self._changed.clear()
                await self._changed.wait()
                continue
            try:
                entries, faults = await self._read(self._contents, ids)
            except Unavailable as error:  # until the store is back, or the service stops
                for mail_id in ids:
                    self._end_recall(mail_id, error)
                self._wanted = dict.fromkeys(ids) | self._wanted
                await asyncio.sleep(error.retry_after)
                continue
            self._take_up(ids, entries, take_up, resume)
            unreadable += len(faults)
            if faults and (unreadable == len(faults) or not self._mails):
                log_unreadable(unreadable, faults[0])

    async def _read(self, contents: ContentStore, ids: Sequence[str]) -> tuple[list[Entry], list[str]]:
        """Read those of the mails that are not in memory."""
        if missing := [mail_id for mail_id in ids if mail_id not in self._held]:
            return await contents.read(missing)
        await asyncio.sleep(0)
        return [], []

    async def drained(self) -> None:
        """Wait until every accepted mail has settled, those that wait in the store included."""
        await self._empty.wait()
        await self._lifecycle.drained()

    def close(self) -> Closed:
        """Accept no further job, and leave what waits to the store; then close the lifecycle."""
        self._closed = True
        self._changed.set()
        self._loaded.set()
        if self._alarm is not None:
            self._alarm.cancel()
        for mail_id in tuple(self._recalls):
            self._end_recall(mail_id, Unavailable(STOPPED))
        closed = self._lifecycle.close()
        return closed._replace(kept=closed.kept + len(self._mails))

    # In.

    async def _load(self, contents: ContentStore) -> None:
        """Take the mails of an earlier process into the backlog, a millisecond at a time."""
        for number, left in enumerate(contents.left(), 1):
            self._add(Waiting(left.mail_id, left.priority, left.deadline, _EARLIER_PROCESS))
            if number % _LOADED_AT_ONCE == 0:
                await asyncio.sleep(0)
        if self._mails:
            _log.info(
                "%s taken up from the store",
                counted(len(self._mails), "accepted mail"),
                extra={"event": "mails-taken-up", "fields": {"mails": len(self._mails)}},
            )
        self._loaded.set()

    def _add(self, mail: Waiting) -> None:
        self._mails[mail.id] = mail
        self._empty.clear()
        self._lanes.add(mail)
        self._lifecycle.places.take(mail.source, fresh=mail.priority is Priority.URGENT)
        self._memory.unsettled += WAITING_OCTETS
        heapq.heappush(self.deadlines, mail)
        if self.deadlines[0] is mail:
            self._set_alarm()
        if self._is_near(mail.priority):
            self._changed.set()
        else:
            self._queue.call_below_low_water(mail.priority, self._changed.set)

    def _is_near(self, priority: Priority) -> bool:
        """Whether workers need one more mail of this priority soon, or memory has plenty of room for it."""
        queue = self._queue
        if not queue.is_above_high_water(priority):
            return True
        octets = self._memory.unsettled - WAITING_OCTETS * len(self._mails) - self._held.octets
        return queue.length(priority) < self._near and octets < _NEAR_OCTETS

    def _want(self, mail_id: str) -> None:
        self._wanted[mail_id] = None
        self._changed.set()

    def _end_recall(self, mail_id: str, error: Unavailable | None = None) -> None:
        """End the wait of the calls that need a mail: it is taken up, or can't be now."""
        if (recalled := self._recalls.pop(mail_id, None)) is not None:
            recalled.set_result(error)

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._call_later(max(0.0, self.deadlines[0].deadline - self._now()), self._ring)

    def _ring(self) -> None:
        """Have the mails taken up whose deadline has passed: they expire then."""
        self._alarm = None
        now = self._now()
        while self.deadlines and (self.deadlines[0].deadline <= now or self.deadlines[0].id not in self._mails):
            mail = heapq.heappop(self.deadlines)
            if mail.id in self._mails:
                self._want(mail.id)
        if self.deadlines:
            self._set_alarm()

    # Out.

    def _next_ids(self) -> Sequence[str]:
        """Return the mails to take up next: those that are wanted, then the first lane that has room in the queue."""
        while self._wanted:
            ids = list(islice(self._wanted, _SLICE))
            for mail_id in ids:
                del self._wanted[mail_id]
            if waiting := [mail_id for mail_id in ids if mail_id in self._mails]:
                return waiting
        for priority in Priority:
            if not self._lanes.lengths[priority]:
                continue
            if self._is_near(priority):
                return self._lanes.next_of(priority, _SLICE, self._mails)
            self._queue.call_below_low_water(priority, self._changed.set)
        return ()

    def _take_up(
        self,
        ids: Sequence[str],
        entries: Sequence[Entry],
        take_up: Callable[[Entry, str], None],
        resume: Callable[[Job], None],
    ) -> None:
        by_id = {entry.mail.id: entry for entry in entries}
        for mail_id in ids:
            mail = self._mails.pop(mail_id, None)
            if mail is None:  # a mail may be wanted while it is being read
                continue
            self._lanes.leave(mail)
            self._lifecycle.places.free(mail.source, fresh=mail.priority is Priority.URGENT)
            self._memory.unsettled -= WAITING_OCTETS
            if (job := self._held.pop(mail_id)) is not None:
                self._memory.unsettled -= job.octets
            if job is not None and not self._closed:
                resume(job)
            elif (entry := by_id.get(mail_id)) is not None and not self._closed:
                take_up(entry, mail.source)
            self._end_recall(mail_id)
        if len(self.deadlines) > 2 * len(self._mails) + _STALE:
            self.deadlines = list(self._mails.values())
            heapq.heapify(self.deadlines)
        if not self._mails:
            self._empty.set()
