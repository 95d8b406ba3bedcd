"""Many mails of one caller as a stream: which have not settled, and which outcomes nobody has taken yet.

It knows nothing of gRPC. There is no task and no wait for a single mail: a mail that settles puts itself on the list of
outcomes and wakes whoever takes them from there.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol, TypeVar

from otpmail.delivery.job import Job
from otpmail.delivery.queue import MailQueue
from otpmail.errors import CallerError, InvalidArgument, QueueFull, Unavailable
from otpmail.mail.service import MAX_REQUEST_ID, MailService, Submission
from otpmail.model import Mail, Priority

_STOPPING = "the service is stopping"
_LOOK_SECONDS = 1.0  # at a full queue, between two looks whether the relay is still there
_TURN = 32  # mails; then others have the loop, since a batch may be of any size
_PATIENCE_SECONDS = 0.05  # with a queue that has enough, before each turn

# Where a few outcomes come at once, and many are to come, they wait a moment for others to leave with: an answer costs
# as much as a few mails.
_FEW = 4
_MANY = 32
_TOGETHER = 100
_TOGETHER_SECONDS = 0.008

Outcome = tuple[str, Mail | Exception]
"""A request's id, and its mail as it is answered, or why there is none."""


class Request(Protocol):
    """What asks for a mail, in whatever form it came."""

    @property
    def request_id(self) -> str:
        """By which the caller tells its outcome from others."""


RequestT = TypeVar("RequestT", bound=Request)


