"""Codes for ever new addresses, from ever new blocks: what their limits take of memory, and what is never forgotten."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from otpmail.errors import MemoryFull
from otpmail.model import Challenge, CheckResult
from otpmail.store.challenges import Quota, Send
from otpmail.store.memory.codes import MemoryChallengeStore
from rules import BOOK, POLICY
from store.clocks import Clock

if TYPE_CHECKING:
    from collections.abc import Callable

_LIFE = 600.0
_WITHIN = 3000.0  # seconds of the clock: the locks of an hour hold all the while
_LOCKED = 200
_MOST_RESIDENT = 1.5  # times what is allowed: 1.4 were measured
_SOME = 1 << 16  # octets that one record and its counts take at the most


class _Addresses:
    """Asks for codes, with the memory that the store may have."""

    def __init__(self, most: int) -> None:
        self.random = Random(17)
        self.clock = Clock()
        self.store = MemoryChallengeStore(self.clock, POLICY)
        self._most = most
        self.full = 0

    async def send(self, key: bytes) -> Challenge | None:
        """Ask for a code for the address of a key; None where there is no memory for it."""
        now, block = self.clock.time, Quota("block", self.random.randbytes(16), 30)
        fresh = Challenge(self.random.randbytes(16), "k1", now + _LIFE, length=6)
        room = self.store.octets < self._most
        try:
            return (await self.store.send(Send(key, now, fresh, room=room, quotas=(block,)))).challenge
        except MemoryFull:
            self.full += 1
            return None

    async def lock(self, keys: list[bytes]) -> None:
        """Try as many wrong codes at each address as it has in an hour."""
        for _ in range(POLICY.failures.per_hour // POLICY.attempts):
            for key in keys:
                challenge = await self.send(key)
                assert challenge is not None
                wrong = f"{(int(BOOK.code(challenge)) + 1) % 10**6:06d}"
                for _ in range(POLICY.attempts):
                    await self.store.check(key, self.clock.time, BOOK.guess(wrong))
            self.clock.time += POLICY.resend
        assert all([await self.is_locked(key) for key in keys])

    async def is_locked(self, key: bytes) -> bool:
        """Whether no more codes are tried there."""
        check = await self.store.check(key, self.clock.time, BOOK.guess("000000"))
        return check.result is CheckResult.TOO_MANY_ATTEMPTS


async def test_random_addresses_fill_no_memory(show: Callable[[str], None], *, full: bool) -> None:
    """Limits take the memory that they may have, however many addresses there are, and no locked one is forgotten.

    An address that had a code before the memory was full goes on, and is limited as before.
    """
    count, most = (3_000_000, 64 << 20) if full else (20_000, 2 << 20)
    addresses = _Addresses(most)
    locked = [b"locked %09d" % number for number in range(_LOCKED)]
    await addresses.lock(locked)
    before = _resident()
    for number in range(count):
        await addresses.send(addresses.random.randbytes(16))
        addresses.clock.time += _WITHIN / count
        if number % 1000 == 0:
            assert addresses.store.octets < most + _SOME
    assert addresses.full > 0
    assert addresses.store.octets < most + _SOME
    assert all([await addresses.is_locked(key) for key in locked])
    grown = _resident() - before
    show(f"{count} addresses, {addresses.full} refused, {most >> 20} MiB allowed, {grown >> 20} MiB more resident")
    if full:  # what is allowed is octets of records, and Python keeps some of what old ones have left
        assert grown < _MOST_RESIDENT * most


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGESIZE")
