"""Takes decisions back whose answers were lost, or whose calls were cancelled: no mail is sent for them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

from otpmail.code_record import CALL
from otpmail.errors import LimitExceeded, StoreError, Unavailable
from otpmail.model import Sending
from otpmail.store.challenges import Send
from otpmail.store.patience import LONGEST_SECONDS, until_up
from otpmail.store.redis.replies import AnswerLost
from otpmail.store.redis.resp import Value

TakeBack = Callable[[bytes, tuple[Value, Value, Value], Sequence[bytes], bytes], Awaitable[bool]]
"""Takes a mail of a record back: by its key, what `code_unsend.lua` finds the mail by, and where else it counts.

These are the keys of limits over many addresses, and that of a mailbox. Returns whether the record knew the mail.
"""

Unless = Callable[[], Awaitable[bool]]
"""Returns whether the mail of a decision is sent all the same."""

_RETRY_SECONDS = 0.25
_LATE_SECONDS = 0.05  # that a call on another connection may be later than its withdrawal
_CLOSE_SECONDS = 1.0
_WAIT_SECONDS = 0.5  # that a caller waits for an answer: it may ask another replica next


class Withdrawals:
    """The tasks that take back what calls have changed in a record, again for as long as the server is down."""

    def __init__(self, take_back: TakeBack) -> None:
        self._take_back = take_back
        self._tasks: dict[bytes, set[asyncio.Task[None]]] = {}

    def __repr__(self) -> str:
        return f"<Withdrawals {len(self._tasks)} under way>"

    async def withdraw(self, send: Send, unless: Unless | None = None) -> None:
        """Take back what a call without an answer may have changed, unless its mail is sent all the same.

        It goes on behind this call while the server is down.
        """
        await self._begin(send.key, partial(self._withdraw, send), unless)

    async def leave(self, send: Send, decided: Callable[[], Awaitable[Sending]]) -> None:
        """Take back what the step of a cancelled call changes, once it is `decided`. It goes on behind this call."""
        await self._begin(send.key, partial(self._leave, send, decided))

    async def unsend(self, key: bytes, sending: Sending) -> None:
        """Take back the mail of a decision. Raises Unavailable."""
        await self._take_back(key, ("unsend", *_words(sending)), sending.counted, sending.mailbox)

    async def refuse(self, key: bytes, sending: Sending) -> None:
        """End the challenge of a mail that was refused. Raises Unavailable."""
        await self._take_back(key, ("refuse", *_words(sending)), (), b"")

    async def wait_for(self, key: bytes, *, seconds: float | None = None) -> None:
        """Wait for what is under way about a record, `seconds` at most."""
        if key in self._tasks:
            await asyncio.wait(self._tasks[key], timeout=seconds)

    async def close(self) -> None:
        """Finish what is under way, in a second or so."""
        tasks = [task for some in self._tasks.values() for task in some]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_CLOSE_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _begin(self, key: bytes, undo: Callable[[], Awaitable[bool]], unless: Unless | None = None) -> None:
        task = asyncio.create_task(_run(undo, unless))
        self._tasks.setdefault(key, set()).add(task)
        task.add_done_callback(lambda _: self._ended(key, task))
        await self.wait_for(key, seconds=_WAIT_SECONDS)

    async def _withdraw(self, send: Send) -> bool:
        return await self._take_back(send.key, ("withdraw", send.fresh.id[CALL], ""), send.counted, send.mailbox)

    async def _leave(self, send: Send, decided: Callable[[], Awaitable[Sending]]) -> bool:
        try:
            sending = await decided()
        except LimitExceeded:
            return True
        except Unavailable:  # the step may have been taken all the same
            return await self._withdraw(send)
        await self.unsend(send.key, sending)
        return True

    def _ended(self, key: bytes, task: "asyncio.Task[None]") -> None:
        self._tasks[key].discard(task)
        if not self._tasks[key]:
            del self._tasks[key]


def _words(sending: Sending) -> tuple[bytes, float]:
    return sending.challenge.id, sending.next_send


async def until_answered(step: Callable[[], Awaitable[object]]) -> None:
    """Take a step that has a mark on the server, and ask again for a minute while its answer is lost.

    Raises Unavailable where the server has not taken it.
    """
    may_be_taken = False
    with suppress(TimeoutError):
        async with asyncio.timeout(LONGEST_SECONDS):
            while True:
                try:
                    await step()
                except AnswerLost:
                    may_be_taken = True
                except Unavailable:
                    if not may_be_taken:
                        raise
                else:
                    return
                await asyncio.sleep(_RETRY_SECONDS)


async def _run(undo: Callable[[], Awaitable[bool]], unless: Unless | None) -> None:
    with suppress(TimeoutError, StoreError):
        async with asyncio.timeout(LONGEST_SECONDS):
            if unless is not None and await unless():
                return
            if not await until_up(undo, pause=_RETRY_SECONDS):
                await asyncio.sleep(_LATE_SECONDS)
                await until_up(undo, pause=_RETRY_SECONDS)
