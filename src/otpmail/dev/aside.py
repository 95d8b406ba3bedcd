"""Works on large mails in a thread, so that the calls of `otpmail dev` go on meanwhile."""

from collections.abc import Callable
from typing import TypeVar

from otpmail.threads import call_detached

ResultT = TypeVar("ResultT")

AT_ONCE = 16 << 10
"""Octets of mails that are worked on in the loop, in a few milliseconds. The mails of codes have fewer."""

_SECONDS = 120.0


async def work_on(octets: int, work: Callable[[], ResultT]) -> ResultT:
    """Return or raise what `work` does with so many octets of mails; in a thread for more than AT_ONCE."""
    if octets <= AT_ONCE:
        return work()
    return await call_detached(work, timeout=_SECONDS)
