"""Looks up, watches and cancels mails for the callers that have sent them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from otpmail.callers import Caller
from otpmail.delivery.backlog import Backlog
from otpmail.delivery.job import Job
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.delivery.waiters import Waiters
from otpmail.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from otpmail.mail.idempotency import Idempotency, check_request_id
from otpmail.model import Mail, MailState
from otpmail.store.base import MailStore

MAX_MAIL_ID = 64


class Lookup:
    """Finds the mails of a caller by their id, or by the request id with which they were sent."""

    def __init__(
        self, store: MailStore, lifecycle: Lifecycle, backlog: Backlog, waiters: Waiters, idempotency: Idempotency
    ) -> None:
        self._store = store
        self._lifecycle = lifecycle
        self._backlog = backlog
        self._waiters = waiters
        self._idempotency = idempotency

    def __repr__(self) -> str:
        return f"<Lookup {self._lifecycle!r}>"

    async def get(self, caller: Caller, mail_id: str = "", *, request_id: str = "") -> Mail:
        """Return a mail's present state.

        Exactly one of `mail_id` and `request_id` is given. Raises NotFound, and InvalidArgument where both or neither
        are given or one is too long. While a mail is being accepted, a search by request id waits.
        """
        found = await self._find(caller, mail_id, request_id)
        return found.mail if isinstance(found, Job) else found

    async def watch(self, caller: Caller, mail_id: str = "", *, request_id: str = "") -> AsyncGenerator[Mail, None]:
        """Yield every state of a mail, from the present one until it settles. Raises as `get` does."""
        found = await self._find(caller, mail_id, request_id)
        if isinstance(found, Job):
            async with aclosing(self._states(found)) as states:
                async for mail in states:
                    yield mail
                    if mail.state.final:
                        return
        elif found.state.final:
            yield found
            return
        async with aclosing(self._store.watch(caller.name, found.id)) as states:  # another process has it
            async for mail in states:
                yield mail

    async def _states(self, job: Job) -> AsyncGenerator[Mail, None]:
        """Yield every state of a mail of this process, until it settles or goes on in another one."""
        states: asyncio.Queue[Mail | None] = asyncio.Queue()
        if not job.settled:
            self._waiters.add_watcher(job, states)
        try:
            mail: Mail | None = job.mail
            while mail is not None:
                yield mail
                mail = None if mail.state.final else await states.get()
        finally:
            self._waiters.remove_watcher(job, states)

    async def cancel(self, caller: Caller, mail_id: str = "", *, request_id: str = "") -> Mail:
        """Cancel a mail that has not been handed to the relay. Cancelling it twice is no error.

        Raises as `get` does, and FailedPrecondition when it is with the relay or has settled otherwise.
        """
        found = await self._find(caller, mail_id, request_id)
        if isinstance(found, Job) and not found.settled:
            self._lifecycle.cancel(found)
            return found.mail
        mail: Mail | None = found.mail if isinstance(found, Job) else found
        if mail is not None and not mail.state.final:  # another process has it
            mail = await self._store.cancel(caller.name, mail.id)
            if mail is not None and not mail.state.final:  # this one has, meanwhile
                mail = self._cancel_taken_over(mail)
        if mail is None:
            raise not_found()
        if mail.state is not MailState.CANCELLED:
            raise FailedPrecondition(f"the mail has settled: {mail.state.name}")
        return mail

    def _cancel_taken_over(self, mail: Mail) -> Mail:
        job = self._lifecycle.find(mail.id)
        if job is None:
            raise Unavailable("the mail is being taken over")
        self._lifecycle.cancel(job)
        return job.mail

    async def _find(self, caller: Caller, mail_id: str, request_id: str) -> Job | Mail:
        """Return that caller's job, or a mail that has settled or that another process has. Raises as `get` does."""
        if bool(mail_id) is bool(request_id):
            raise InvalidArgument("id", "exactly one of id and request_id must be given")
        found = await (self._by_request_id(caller, request_id) if request_id else self._by_id(caller, mail_id))
        if found is None:
            raise not_found()
        return found

    async def _by_id(self, caller: Caller, mail_id: str) -> Job | Mail | None:
        check_mail_id(mail_id)
        await self._backlog.recall(mail_id)
        job = self._lifecycle.find(mail_id)
        if job is not None and job.caller == caller.name:
            return job
        mail = await self._store.get(caller.name, mail_id)
        if mail is None or mail.state.final:
            return mail
        # Meanwhile a mail of an earlier process may have been taken up, and have settled.
        return self._lifecycle.find(mail_id) or await self._store.get(caller.name, mail_id)

    async def _by_request_id(self, caller: Caller, request_id: str) -> Job | Mail | None:
        check_request_id(request_id)
        return await self._idempotency.find(caller.name, request_id)


def check_mail_id(mail_id: str, field: str = "id") -> None:
    """Raise InvalidArgument for a text that is no mail's id."""
    if len(mail_id) > MAX_MAIL_ID:
        raise InvalidArgument(field, f"is longer than {MAX_MAIL_ID} characters")


def not_found() -> NotFound:
    """Return the error for a mail that this caller does not have, or that is forgotten."""
    return NotFound("there is no such mail, or it settled too long ago")