class MailStream:
    """Takes mails in, at most `most` that are unsettled or unanswered, and has their outcomes in the order they come.

    One task calls `take` and then `close`; another calls `outcomes`, and `answered` once they have gone, until there
    are none. `leave` is called in the end, however that came.
    """

    def __init__(self, mails: MailService, queue: MailQueue, *, most: int) -> None:
        self._mails = mails
        self._queue = queue
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._awaited: dict[Job, int] = {}  # how often each was asked for: a request may be repeated
        self._waiting = 0  # so many outcomes those are
        self._guaranteed: set[Job] = set()
        self._ready: list[Outcome] = []
        self._unanswered = 0  # those that are ready, and those that are being answered
        self._taking = False
        self._turn = _TURN  # mails that are left of it
        self._brought = 0  # mails to the queue since it last waited for that to get short
        self._closed = False
        self._stopping = False
        self._taker: asyncio.Future[None] | None = None  # what it waits for, while it waits
        self._pausing: asyncio.Future[None] | None = None  # the same, between two turns
        self._answerer: asyncio.Future[None] | None = None
        self._wanted = 1  # outcomes for which it is woken
        self._fault: CallerError | None = None

    def __repr__(self) -> str:
        return f"<MailStream {self._unsettled} unsettled, {self._unanswered} unanswered>"

    # For who brings requests.

    async def take(
        self, requests: Iterable[RequestT], submission_from: Callable[[RequestT], Awaitable[Submission]]
    ) -> None:
        """Take each mail on as soon as there is room for it, at the pace at which mails leave.

        What is wrong with one is its own outcome.
        """
        self._taking = True
        for request in requests:
            if not self._turn:
                self._turn = _TURN
                await asyncio.sleep(0)
            self._turn -= 1
            while self._full:
                await self._wait_as_taker(self._loop.create_future())
            try:
                await self._take(request, submission_from)
            except Exception as error:  # noqa: BLE001  the others are not to suffer for it
                # One that is too long comes back cut: whole ones could make an answer that its caller does not take.
                self._add((request.request_id[:MAX_REQUEST_ID], error))
        self._taking = False
        self._wake_answerer()

    def close(self, fault: CallerError | None = None) -> None:
        """No more mails come. A `fault` is why, where that is more than the caller's wish."""
        self._closed = True
        self._fault = fault
        self._wake_answerer()

    # For who answers.

    async def outcomes(self) -> list[Outcome]:
        """Those that are ready, as soon as there are any; none once every mail has had its own and no more come.

        Where several are ready at once and many are to come, it waits a moment for more.
        """
        while not self._ready and not self._over:
            await self._wait_as_answerer()
        if _FEW <= len(self._ready) < _TOGETHER and self._many_to_come:
            enough = self._loop.call_later(_TOGETHER_SECONDS, self._wake_answerer)
            self._wanted = _TOGETHER
            try:
                await self._wait_as_answerer()
            finally:
                self._wanted = 1
                enough.cancel()
        ready, self._ready = self._ready, []
        return ready

    def answered(self, count: int) -> None:
        """So many outcomes have reached the caller, or are on their way at its pace."""
        self._unanswered -= count
        self._wake_taker()

    # For who ends it.

    def refuse_mails(self) -> None:
        """The service stops: what comes now is refused, and the stream is over once what it has is answered."""
        self._stopping = True
        self._wake_taker()
        self._end_pause()
        self._wake_answerer()

    def leave(self) -> None:
        """Nobody waits here any more: mails that were not promised are given up where they still wait."""
        awaited, self._awaited, self._waiting = self._awaited, {}, 0
        self._guaranteed.clear()
        for job, times in awaited.items():
            self._mails.leave(job, times)

    @property
    def fault(self) -> CallerError | None:
        """Why it is over, where its caller did not close it, or not well."""
        return self._fault if self._closed or not self._stopping else Unavailable(_STOPPING)

    @property
    def _unsettled(self) -> int:
        return self._waiting + len(self._guaranteed)

    @property
    def _full(self) -> bool:
        return self._waiting + len(self._guaranteed) + self._unanswered >= self._most

    @property
    def _many_to_come(self) -> bool:
        return self._waiting >= _MANY or (self._taking and not self._full)

    @property
    def _over(self) -> bool:
        return (self._closed or (self._stopping and not self._taking)) and not self._awaited

    async def _take(self, request: RequestT, submission_from: Callable[[RequestT], Awaitable[Submission]]) -> None:
        if not request.request_id:
            raise InvalidArgument("request_id", "is needed: by it the result is told from others")
        order = await submission_from(request)
        if self._brought >= _TURN and self._queue.is_above_high_water(order.priority) and not self._stopping:
            await self._pause(order.priority)
        job = await self._accepted(order)
        self._brought += not job.settled
        if order.wait_for.guarantees or job.settled:
            self._add((order.request_id, job.mail))
            if not job.settled and job not in self._guaranteed:
                self._guaranteed.add(job)
                job.add_done_callback(self._ended)
            return
        self._mails.add_waiter(job)
        times = self._awaited.get(job, 0)
        self._awaited[job] = times + 1
        self._waiting += 1
        if not times:
            job.add_done_callback(self._ended)

    async def _accepted(self, order: Submission) -> Job:
        """The job, when there is room in the queue. Raises as `MailService.accept` does, but QueueFull."""
        while True:
            if self._stopping:
                raise Unavailable(_STOPPING)
            if self._mails.crowded:
                self._mails.refuse_if_away(order.wait_for)
                await self._wait_for_an_end()
                continue
            try:
                return await self._mails.accept(order)
            except QueueFull:  # others came while a large one was being written
                await asyncio.sleep(0)

    def _ended(self, job: Job, told: Mail | Unavailable) -> None:
        if job in self._guaranteed:
            self._guaranteed.discard(job)
            self._wake_taker()
        times = self._awaited.pop(job, 0)
        if not times:  # it was promised, or has been left
            return
        self._waiting -= times
        self._add((job.request_id, told), times)

    def _add(self, outcome: Outcome, times: int = 1) -> None:
        self._ready += (outcome,) * times
        self._unanswered += times
        if self._answerer is not None and (len(self._ready) >= self._wanted or not self._many_to_come):
            self._wake_answerer()

    async def _pause(self, priority: Priority) -> None:
        """Where enough mails wait in a lane, let them go first until few do.

        The next ones would be cold by the time they left: of what waits in the queue nothing is in the caches any more.
        And a stream that has taken a thousand mails on keeps everybody else's behind them. But only for a moment, since
        others may bring as many as leave.
        """
        self._brought = 0
        self._queue.call_below_low_water(priority, self._end_pause)
        late = self._loop.call_later(_PATIENCE_SECONDS, self._end_pause)
        self._pausing = self._loop.create_future()
        try:
            await self._pausing
        finally:
            late.cancel()
            self._queue.forget(priority, self._end_pause)

    def _end_pause(self) -> None:
        if self._pausing is not None and not self._pausing.done():
            self._pausing.set_result(None)

    async def _wait_for_an_end(self) -> None:
        look = self._loop.call_later(_LOOK_SECONDS, self._wake_taker)
        try:
            await self._wait_as_taker(self._mails.next_end())
        finally:
            look.cancel()

    async def _wait_as_answerer(self) -> None:
        self._answerer = self._loop.create_future()
        await self._answerer
        self._answerer = None

    async def _wait_as_taker(self, turn: asyncio.Future[None]) -> None:
        self._taker = turn
        await turn

    def _wake_taker(self) -> None:
        if self._taker is not None and not self._taker.done():
            self._taker.set_result(None)

    def _wake_answerer(self) -> None:
        if self._answerer is not None and not self._answerer.done():
            self._answerer.set_result(None)
