"""The mails of a stream that a store is to keep, also where the stream ends meanwhile."""

import asyncio
from typing import cast

from otpmail.mail.accepting import Accepting
from otpmail.mail.keeping import Prepared


async def test_mails_of_a_stream_that_ends_at_once_are_given_up() -> None:
    """A group that is handed over in the turn in which the stream ends frees what its mails hold."""
    freed: list[Prepared] = []

    async def keep(group: list[Prepared]) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            freed.extend(group)

    idle = asyncio.Event()
    accepting = Accepting(keep, freed.append, idle.set)
    accepting.add(prepared := cast("Prepared", object()))
    accepting.keep()
    accepting.cancel()
    async with asyncio.timeout(30):
        await idle.wait()
    assert freed == [prepared]
    assert repr(accepting) == "<Accepting 0 gathered, 0 being kept, 0 tasks>"
