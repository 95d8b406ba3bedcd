"""Erases what is kept of a person from the mails of a caller."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from otpmail.address import Address
from otpmail.callers import Caller
from otpmail.cooperate import TURN_SECONDS
from otpmail.delivery.backlog import Backlog
from otpmail.delivery.job import Job
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.errors import FailedPrecondition, Stopping
from otpmail.mail.turns import Turns
from otpmail.model import DAY, Mail
from otpmail.store.base import MailStore
from otpmail.store.erasing import person_of


class _Run:
    """The task that forgets a person, and how many calls wait for it."""

    __slots__ = ("calls", "task")

    def __init__(self, task: "asyncio.Task[int]") -> None:
        self.task = task
        self.calls = 0


class Forgetting:
    """Ends the open mails of a person, and erases the person from settled ones. Build it inside a running loop.

    A mail may be open for `most_seconds`. `_running` are the persons who are being forgotten: a further call for one of
    them shares the run. A run whose calls have all gone is cancelled, and no later call shares it. `_tasks` also has
    the runs that were cancelled and have not ended yet.
    """

    def __init__(
        self, store: MailStore, lifecycle: Lifecycle, backlog: Backlog, turns: Turns, *, most_seconds: float
    ) -> None:
        self._store = store
        self._lifecycle = lifecycle
        self._backlog = backlog
        self._give_way, self._clock = turns.wait, turns.clock
        self._most_seconds = most_seconds
        self._running: dict[bytes, _Run] = {}
        self._tasks: set[asyncio.Task[int]] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Forgetting {len(self._running)} persons>"

    async def forget(self, caller: Caller, address: Address) -> int:
        """Cancel that caller's open mails to an address alone, and erase it from settled ones; returns from how many.

        Mails that the relay may have, or that go to others too, go on. They settle without the address, whichever
        process sends them. Raises Unavailable, and has done a part then.
        """
        if self._closed:
            raise Stopping
        person = person_of(caller.name, address.spec)
        run = self._running.get(person) or self._begin(caller.name, address.key, person)
        run.calls += 1
        try:
            return await asyncio.shield(run.task)
        except asyncio.CancelledError:
            if self._closed and run.task.cancelled():
                raise Stopping from None
            raise
        finally:
            run.calls -= 1
            if not run.calls:
                self._end(person, run)
                run.task.cancel()

    async def close(self) -> None:
        """Forget nobody any more. Calls that wait raise Stopping; the store keeps the notes that it has of persons."""
        self._closed = True
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, caller: str, key: str, person: bytes) -> _Run:
        task = asyncio.create_task(self._forget(caller, key, person))
        run = self._running[person] = _Run(task)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._end(person, run))
        return run

    def _end(self, person: bytes, run: _Run) -> None:
        """Let no further call share a run. Another run for that person goes on."""
        if self._running.get(person) is run:
            del self._running[person]

    async def _forget(self, caller: str, key: str, person: bytes) -> int:
        await self._store.begin_forgetting(caller, person, self._store.now() + self._most_seconds + DAY)
        await self._recall(caller, key)
        cancelled = sum([self._was_cancelled(job, key) for job in await self._jobs(caller, key)])
        for mail in await self._foreign(caller, key):
            await self._cancel_there(mail, key)
        return cancelled + await self._store.erase(person)

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
        if job.settled or not _is_alone(job.envelope.recipients, key):
            return False
        with suppress(FailedPrecondition):
            self._lifecycle.cancel(job)
        return job.settled

    async def _cancel_there(self, mail: Mail, key: str) -> None:
        if _is_alone([one.address for one in mail.recipients], key):
            with suppress(FailedPrecondition):
                await self._store.cancel(mail.caller, mail.id)


def _has(recipients: Iterable[str], key: str) -> bool:
    return any(Address(spec).key == key for spec in recipients)


def _is_alone(recipients: Iterable[str], key: str) -> bool:
    return all(Address(spec).key == key for spec in recipients)
