"""The mails of one stream: those that have not settled, and the outcomes that have not been collected yet.

It knows nothing of gRPC. No mail has a task of its own. A mail that settles puts its outcome on a list, and wakes the
task that collects outcomes from there. `mail.admission` decides when the next mail may come in.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from otpmail.callers import Call
from otpmail.delivery.job import Job
from otpmail.errors import CallerError, InvalidArgument, Stopping, Unavailable
from otpmail.mail.accepting import Accepting
from otpmail.mail.idempotency import MAX_REQUEST_ID
from otpmail.mail.keeping import Prepared
from otpmail.mail.producer import Producer
from otpmail.mail.service import MailService
from otpmail.mail.submission import Submission
from otpmail.model import Mail

# Where a few outcomes come at once and many are still to come, they wait a moment for others. A response costs as much
# as a few mails. Under load mails take longer, those of all streams leave in turns, and the moment is longer too.
_FEW = 4
_MANY = 32
_TOGETHER = 100
_TOGETHER_SECONDS = 0.008
_LONGEST_SECONDS = 0.025
_PART = 4  # of the time that a mail has taken

Outcome = tuple[str, Mail | Exception]
"""A request's id, and the mail to answer it with, or the error."""


def patience_for(outcome: Mail | Exception, least: float) -> float:
    """Return how long outcomes like this one wait for others: a quarter of what it took, from `least` to 25 ms."""
    took = 0.0
    if isinstance(outcome, Mail) and outcome.settle_time is not None:
        took = outcome.settle_time - outcome.create_time
    return max(least, min(took / _PART, _LONGEST_SECONDS))


class MailRequest(Protocol):
    """A request for a mail, of whatever contract."""

    @property
    def request_id(self) -> str:
        """The caller's name for the request, which tells its outcome from others."""


RequestT = TypeVar("RequestT", bound=MailRequest)


