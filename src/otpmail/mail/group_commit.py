"""Group commit: the guaranteed mails that single calls bring in one turn of the loop share one commit of the store."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from contextvars import Context
from typing import Any, NamedTuple

from otpmail.delivery.job import Job
from otpmail.errors import CallerError
from otpmail.store.base import Accepted, Conflict, Earlier, Running

Answer = Accepted | Earlier | Running | Conflict
Answered = tuple[Answer, Job | CallerError]
"""The store's answer about a mail, and its job, or the error for its caller."""

_TOGETHER = 100  # mails in one commit: a millisecond of the loop to submit them
_TOGETHER_OCTETS = 1 << 20


class Member(NamedTuple):
    """A mail of a group, and the future that its call awaits: cancelled with the call."""

    job: Job
    fingerprint: bytes
    answer: "asyncio.Future[Answered]"

    def __repr__(self) -> str:
        return f"<Member {self.job!r}>"


class _Group:
    """The mails of one commit, and the task that has them kept."""

    __slots__ = ("members", "octets", "task")

    def __init__(self) -> None:
        self.members: list[Member] = []
        self.octets = 0
        self.task: asyncio.Task[None]

    def __repr__(self) -> str:
        return f"<_Group {len(self.members)} mails, {self.octets} octets>"


class GroupCommit:
    """Gathers mails into groups, and has each of them kept by `commit`, which answers its members.

    A group takes mails until its task begins, or until it is full. The task ends with the store's answer, and nobody
    cancels it. An error of `commit` is that of every member without an answer.

    Its whole state: the group that is `_open`, and the tasks of all groups without an answer.
    """

    def __init__(self, commit: Callable[[Sequence[Member]], Coroutine[Any, Any, None]]) -> None:
        self._commit = commit
        self._open: _Group | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        gathered = 0 if self._open is None else len(self._open.members)
        return f"<GroupCommit {gathered} gathered, {len(self._tasks)} groups without an answer>"

    async def join(self, job: Job, fingerprint: bytes) -> Answered:
        """Have a mail kept with the others of this turn of the loop. Raises what `commit` raises.

        A call that is cancelled ends once its group has its answer: only then its request id and its place are free.
        Where the answer was there already, the cancellation comes too late: the mail goes out.
        """
        group = self._open or self._begin()
        member = Member(job, fingerprint, asyncio.get_running_loop().create_future())
        group.members.append(member)
        group.octets += len(job.envelope.content)
        if len(group.members) >= _TOGETHER or group.octets >= _TOGETHER_OCTETS:
            self._open = None
        try:
            return await member.answer
        except asyncio.CancelledError:
            if member.answer.done() and not member.answer.cancelled():
                return member.answer.result()
            await wait_for_end(group.task)
            raise

    def _begin(self) -> _Group:
        group = self._open = _Group()
        # In a context of its own: no line that the store logs meanwhile is about the first call of the group.
        group.task = asyncio.create_task(self._run(group), context=Context())
        self._tasks.add(group.task)
        group.task.add_done_callback(self._tasks.discard)
        return group

    async def _run(self, group: _Group) -> None:
        if self._open is group:
            self._open = None
        try:
            await self._commit(group.members)
        except Exception as error:  # noqa: BLE001  the callers' to handle
            for member in group.members:
                if not member.answer.done():
                    member.answer.set_exception(error)


async def wait_for_end(task: "asyncio.Future[Any]") -> None:
    """Wait until a task has ended, also where this one is cancelled again meanwhile. The loop's end cancels both."""
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait((task,))
