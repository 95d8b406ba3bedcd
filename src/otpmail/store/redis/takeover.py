"""Takes over the mails of replicas whose lease has ended, urgent ones first."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

from otpmail.counts import counted
from otpmail.errors import Unavailable
from otpmail.store.redis.lease import Step
from otpmail.store.redis.reader import REPLY_OCTETS
from otpmail.store.redis.replica import Replica
from otpmail.store.redis.replies import PAUSE_SECONDS
from otpmail.store.redis.resp import Value
from otpmail.store.redis.script import Script

_log = logging.getLogger("otpmail")

_FENCE = Script.load("mails", "mail_fence")
_TAKE = Script.load("mails", "mail_take")

_SLICE = 100

ResultT = TypeVar("ResultT")

Taken = tuple[str, int, bytes, bytes | None, bool]
"""A mail's id, its score, its octets and progress, and whether it is orphaned (`store.base.Entry`)."""

Take = Callable[[str, Sequence[Taken]], None]
"""Takes up mails that this replica has under a name from now on."""


class TakeOver:
    """Moves the mails of one replica after the other to this one, and hands each slice of them to `take`."""

    def __init__(self, replica: Replica, take: Take) -> None:
        self._client, self._keys, self._lease = replica.client, replica.keys, replica.lease
        self._reader = replica.reader
        self._take_up = take
        self._ended: dict[str, None] = {}
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<TakeOver of {len(self._ended)} owners>"

    def begin(self, owners: Iterable[str]) -> None:
        """Take over the mails of these owners, unless that has begun."""
        self._ended |= dict.fromkeys(owners)
        if self._task is None and self._ended:
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(self._finished)

    async def stop(self) -> None:
        """Take over nothing more. Mails that were moved already are this replica's."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _finished(self, task: "asyncio.Task[None]") -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            context = {"message": "mails of another replica could not be taken over", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)

    async def _run(self) -> None:
        while self._ended:
            owner = next(iter(self._ended))
            moved = await self._take_all(owner)
            self._ended.pop(owner, None)
            if moved:
                _log.info(
                    "%s taken over from a replica that has ended",
                    counted(moved, "mail"),
                    extra={"event": "mails-taken-over", "fields": {"mails": moved, "owner": owner}},
                )

    async def _take_all(self, owner: str) -> int:
        moved = 0
        while mails := await self._fence(owner):
            moved += await self._take(owner, mails)
        return moved

    async def _fence(self, owner: str) -> list[bytes]:
        """Take the owner's lease for good, and return the ids of its first mails; none if it is alive, or has none."""
        keys = self._keys

        async def ask(name: str, epoch: str) -> list[Any]:
            """Run the script in the name of our lease."""
            names = (keys.epoch, keys.owners, keys.own(owner), keys.cancels(owner))
            answer: list[Any] = await self._client.run(_FENCE, names, (epoch, name, owner, _SLICE))
            return answer

        step = await _until_answered(lambda: self._lease.run(ask))
        return step.answer

    async def _take(self, owner: str, mails: Sequence[bytes]) -> int:
        """Move the first of these mails to this replica, and return how many these were."""
        keys = self._keys
        records = [keys.mail(mail_id.decode()) for mail_id in mails]

        async def ask(name: str, epoch: str) -> list[Any]:
            """Run the script in the name of our lease."""
            names = (keys.epoch, keys.owners, keys.own(owner), keys.own(name), *records)
            words: list[Value] = [epoch, name, owner, *mails]
            answer: list[Any] = await self._client.run(_TAKE, names, words, reply_octets=REPLY_OCTETS)
            return answer

        step: Step = await _until_answered(lambda: self._lease.run(ask))
        taken = [one for mail in step.answer if (one := await self._read(*mail)) is not None]
        if taken and step.name == self._lease.name:  # otherwise they are another replica's by now
            self._take_up(step.name, taken)
        self._lease.counted(step.sent, step.total, len(step.answer))  # once they are held, and so written again
        return len(taken)

    async def _read(
        self, mail_id: bytes, score: bytes, octets: bytes | int | None, progress: bytes | None, orphaned: bytes | None
    ) -> Taken | None:
        """Return a mail that was moved, and read a large one, of which its size is known; None where it is gone."""
        one = mail_id.decode()
        if isinstance(octets, int):
            kept = await _until_answered(lambda: self._reader.kept(one))
            return None if kept is None else (one, int(float(score)), *kept)
        return None if octets is None else (one, int(float(score)), octets, progress, orphaned is not None)


async def _until_answered(ask: Callable[[], Awaitable[ResultT]]) -> ResultT:
    """Ask until the server has answered, also where an answer was lost: each step is idempotent."""
    while True:
        try:
            return await ask()
        except Unavailable:
            await asyncio.sleep(PAUSE_SECONDS)
