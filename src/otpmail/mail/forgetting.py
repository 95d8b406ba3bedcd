"""Erases what is kept of a person from the mails of a caller."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from functools import partial

from otpmail.address import Address
from otpmail.callers import Caller
from otpmail.cooperate import TURN_SECONDS
from otpmail.delivery.backlog import Backlog
from otpmail.delivery.job import Job
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.delivery.waiters import Outcome, Waiters
from otpmail.errors import FailedPrecondition, Unavailable
from otpmail.mail.turns import Turns
from otpmail.model import Mail
from otpmail.store.base import MailStore
from otpmail.store.erasing import person_of

_LONGEST_SECONDS = 60.0  # for which a store may be down until the person is erased from a mail that has settled


class Forgetting:
    """Ends the open mails of a person, and erases the person from settled ones. Build it inside a running loop."""

    def __init__(
        self, store: MailStore, lifecycle: Lifecycle, backlog: Backlog, waiters: Waiters, turns: Turns
    ) -> None:
        self._store = store
        self._lifecycle = lifecycle
        self._backlog = backlog
        self._waiters = waiters
        self._give_way, self._clock = turns.wait, turns.clock
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Forgetting, {len(self._tasks)} to come>"

    async def forget(self, caller: Caller, address: Address) -> int:
        """Cancel that caller's open mails to an address alone, and erase it from settled ones; returns from how many.

        Mails that the relay may have, or that go to others too, go on; the address is erased from them once they
        settle in this process, or in another one that lives. Raises Unavailable, and has done a part then.
        """
        key, person = address.key, person_of(caller.name, address.spec)
        await self._recall(caller.name, key)
        jobs = [job for job in await self._jobs(caller.name, key) if not self._was_cancelled(job, key)]
        mails = [
            mail for mail in await self._foreign(caller.name, key) if not await self._was_cancelled_there(mail, key)
        ]
        if jobs or mails:
            task = asyncio.create_task(self._erase_later(person, [self._end_of(job) for job in jobs], mails))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await self._store.erase(person)

    async def close(self) -> None:
        """Wait for no more mails."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _recall(self, caller: str, key: str) -> None:
        """Take up the mails that wait in the store, so that they are jobs."""
        async for waiting in self._backlog.jobs():
            for job in waiting:
                if job.caller == caller and _has(job.envelope.recipients, key):
                    await self._backlog.recall(job.id)
            await self._give_way()

    async def _jobs(self, caller: str, key: str) -> list[Job]:
        found: list[Job] = []
        ends = self._clock() + TURN_SECONDS
        for job in list(self._lifecycle.jobs.values()):
            if job.caller == caller and _has(job.envelope.recipients, key):
                found.append(job)
            if self._clock() >= ends:
                await self._give_way()
                ends = self._clock() + TURN_SECONDS
        return found

    async def _foreign(self, caller: str, key: str) -> list[Mail]:
        """Return the open mails that other processes have."""
        found: list[Mail] = []
        async for some in self._store.remembered():
            for mail in some:
                if not mail.state.final and mail.caller == caller and self._lifecycle.find(mail.id) is None:
                    found += [mail] if _has([one.address for one in mail.recipients], key) else []
            await self._give_way()
        return found

    def _was_cancelled(self, job: Job, key: str) -> bool:
        if not job.settled and _is_alone(job.envelope.recipients, key):
            with suppress(FailedPrecondition):
                self._lifecycle.cancel(job)
        return job.settled

    async def _was_cancelled_there(self, mail: Mail, key: str) -> bool:
        if not _is_alone([one.address for one in mail.recipients], key):
            return False
        try:
            ended = await self._store.cancel(mail.caller, mail.id)
        except FailedPrecondition:
            return False
        return ended is None or ended.state.final

    def _end_of(self, job: Job) -> "asyncio.Future[Outcome]":
        ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiters.add_done_callback(job, partial(_note, ended))
        return ended

    async def _erase_later(
        self, person: bytes, endings: Iterable["asyncio.Future[Outcome]"], mails: Iterable[Mail]
    ) -> None:
        """Erase the person once these mails have settled, or are in the hands of another process."""
        for ended in endings:
            await ended
        for mail in mails:
            with suppress(Unavailable):
                async for _ in self._store.watch(mail.caller, mail.id):
                    pass
        with suppress(TimeoutError):
            async with asyncio.timeout(_LONGEST_SECONDS):
                while True:
                    try:
                        await self._store.erase(person)
                    except Unavailable as error:
                        await asyncio.sleep(error.retry_after)
                    else:
                        return


def _note(ended: "asyncio.Future[Outcome]", _: Job, outcome: Outcome) -> None:
    if not ended.done():
        ended.set_result(outcome)


def _has(recipients: Iterable[str], key: str) -> bool:
    return any(Address(spec).key == key for spec in recipients)


def _is_alone(recipients: Iterable[str], key: str) -> bool:
    return all(Address(spec).key == key for spec in recipients)
