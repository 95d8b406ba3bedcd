"""A repeated request id finds the mail of its first call, also while that is still being accepted."""

import asyncio
from collections.abc import Awaitable, Callable

from otpmail.delivery.job import Job
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.errors import InvalidArgument, Unavailable
from otpmail.store.base import Accepted, Conflict, Earlier, MailStore, Request, Running


class Idempotency:
    """Accepts each request id once. `_accepting` are the first calls that have not got their job yet.

    Build it inside a running loop.
    """

    def __init__(self, store: MailStore, lifecycle: Lifecycle) -> None:
        self._store = store
        self._lifecycle = lifecycle
        self._loop = asyncio.get_running_loop()
        self._accepting: dict[tuple[str, str], tuple[bytes, asyncio.Future[Job | None]]] = {}

    def __repr__(self) -> str:
        return f"<Idempotency {len(self._accepting)} being accepted>"

    async def once(
        self, request: Request, mail_id: str, accept: Callable[[], Awaitable[Job]], *, with_content: bool
    ) -> Job:
        """Return the job of the first call with this request id; if this is the first, what `accept` returns.

        `with_content`: `accept` hands the request id to a durable store itself, in one commit with the mail.
        Where the first call is refused while others wait for it, the next of them counts as the first. Raises
        InvalidArgument where the request id came before with another content, Unavailable where another process is
        sending its mail, and what `accept` raises; the request id is free again then.
        """
        key = request.caller, request.request_id
        while key in self._accepting:
            fingerprint, accepted = self._accepting[key]
            if fingerprint != request.fingerprint:
                raise _conflict()
            job = await asyncio.shield(accepted)
            if job is not None:
                return job
        end: asyncio.Future[Job | None] = self._loop.create_future()
        self._accepting[key] = request.fingerprint, end
        job = None
        try:
            if with_content:
                job = await accept()
            else:
                job = self.job_of(await self._store.claim(request, mail_id)) or await self._accept(request, accept)
            return job
        finally:
            del self._accepting[key]
            end.set_result(job)

    def job_of(self, answer: Accepted | Earlier | Running | Conflict) -> Job | None:
        """Return the job that a store's answer names; None where the request id is this call's.

        Raises InvalidArgument for a conflict, and Unavailable where another process is sending the mail.
        """
        match answer:
            case Earlier(mail):
                return self._lifecycle.find(mail.id) or Job.finished(mail)
            case Running(mail_id):
                job = self._lifecycle.find(mail_id)
                if job is None:
                    raise Unavailable("another process is sending the mail of this request_id")
                return job
            case Conflict():
                raise _conflict()
            case Accepted():
                return None

    async def _accept(self, request: Request, accept: Callable[[], Awaitable[Job]]) -> Job:
        try:
            return await accept()
        except BaseException:
            self._store.release(request)
            raise


def _conflict() -> InvalidArgument:
    return InvalidArgument("request_id", "was used before for another request")