class MailStream:
    """Accepts mails, at most `most` of them outstanding, and returns their outcomes in the order of their ends.

    One task calls `begin` and `take` for each batch, and then `close`. Another calls `outcomes`, and `answered` once
    they have been written, until none are left. In the end `leave` is called, after an error too.
    """

    def __init__(self, mails: MailService, call: Call, *, most: int, together: float = _TOGETHER_SECONDS) -> None:
        self._mails = mails
        self.call = call
        """The call, with the present permissions of its caller."""
        self._together = together
        self._accepting = Accepting(self._keep, mails.drop, self._wake_collector)
        self._producer = Producer(mails.admission, call, most=most, on_full=self._accepting.keep, on_stop=self._on_stop)
        self._loop = asyncio.get_running_loop()
        self._awaited: dict[Job, int] = {}  # how often each was asked for: a request may be repeated
        self._waiting = 0  # outcomes that these are
        self._guaranteed: set[Job] = set()
        self._ready: list[Outcome] = []
        self._taking = False
        self._closed = False
        self._stopping = False
        self._collector: asyncio.Future[None] | None = None
        self._wanted = 1  # outcomes for which it is woken
        self._fault: CallerError | None = None

    def __repr__(self) -> str:
        return f"<MailStream {self._waiting + len(self._guaranteed)} unsettled, {self._producer!r}>"

    # For the task that brings requests.

    async def begin(self) -> None:
        """Wait for the stream's turn, before its next batch is parsed."""
        self._taking = True
        await self._producer.begin()

    async def take(self, requests: Iterable[RequestT], decode: Callable[[RequestT], Awaitable[Submission]]) -> None:
        """Accept each mail as soon as there is a place for it.

        An error in one mail is that mail's outcome.
        """
        self._taking = True
        try:
            for request in requests:
                if (turn := self._producer.turn()) is not None:
                    await turn
                try:
                    await self._take(request, decode)
                except Exception as error:  # noqa: BLE001  a fault in one must not harm the others
                    self._fail(request.request_id, error)
            self._accepting.keep()
            await self._accepting.wait_for_few()
        finally:
            self._accepting.drop_group()  # the stream is cancelled
        self._taking = False
        self._wake_collector()

    def call_when_kept(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the store has answered about all mails that were taken until now."""
        self._accepting.call_when_kept(callback)

    def close(self, fault: CallerError | None = None) -> None:
        """Expect no more mails. `fault` is the error that ends the stream, None where its caller has closed it."""
        self._closed = True
        self._taking = False
        self._fault = fault
        self._wake_collector()

    # For the task that answers.

    async def outcomes(self) -> list[Outcome]:
        """Wait for outcomes and return those that are ready; an empty list once every mail has had its own.

        Where several are ready at once and many are to come, it waits a moment for more.
        """
        while not self._ready and not self._over:
            await self._wait()
        if (self._taking or len(self._ready) >= _FEW) and len(self._ready) < _TOGETHER and self._many_to_come:
            patience = patience_for(self._ready[-1][1], self._together)
            if self._taking or self._waiting >= _TOGETHER:  # they may fill a response
                patience = max(patience, _LONGEST_SECONDS)
            alarm = self._loop.call_later(patience, self._wake_collector)
            self._wanted = _TOGETHER
            try:
                await self._wait()
            finally:
                self._wanted = 1
                alarm.cancel()
        ready, self._ready = self._ready, []
        return ready

    def answered(self, count: int) -> None:
        """Free the places of outcomes that have been written, which the caller's flow control has let through."""
        self._producer.free(count)

    # For the end.

    def leave(self) -> None:
        """Stop waiting for all mails: those that are queued and not guaranteed are cancelled.

        So are those that the store has not answered about: their caller knows nothing of them.
        """
        self._accepting.cancel()
        awaited, self._awaited, self._waiting = self._awaited, {}, 0
        self._guaranteed.clear()
        for job in awaited:
            self._mails.stop_waiting(job, self._on_end)
        self._producer.leave()

    @property
    def fault(self) -> CallerError | None:
        """The error that ended the stream, None where its caller has closed it."""
        return self._fault if self._closed or not self._stopping else Stopping()

    def _on_stop(self) -> None:
        self._stopping = True
        self._wake_collector()

    @property
    def _many_to_come(self) -> bool:
        return self._waiting >= _MANY or (self._taking and not self._producer.is_full)

    @property
    def _over(self) -> bool:
        ends = self._closed or (self._stopping and not self._taking)
        return ends and not self._awaited and not self._accepting

    async def _take(
        self,
        request: RequestT,
        decode: Callable[[RequestT], Awaitable[Submission]],
    ) -> None:
        submission = await decode(request)
        if not submission.request_id:
            raise InvalidArgument("request_id", "is needed: it tells this mail's result from others")
        if not self._mails.is_durable:
            job = await self._mails.accept(self.call, submission, self._producer)
            self._accepted(submission.request_id, job, is_guaranteed=submission.wait_for.guarantees)
            return
        if submission.wait_for.guarantees and not submission.draft.is_large:
            prepared = await self._mails.prepare(self.call, submission, self._producer, self._accepting.keep)
            if prepared is not None:
                self._producer.outstanding += 1
                self._accepting.add(prepared)
                return
        await self._accepting.run(self._accept(submission))  # it waits for the store, and other mails with it

    async def _keep(self, group: list[Prepared]) -> None:
        ends: Sequence[Job | Exception]
        try:
            ends = await self._mails.keep(group)
        except Exception as error:  # noqa: BLE001  as in `take`
            ends = [error] * len(group)
        finally:
            self._producer.free(len(group))
        for prepared, end in zip(group, ends, strict=True):
            request_id = prepared.request.request_id
            if isinstance(end, Job):
                self._accepted(request_id, end, is_guaranteed=True)
            else:
                self._fail(request_id, end)

    async def _accept(self, submission: Submission) -> None:
        self._producer.outstanding += 1
        try:
            job = await self._mails.accept(self.call, submission, self._producer)
            self._accepted(submission.request_id, job, is_guaranteed=submission.wait_for.guarantees)
        except Exception as error:  # noqa: BLE001  as in `take`
            self._fail(submission.request_id, error)
        finally:
            self._producer.free()

    def _fail(self, request_id: str, error: Exception) -> None:
        # A request id that is too long comes back cut: whole ones could make a response too large to receive.
        self._producer.outstanding += 1
        self._add((request_id[:MAX_REQUEST_ID], error))

    def _accepted(self, request_id: str, job: Job, *, is_guaranteed: bool) -> None:
        producer, settled = self._producer, job.settled
        producer.outstanding += 1
        if not settled:
            producer.brought += 1
        if is_guaranteed or settled:
            self._add((request_id, job.mail))
            if not settled and job not in self._guaranteed:
                self._guaranteed.add(job)
                producer.outstanding += 1
                self._mails.call_when_done(job, self._on_guaranteed_end)
            return
        self._waiting += 1
        if job in self._awaited:
            self._awaited[job] += 1
        else:
            self._awaited[job] = 1
            self._mails.wait(job, self._on_end)

    def _on_end(self, job: Job, outcome: Mail | Unavailable) -> None:
        times = self._awaited.pop(job, 0)
        if not times:  # the stream has left
            return
        self._waiting -= times
        self._add((job.request_id, outcome), times)  # which is outstanding in place of the mail

    def _on_guaranteed_end(self, job: Job, _: Mail | Unavailable) -> None:
        if job in self._guaranteed:
            self._guaranteed.discard(job)
            self._producer.free()

    def _add(self, outcome: Outcome, times: int = 1) -> None:
        self._ready += (outcome,) * times
        if self._collector is not None and (len(self._ready) >= self._wanted or not self._many_to_come):
            self._wake_collector()

    async def _wait(self) -> None:
        self._collector = self._loop.create_future()
        try:
            await self._collector
        finally:
            self._collector = None

    def _wake_collector(self) -> None:
        if self._collector is not None and not self._collector.done():
            self._collector.set_result(None)
