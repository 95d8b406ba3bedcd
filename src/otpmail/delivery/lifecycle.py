"""What becomes of each accepted mail: every step from the queue to its final state, and when it is tried again.

The workers report here (`worker.DeliveryHandler`); nothing here waits, so a step is taken whole or not at all.
"""

import asyncio
from collections.abc import Callable
from time import time
from typing import Literal

from otpmail.delivery import retry
from otpmail.delivery.deadlines import Deadlines
from otpmail.delivery.job import Job
from otpmail.delivery.queue import MailQueue
from otpmail.errors import ConnectionLost, FailedPrecondition, Unavailable
from otpmail.events import MailAccepted, MailDeferred, MailSettled, Observer
from otpmail.model import MailState, RecipientResult
from otpmail.smtp.transaction import Results
from otpmail.store.base import MailStore

MOST_COPIES = 3
"""How often the relay may have taken one mail unheard, before no further copy is sent.

A relay that takes each one and cuts the connection before its answer would fill a mailbox until the time is over.
"""

_QUEUED, _SENDING, _RELAYED = MailState.QUEUED, MailState.SENDING, MailState.RELAYED  # naming them takes its time
_STOPPED = "the service stopped before the mail could be sent"


class Lifecycle:
    """The mails that have not settled, by id, and the rules by which they do. `now` is seconds since the epoch."""

    def __init__(
        self,
        queue: MailQueue,
        store: MailStore,
        observer: Observer,
        *,
        random: Callable[[], float],
        on_uncertain: Literal["retry", "fail"] = "retry",
        now: Callable[[], float] = time,
    ) -> None:
        self._queue = queue
        self._store = store
        self._observer = observer
        self._random = random
        self._on_uncertain = on_uncertain
        self._now = now
        self._says_accepted = MailAccepted in observer.event_types
        self._closed = False
        self._jobs: dict[str, Job] = {}
        self._loop = asyncio.get_running_loop()
        self._deadlines = Deadlines(self._expire)
        self._next_end: dict[asyncio.Future[None], None] = {}
        self._empty = asyncio.Event()
        self._empty.set()

    def __repr__(self) -> str:
        return f"<Delivery {len(self._jobs)} open, {self._queue!r}>"

    def __len__(self) -> int:
        """How many accepted mails have not settled."""
        return len(self._jobs)

    def find(self, mail_id: str) -> Job | None:
        """The job of a mail that has not settled."""
        return self._jobs.get(mail_id)

    def submit(self, job: Job) -> None:
        """Take a job on: from now on it settles, whatever happens. Raises Unavailable once the rest was abandoned."""
        if self._closed:  # a large one may still have been in the writing
            raise Unavailable(_STOPPED)
        if not self._jobs:
            self._empty.clear()
        self._jobs[job.id] = job
        self._deadlines.add(job)
        self._queue.put_nowait(job)
        if self._says_accepted:
            self._observer.notify(MailAccepted(job.mail))

    def begin(self, job: Job) -> bool:
        """A worker has the job in hand: False when it is not to be sent any more."""
        if job.state is not _QUEUED:
            return False
        if job.deadline <= self._loop.time():
            self._settle(job, MailState.EXPIRED)
            return False
        job.change(_SENDING)
        return True

    def answered(self, job: Job, results: Results) -> None:
        """The relay spoke about each recipient it was offered. Who it deferred is tried again, nobody else."""
        if job.state.final:  # abandoned meanwhile: what was told stays told
            return
        if not job.results and len(results) == len(job.envelope.recipients) and _all_accepted(results):
            job.attempts += 1  # as nearly every mail ends
            self._end(job, _RELAYED, results)
            return
        for result in results:
            job.results[result.address] = result
            if result.accepted:
                # A refusal now says nothing of the copy that may have been taken before: only a yes does.
                if job.uncertain:
                    job.uncertain -= {result.address}
            elif not result.refused:
                job.deferred += (result.address,)
        rest = job.pending[len(results) :]
        if rest and not self._is_over(job):  # the next group of a mail for many
            job.pending = rest
            self._go_again(job)
            return
        job.pending, job.deferred = job.deferred + rest, ()
        job.attempts += 1
        if not job.pending or self._is_over(job):
            self._settle(job, MailState.FAILED)
            return
        last = job.results[job.pending[0]]
        self._retry_later(job, " ".join(filter(None, (str(last.code), last.enhanced_code, last.reply))))

    def lost(self, job: Job, error: ConnectionLost) -> None:
        """The connection ended under the job. The relay may have taken it only if the error says `uncertain`."""
        if job.settled:
            return
        if not error.not_started:
            job.losses += 1
        if error.uncertain:
            job.uncertain = job.uncertain.union(job.offered)
            job.attempts += 1
            job.copies += 1
            if self._on_uncertain == "fail" or job.copies == MOST_COPIES:
                self._settle(job, MailState.UNCERTAIN)
                return
        if self._is_over(job):
            self._settle(job, MailState.FAILED)
        elif error.not_started or job.losses == 1:
            self._go_again(job)
        else:  # perhaps it is this very mail that the relay ends connections over: let others go first
            self._retry_later(job, str(error))

    def give_up(self, job: Job) -> None:
        """Nobody waits for the job any more: if it has not left and nobody was promised it, it never does."""
        if job.abandoned and job.state is MailState.QUEUED:
            self._settle(job, MailState.CANCELLED)

    def cancel(self, job: Job) -> None:
        """Take a waiting job back. Raises FailedPrecondition when the relay has it, or may have it."""
        if job.state is not MailState.QUEUED or job.uncertain:
            raise FailedPrecondition("the mail is being handed to the relay")
        self._settle(job, MailState.CANCELLED, taken_back=True)

    def next_end(self) -> asyncio.Future[None]:
        """A future for the moment in which the next mail settles: one for each who asks.

        Who waits no more cancels it, or sets its result.
        """
        end: asyncio.Future[None] = self._loop.create_future()
        end.add_done_callback(lambda end: self._next_end.pop(end, None))
        self._next_end[end] = None
        return end

    async def drained(self) -> None:
        """Wait until every accepted mail has settled."""
        await self._empty.wait()

    def abandon(self) -> int:
        """Settle what is left as failed, tell whoever waits that the service is going, and take nothing on any more.

        Returns how many were left.
        """
        self._closed = True
        left = list(self._jobs.values())
        for job in left:
            for address in job.pending:
                job.results.setdefault(address, RecipientResult(address, reply=_STOPPED))
            if job.state is MailState.SENDING:  # the relay may take it yet, while its connection is closed
                job.uncertain = job.uncertain.union(job.offered)
            self._settle(job, MailState.FAILED, answer=Unavailable(_STOPPED))
        return len(left)

    def _is_over(self, job: Job) -> bool:
        """Whether there is to be no further try, nor a further group: nobody waits, or the time is over."""
        return job.abandoned or self._loop.time() >= job.deadline

    def _go_again(self, job: Job) -> None:
        job.change(MailState.QUEUED)
        self._queue.put_back(job)

    def _retry_later(self, job: Job, reply: str) -> None:
        delay = retry.delay(max(1, job.attempts, job.losses - 1), self._random)
        if self._loop.time() + delay >= job.deadline:
            self._settle(job, MailState.FAILED)  # no further try fits into its time
            return
        mail = job.report(MailState.QUEUED, job.known)
        job.retry = self._loop.call_later(delay, self._retry, job)
        self._observer.notify(MailDeferred(mail, delay, reply))

    def _retry(self, job: Job) -> None:
        job.retry = None
        self._queue.put_nowait(job)

    def _expire(self, job: Job) -> None:
        # One that is with the relay at this moment is left to what the relay says.
        if job.state is MailState.QUEUED:
            self._settle(job, MailState.EXPIRED)

    def _settle(
        self, job: Job, otherwise: MailState, *, taken_back: bool = False, answer: Unavailable | None = None
    ) -> None:
        """Give the job its final state: by what the relay accepted, else `otherwise`.

        A job that the relay may have taken unheard is UNCERTAIN instead. `taken_back`: by its caller's own word.
        `answer`: what those who wait are told instead of the mail.
        """
        accepted = refused = 0
        for result in job.results.values():
            accepted += result.accepted
            refused += result.refused
        if accepted == len(job.envelope.recipients):
            state = MailState.RELAYED
        elif job.uncertain:
            state = MailState.UNCERTAIN
        else:
            state = MailState.PARTIAL if accepted else otherwise
        # Where nothing was decided but that time ran out, the caller's next try, with the same id, is to count.
        counts = bool(accepted or refused or job.uncertain or taken_back)
        self._end(job, state, job.known, keep_request=counts, answer=answer)

    def _end(
        self,
        job: Job,
        state: MailState,
        known: Results,
        *,
        keep_request: bool = True,
        answer: Unavailable | None = None,
    ) -> None:
        self._deadlines.discard(job)
        if job.retry is not None:
            job.retry.cancel()
        if job.state is _QUEUED:
            self._queue.discard(job)
        mail = job.report(state, known, self._now())
        self._jobs.pop(job.id, None)
        self._store.settle(mail)
        if not keep_request:
            self._store.forget_request(mail)
        job.tell(answer or mail)
        if self._next_end:
            self._tell_of_an_end()
        if not self._jobs:
            self._empty.set()
        self._observer.notify(MailSettled(mail))

    def _tell_of_an_end(self) -> None:
        waiting, self._next_end = self._next_end, {}
        for end in waiting:
            if not end.done():
                end.set_result(None)


def _all_accepted(results: Results) -> bool:
    for result in results:  # noqa: SIM110  asked for every mail, and `all` over a generator is slower
        if not result.accepted:
            return False
    return True
