"""A repeated request id finds the mail of its first call, also while that is still being accepted."""

import asyncio
from collections.abc import Awaitable, Callable

from otpmail.delivery.job import Job
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.errors import InvalidArgument, Unavailable
from otpmail.model import MailState
from otpmail.store.base import Accepted, Conflict, Earlier, MailStore, Request, Running


class _FirstCall:
    """The first call with a request id, until its mail is accepted. `end` is made once another call waits for it."""

    __slots__ = ("end", "fingerprint")

    def __init__(self, fingerprint: bytes) -> None:
        self.fingerprint = fingerprint
        self.end: asyncio.Future[Job | None] | None = None

    async def job(self) -> Job | None:
        """Wait until the call has its job, and return that; None where the call was rejected or cancelled."""
        if self.end is None:
            self.end = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self.end)


class Idempotency:
    """Accepts each request id once. `_accepting` are the first calls that have not got their job yet."""

    def __init__(self, store: MailStore, lifecycle: Lifecycle) -> None:
        self._store = store
        self._lifecycle = lifecycle
        self._accepting: dict[tuple[str, str], _FirstCall] = {}

    def __repr__(self) -> str:
        return f"<Idempotency {len(self._accepting)} being accepted>"

    async def once(
        self, request: Request, mail_id: str, accept: Callable[[], Awaitable[Job]], *, with_content: bool
    ) -> Job:
        """Return the job of the first call with this request id; if this is the first, what `accept` returns.

        `with_content`: `accept` does nothing before it hands the request id to a durable store, in one commit with the
        mail. Otherwise the request id is claimed first.
        Where the first call is refused while others wait for it, the next of them counts as the first. Raises
        InvalidArgument where the request id came before with another content, and Unavailable where another process is
        sending its mail. An error of `accept` is raised too, and the request id is free again then.
        """
        key = request.caller, request.request_id
        while (first := self._accepting.get(key)) is not None:
            if first.fingerprint != request.fingerprint:
                raise _conflict()
            job = await first.job()
            # The first call may end before this one holds the job. Nobody waits for the mail then, and it is cancelled.
            if job is not None and job.state is not MailState.CANCELLED:
                return job
        first = self._accepting[key] = _FirstCall(request.fingerprint)
        job = None
        try:
            if not with_content:
                job = self.job_of(await self._store.claim(request, mail_id))
            if job is None:
                job = await accept()
        except BaseException:  # a claim that is cancelled may have succeeded
            if not with_content:
                self._store.release(request, mail_id)
            raise
        finally:
            del self._accepting[key]
            if first.end is not None:
                first.end.set_result(job)
        return job

    def job_of(self, answer: Accepted | Earlier | Running | Conflict) -> Job | None:
        """Return the job that a store's answer names; None where the request id is this call's.

        Raises InvalidArgument for a conflict, and Unavailable where another process is sending the mail.
        """
        match answer:
            case Accepted():
                return None
            case Earlier(mail):
                return self._lifecycle.find(mail.id) or Job.finished(mail)
            case Running(mail_id):
                job = self._lifecycle.find(mail_id)
                if job is None:
                    raise Unavailable("another process is sending the mail of this request_id")
                return job
            case Conflict():
                raise _conflict()


def _conflict() -> InvalidArgument:
    return InvalidArgument("request_id", "was used before for another request")
