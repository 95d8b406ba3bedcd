"""Takes over the mails of replicas whose lease has ended, urgent ones first."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from otpmail.errors import Unavailable
from otpmail.store.redis.client import Client
from otpmail.store.redis.keys import Keys
from otpmail.store.redis.lease import Lease
from otpmail.store.redis.replies import PAUSE_SECONDS, AnswerLost
from otpmail.store.redis.script import Script

_log = logging.getLogger("otpmail")

_FENCE = Script.load("mails", "mail_fence")
_TAKE = Script.load("mails", "mail_take")

_SLICE = 100
_REPLY_OCTETS = 1 << 20  # of mail_take.lua, unless its first mail alone is larger
_LARGEST_REPLY = 256 << 20

Taken = tuple[str, int, bytes, bytes | None, bool]
"""A mail's id, its score, its octets and progress, and whether it is orphaned (`store.base.Entry`)."""


class TakeOver:
    """Moves the mails of one replica after the other to this one, and calls `taken` with each slice of them.

    `taken` gets the name under which this replica has them.
    """

    def __init__(self, client: Client, keys: Keys, lease: Lease, taken: Callable[[str, Sequence[Taken]], None]) -> None:
        self._client = client
        self._keys = keys
        self._lease = lease
        self._taken = taken
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
        """Take over nothing more. What was moved already is this replica's."""
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
                    "%d mails taken over from a replica that has ended",
                    moved,
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
        return await self._ask(_FENCE, (keys.own(owner), keys.cancels(owner)), (owner, _SLICE))

    async def _take(self, owner: str, mails: Sequence[bytes]) -> int:
        keys = self._keys
        records = [keys.mail(mail_id.decode()) for mail_id in mails]
        name = ""

        def names() -> tuple[bytes, ...]:
            nonlocal name
            name = self._lease.name
            return (keys.own(owner), keys.own(name), *records)

        found = await self._ask(_TAKE, names, (owner, *mails))
        taken = [
            (mail_id.decode(), int(float(score)), octets, progress, orphaned is not None)
            for mail_id, score, octets, progress, orphaned in found
            if octets is not None
        ]
        if taken:
            self._taken(name, taken)
        return len(taken)

    async def _ask(
        self, script: Script, names: Sequence[bytes] | Callable[[], Sequence[bytes]], words: Sequence[Any]
    ) -> list[Any]:
        """Run the script until the server has answered, also where an answer was lost."""
        keys, lease, octets = self._keys, self._lease, _REPLY_OCTETS
        while True:
            name, epoch = lease.name, lease.epoch
            own = names() if callable(names) else names
            try:
                answer: list[Any]
                status, *answer = await self._client.run(
                    script, (keys.epoch, keys.owners, *own), (epoch, name, *words), reply_octets=octets
                )
                if status == b"OK":
                    return answer
                await lease.recover(name, epoch)
            except Unavailable as error:
                if isinstance(error, AnswerLost):  # a large mail may need more time
                    octets = min(2 * octets, _LARGEST_REPLY)
                await asyncio.sleep(PAUSE_SECONDS)
