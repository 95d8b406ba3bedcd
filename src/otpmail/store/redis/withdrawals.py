"""Takes decisions back whose answers were lost: no mail is sent for them, so the next one need not wait."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from otpmail.errors import StoreError, Unavailable

Withdraw = Callable[[bytes, bytes], Awaitable[bool]]
"""Takes back what a call has changed, and returns whether it has changed anything."""

_RETRY_SECONDS = 0.25
_LATE_SECONDS = 0.05  # by which a call on another connection may reach the server behind its withdrawal
_LONGEST_SECONDS = 60.0  # for which a server may be down; the next mail has to wait its time then
_CLOSE_SECONDS = 1.0


class Withdrawals:
    """Calls `withdraw` with the key of a record and the mark of a call, again for as long as the server is down."""

    def __init__(self, withdraw: Withdraw) -> None:
        self._withdraw = withdraw
        self._tasks: dict[bytes, set[asyncio.Task[None]]] = {}

    def __repr__(self) -> str:
        return f"<Withdrawals {len(self._tasks)} under way>"

    def begin(self, key: bytes, call: bytes, unless: Callable[[], Awaitable[bool]] | None = None) -> None:
        """Withdraw what that call has changed, unless `unless` says that its mail is sent all the same."""
        task = asyncio.create_task(self._run(key, call, unless))
        self._tasks.setdefault(key, set()).add(task)
        task.add_done_callback(lambda _: self._ended(key, task))

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

    async def _run(self, key: bytes, call: bytes, unless: Callable[[], Awaitable[bool]] | None) -> None:
        with suppress(TimeoutError, StoreError):
            async with asyncio.timeout(_LONGEST_SECONDS):
                if unless is not None and await unless():
                    return
                if not await self._once(key, call):
                    await asyncio.sleep(_LATE_SECONDS)
                    await self._once(key, call)

    async def _once(self, key: bytes, call: bytes) -> bool:
        while True:
            try:
                return await self._withdraw(key, call)
            except Unavailable:
                await asyncio.sleep(_RETRY_SECONDS)

    def _ended(self, key: bytes, task: asyncio.Task[None]) -> None:
        self._tasks[key].discard(task)
        if not self._tasks[key]:
            del self._tasks[key]
