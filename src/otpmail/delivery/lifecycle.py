"""The state machine of an accepted mail: every step from the queue to its final state, and when it is retried.

The workers report here (`handler.DeliveryHandler`). Nothing here waits, so a step is taken whole or not at all.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Literal

from otpmail.delivery import retry
from otpmail.delivery.attempts import Attempts
from otpmail.delivery.closing import STOPPED, TAKEN_OVER, Closed, Promises
from otpmail.delivery.deadlines import Deadlines
from otpmail.delivery.dispatch import Dispatcher
from otpmail.delivery.faults import Faults
from otpmail.delivery.fence import Fence
from otpmail.delivery.job import Job
from otpmail.delivery.suppressions import Suppressions
from otpmail.delivery.verdict import final_state, may_copy, may_retry
from otpmail.delivery.waiters import Waiters
from otpmail.errors import ConnectionLost, FailedPrecondition, Unavailable
from otpmail.events import MailAccepted, MailDeferred, MailSettled, Observer
from otpmail.limits.memory import Memory
from otpmail.limits.places import Places
from otpmail.model import MailState
from otpmail.smtp.transaction import Results
from otpmail.store.base import MailStore
from otpmail.timers import CallLater

_QUEUED, _SENDING, _RELAYED = MailState.QUEUED, MailState.SENDING, MailState.RELAYED  # naming them takes its time


class Lifecycle:
    """The mails that have not settled, by id, and the rules for how they settle.

    It counts each mail's place and octets from `submit` until the mail settles. `outage` returns why no relay is up,
    empty while one is. Each of so many `relays` is tried at once after a lost connection. `call_later` sets the timers
    of retries and deadlines, by default the running loop's.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        store: MailStore,
        waiters: Waiters,
        observer: Observer,
        *,
        random: Callable[[], float],
        places: Places,
        memory: Memory,
        suppressions: Suppressions,
        on_uncertain: Literal["retry", "fail"] = "retry",
        outage: Callable[[], str] = str,
        relays: int = 1,
        call_later: CallLater | None = None,
    ) -> None:
        self._dispatcher, self._store, self._waiters, self._observer = dispatcher, store, waiters, observer
        self.promises = Promises(store, waiters, on_uncertain=on_uncertain)
        self._faults, self.suppressions = Faults(observer, store.now), suppressions
        self.places, self._memory, self._random = places, memory, random
        self._on_uncertain, self._outage = on_uncertain, outage
        self._at_once, self._now, self._closed = 2 * relays - 1, store.now, False
        self.jobs: dict[str, Job] = {}
        self.find = self.jobs.get  # the job of a mail that has not settled, None for another id
        back, may = dispatcher.put_back, self.may_send
        self.fence = Fence(store, back)
        call_later = call_later or asyncio.get_running_loop().call_later
        self._retries = retry.Retries(dispatcher.put, call_later=call_later)
        self.attempts = Attempts(store, self.jobs, self._wait, back, may, on_uncertain=on_uncertain)
        self.begin = self.attempts.begin
        self._deadlines = Deadlines(self.expire, now=store.now, call_later=call_later)
        self._empty = asyncio.Event()
        self._empty.set()

    def __repr__(self) -> str:
        return f"<Lifecycle {len(self.jobs)} open, {len(self._retries.timers)} deferred, {self._dispatcher!r}>"

    def __len__(self) -> int:
        """How many accepted mails have not settled."""
        return len(self.jobs)

    def submit(self, job: Job) -> None:
        """Accept a job: from now on it settles in any case. Raises Unavailable after `close`."""
        if self._closed:  # a large mail may still have been composed
            raise Unavailable(STOPPED)
        if not self.jobs:
            self._empty.clear()
        self.jobs[job.id] = job
        job.is_noted_first |= self.attempts.notes_all and job.guaranteed
        self.places.take(job.source, fresh=job.is_fresh, octets=job.octets)
        self._memory.unsettled += job.octets
        self._deadlines.add(job)
        self._dispatcher.put(job)
        if MailAccepted in self._observer.event_types and not job.is_announced:
            self._observer.notify(MailAccepted(job.mail, job.trace))
        if job.is_known:
            self.suppressions.tell(job)
        if not job.pending:  # all of its recipients are suppressed
            self._settle(job, MailState.FAILED, keep_request=True)

    def start(self, job: Job) -> bool:
        """Mark a job that a worker has taken as being sent. False when it must not be sent any more."""
        if job.state is not _QUEUED:
            return False
        if job.deadline <= self._now():
            self._settle(job, MailState.EXPIRED)
            return False
        is_held = self.fence.is_durable and (job.guaranteed or job.request_id) and self.fence.holds(job)
        if is_held or (job.is_noted_first and self.attempts.holds(job)):
            return False
        job.state = _SENDING
        if self._waiters.watchers:
            self._waiters.show(job)
        return True

    def may_send(self, job: Job) -> bool:
        """Whether a started job that has waited since may be sent now; if not, `start` decides again, or it is gone."""
        is_open = job.id in self.jobs
        if is_open and (self.fence.has_lost(job) or job.deadline <= self._now()):
            self.put_back(job)
            return False
        return is_open

    def replied(self, job: Job, results: Results) -> None:
        """Take the relay's reply about each recipient that it was offered. Only those it deferred are retried."""
        if job.id not in self.jobs:  # a stop has let go of it, and its caller knows
            return
        # fast path: nearly every mail ends so, 3 us; held to the full path by tests/delivery/test_lifecycle.py
        usual = not (job.results or job.is_known or self.suppressions.store.latest >= job.create_time)
        usual = usual and len(results) == len(job.envelope.recipients)
        for result in results:
            usual = usual and 200 <= result.code < 300
        if usual:
            job.attempts += 1
            self._end(job, _RELAYED, results)
        else:
            self._note(job, results)

    def _note(self, job: Job, results: Results) -> None:
        """Keep the replies, and decide what is next: a further group of recipients, a further attempt, or the end."""
        job.note(results)
        self._faults.note(results)
        self.suppressions.note(job, results)
        if job.pending and not self._is_over(job):  # the next group of a mail for many
            self.put_back(job)
            return
        job.end_attempt()
        if not job.pending or self._is_over(job):
            self._settle(job, MailState.FAILED)
            return
        self._retry_later(job, job.results[job.pending[0]].said)

    def connection_lost(self, job: Job, error: ConnectionLost) -> None:
        """Go on with a job whose connection ended. The relay may have accepted it only if the error is `uncertain`."""
        if job.id not in self.jobs:  # as above
            return
        job.lose(error)
        if error.uncertain and not may_copy(job, self._on_uncertain):
            self._settle(job, MailState.UNCERTAIN)
        elif self._is_over(job):
            self._settle(job, MailState.FAILED)
        elif error.not_started or job.losses <= self._at_once:  # each relay may end one over what was before
            self.put_back(job)
        else:  # the relay may end connections over this very mail: let others go first
            self._retry_later(job, str(error))

    def requeue(self, job: Job, results: Results) -> None:
        """Put a job back that was refused because too much came at once: the second time behind those of others."""
        if job.id not in self.jobs or self._is_over(job):
            self.replied(job, results)
            return
        put = self._dispatcher.put if job.note_refusal(results) else self._dispatcher.put_back
        if self._is_queued_again(job):
            put(job)

    def drop_if_abandoned(self, job: Job) -> None:
        """Cancel a job that has not left, if nobody waits for it any more and it is not guaranteed."""
        if job.state is _QUEUED and self._waiters.is_abandoned(job):
            self._settle(job, MailState.CANCELLED)

    def cancel(self, job: Job) -> None:
        """Cancel a waiting job. Raises FailedPrecondition when the relay has it, or may have it."""
        if job.state is not _QUEUED or job.uncertain:
            raise FailedPrecondition("the mail is being handed to the relay")
        self._settle(job, MailState.CANCELLED, keep_request=True)

    def give_up(self, job: Job, state: MailState) -> None:
        """Settle a job that is not to be sent, as an earlier process may have sent it. Its request id stays with it."""
        self._end(job, state, job.known)

    async def drained(self) -> None:
        """Wait until every accepted mail has settled, those that wait for a retry included."""
        await self._empty.wait()

    def close(self) -> Closed:
        """Accept no further job, and release or fail those that are open (`Promises.close`), for a stop."""
        self._closed = True
        fail = partial(self._settle, otherwise=MailState.FAILED, answer=Unavailable(STOPPED))
        return self.promises.close(list(self.jobs.values()), release=self.release, fail=fail)

    def release(self, job: Job, why: str) -> None:
        """Leave the job to the store and to another process. All waiters get Unavailable, with these words."""
        self._store.deferred(job.id, job.progress)
        self._remove(job)
        self._waiters.resolve(job, Unavailable(why))

    # Further attempts.

    def _is_over(self, job: Job) -> bool:
        """Whether there is no further attempt, nor a further group: nobody waits, or the deadline has passed."""
        return self._waiters.is_abandoned(job) or self._now() >= job.deadline

    def put_back(self, job: Job) -> None:
        """Put a job back that was started, before those that wait."""
        if self._is_queued_again(job):
            self._dispatcher.put_back(job)

    def _wait(self, job: Job, seconds: float) -> None:
        if self._is_queued_again(job):
            self._retries.add(job, seconds)

    def _retry_later(self, job: Job, reply: str) -> None:
        delay = retry.delay(max(1, job.attempts, job.losses - self._at_once), self._random)
        has_place = not job.is_fresh or self.places.defer(job.source)
        job.defer()
        # No further attempt fits into its time, or all places for deferred mails are taken and it is not guaranteed.
        if self._now() + delay >= job.deadline or not (has_place or job.guaranteed):
            self._settle(job, MailState.FAILED)
            return
        job.next_attempt_time = self._now() + delay
        if not self._is_queued_again(job):
            return
        if self.promises.is_kept(job):
            self._store.deferred(job.id, job.progress)
        self._retries.add(job, delay)
        self._observer.notify(MailDeferred(job.mail, delay, reply, job.trace))

    def _is_queued_again(self, job: Job) -> bool:
        """Mark a job as queued that was in flight; False for one that another process may have, which is let go."""
        self._change(job, _QUEUED)
        if job not in self.fence.disowned:
            return True
        self.release(job, TAKEN_OVER)
        return False

    def expire(self, job: Job) -> None:
        """Settle a job that has not left by its deadline. The relay's reply decides about one that the relay has."""
        if job.state is _QUEUED:
            self._settle(job, MailState.EXPIRED)

    def _change(self, job: Job, state: MailState) -> None:
        job.state = state
        if job.is_noted_first and state is _QUEUED:
            self.attempts.end(job)
        if self._waiters.watchers:
            self._waiters.show(job)

    def _settle(
        self, job: Job, otherwise: MailState, *, keep_request: bool = False, answer: Unavailable | None = None
    ) -> None:
        """Give the job its final state, by what the relay has said, else `otherwise`.

        `keep_request`: a repeated one has this answer. `answer`: those who wait get this in place of the mail.
        """
        if otherwise is not MailState.CANCELLED and (why := self._outage()):
            job.explain(why)
        state, decided = final_state(job, otherwise)
        self._end(job, state, job.known, keep_request=decided or keep_request, answer=answer)

    def _end(
        self, job: Job, state: MailState, last: Results, *, keep_request: bool = True, answer: Unavailable | None = None
    ) -> None:
        self._remove(job)
        mail = job.settle(state, last, self._now())
        if self._waiters.watchers:
            self._waiters.show(job)
        entry = job.entry() if state is not _RELAYED and may_retry(job) else None
        self._store.settle(mail, keep_request=keep_request, entry=entry)
        self._waiters.resolve(job, answer or mail)
        self._observer.notify(MailSettled(mail, job.trace, job.relay))

    def _remove(self, job: Job) -> None:
        """Take the job out of wherever it stands, and let those know who wait for a place or for the end of all."""
        self._deadlines.discard(job)
        if job.is_noted_first:
            self.attempts.forget(job)
        if job in self._retries.timers:
            self._retries.discard(job)
        if self.fence.held or self.fence.disowned:
            self.fence.forget(job)
        if job.state is _QUEUED:
            self._dispatcher.queue.discard(job)
        del self.jobs[job.id]
        self.places.free(job.source, fresh=job.is_fresh, octets=job.octets)
        self._memory.unsettled -= job.octets
        if self.places.waiting.sources:
            self.places.waiting.call_next()
        if not self.jobs:
            self._empty.set()
