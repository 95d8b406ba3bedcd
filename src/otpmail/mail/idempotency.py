"""A repeated request id finds the mail of its first call, also while that is still being accepted."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from otpmail.delivery.backlog import Backlog
from otpmail.delivery.job import Job
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.errors import InvalidArgument, Unavailable
from otpmail.model import Mail, MailState
from otpmail.store.base import Accepted, Conflict, Earlier, MailStore, Request, Running, TakenOver

MAX_REQUEST_ID = 128

_FIRST_LOOK, _LAST_LOOK = 0.1, 1.0  # seconds between two looks whether another process has settled a mail
_ELSEWHERE = "another process is sending the mail of this request_id"

Answer = Accepted | Earlier | Running | Conflict | TakenOver


class Repeatable(Protocol):
    """A request that its caller may repeat under its request id."""

    @property
    def request_id(self) -> str:
        """The caller's name for it, empty where it must not be repeated."""

    @property
    def fingerprint(self) -> bytes:
        """A digest of the request's content."""


class Idempotency:
    """Accepts each request id once.

    `_accepting` are the fingerprints of first calls that have not got their job yet. `_ends` are made for those of them
    that other calls wait for. `_elsewhere` are those whose mail another process sends: they look for its end for
    `wait_seconds`.
    """

    def __init__(self, store: MailStore, lifecycle: Lifecycle, backlog: Backlog, *, wait_seconds: float) -> None:
        self._store = store
        self._wait_seconds = wait_seconds
        self._elsewhere: set[tuple[str, str]] = set()
        self.resumed: set[str] = set()
        """Ids of mails that are being accepted again, since the process ended in which they were before."""
        self._lifecycle = lifecycle
        self._backlog = backlog
        self._accepting: dict[tuple[str, str], bytes] = {}
        self._ends: dict[tuple[str, str], asyncio.Future[Job | None]] = {}

    def __repr__(self) -> str:
        return f"<Idempotency {len(self._accepting)} being accepted>"

    async def once(
        self, request: Request, mail_id: str, accept: Callable[[str], Awaitable[Job]], *, with_content: bool
    ) -> Job:
        """Return the job of the first call with this request id; if this is the first, what `accept` returns.

        `accept` gets the `mail_id`, or that of a process that ended before its mail of this request id was decided. The
        relay sees one Message-ID then.

        `with_content`: `accept` does nothing before it hands the request id to a durable store, in one commit with the
        mail. Otherwise the request id is claimed first.
        Where the first call is refused while others wait for it, the next of them counts as the first. Raises
        InvalidArgument where the request id came before with another content, and Unavailable where another process is
        sending its mail. An error of `accept` is raised too, and the request id is free again then.
        """
        while not self.begin(request):
            job = await self._first_job(request[:2])
            # The first call may end before this one holds the job. Nobody waits for the mail then, and it is cancelled.
            if job is not None and job.state is not MailState.CANCELLED:
                return job
        job, is_taken_over = None, False
        try:
            if not with_content:
                answer = await self._store.claim(request, mail_id)
                if not isinstance(answer, Accepted):
                    answer = await self._claim_again(request, mail_id, answer)
                    if is_taken_over := isinstance(answer, TakenOver):
                        mail_id = answer.mail_id
                        self.resumed.add(mail_id)
                    job = self.job_of(answer)
            if job is None:
                job = await accept(mail_id)
                # In the turn of the loop in which it was submitted, so before it is sent.
                if is_taken_over and not job.settled and self._lifecycle.attempts.forbids(job):
                    self._lifecycle.give_up(job, MailState.UNCERTAIN)
        except BaseException:  # a claim that is cancelled may have succeeded
            if not with_content:
                self._store.release(request, mail_id)
            raise
        finally:
            self.resumed.discard(mail_id)
            self.end(request, job)
        return job

    async def _claim_again(self, request: Request, mail_id: str, answer: Answer) -> Answer:
        """While another process sends the mail of the request id, look whether that has settled."""
        pause, ends = _FIRST_LOOK, self._store.now() + self._wait_seconds
        try:
            while isinstance(answer, Running):
                await self._backlog.recall(answer.mail_id)
                if self._lifecycle.find(answer.mail_id) is not None or self._store.now() >= ends:
                    break
                self._elsewhere.add(request[:2])
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LAST_LOOK)
                answer = await self._store.claim(request, mail_id)
        finally:
            self._elsewhere.discard(request[:2])
        return answer

    def begin(self, request: Request) -> bool:
        """Count a call as the first with its request id, until `end`; False while another one is.

        Raises InvalidArgument where that one has another content.
        """
        key = request[:2]
        if (fingerprint := self._accepting.get(key)) is None:
            self._accepting[key] = request.fingerprint
            return True
        if fingerprint != request.fingerprint:
            raise _conflict()
        return False

    def end(self, request: Request, job: Job | None) -> None:
        """Give the job of the first call to those that wait for it, None where it was refused."""
        key = request[:2]
        del self._accepting[key]
        if key in self._ends:
            self._ends.pop(key).set_result(job)

    async def find(self, caller: str, request_id: str) -> Job | Mail | None:
        """Return the mail that a caller's request id names: its job where it has not settled; None for an unknown id.

        It waits while that mail is being accepted, so that a caller can cancel a mail whose answer it did not wait for.
        """
        while (key := (caller, request_id)) in self._accepting and key not in self._elsewhere:
            await self._first_job(key)
        match await self._store.find(caller, request_id):
            case Earlier(mail):
                return mail
            case Running(mail_id):
                await self._backlog.recall(mail_id)
                found = self._lifecycle.find(mail_id) or await self._store.get(caller, mail_id)
                if found is None:  # its caller waits for the relay, and the store has no more than its id
                    raise Unavailable(_ELSEWHERE)
                return found
            case None:
                return None

    async def _first_job(self, key: tuple[str, str]) -> Job | None:
        """Wait until the first call has its job, and return that; None where it was rejected or cancelled."""
        end = self._ends.get(key)
        if end is None:
            end = self._ends[key] = asyncio.get_running_loop().create_future()
        return await asyncio.shield(end)

    def job_of(self, answer: Answer) -> Job | None:
        """Return the job that a store's answer names; None where the request id is this call's.

        Raises InvalidArgument for a conflict, and Unavailable where another process is sending the mail.
        """
        match answer:
            case Accepted() | TakenOver():
                return None
            case Earlier(mail):
                return self._lifecycle.find(mail.id) or Job.finished(mail)
            case Running(mail_id):
                job = self._lifecycle.find(mail_id)
                if job is None:
                    raise Unavailable(_ELSEWHERE)
                return job
            case Conflict():
                raise _conflict()


def check_request_id(request_id: str) -> None:
    """Raise InvalidArgument for a text that is no request id."""
    if len(request_id) > MAX_REQUEST_ID or not request_id.isprintable():
        raise InvalidArgument("request_id", f"must be printable and at most {MAX_REQUEST_ID} characters")


def _conflict() -> InvalidArgument:
    return InvalidArgument("request_id", "was used before for another request")
