"""Forgets settled mails: their records end by themselves, the indexes of them are swept."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from otpmail.errors import StoreError, Unavailable
from otpmail.store.levels import level
from otpmail.store.redis.foreign import ForeignMails
from otpmail.store.redis.replica import Replica
from otpmail.store.redis.replies import StoreRefuses
from otpmail.store.redis.script import Script
from otpmail.store.retention import Retention

_FORGET = Script.load("mail_content", "mail_forget")
_TRIM = Script.load("mail_content", "mail_trim")
_CALLERS = Script.load("mail_callers")
_SLICE = 200
_LOOKED_AT = 200  # mails of which the callers are asked for at a time: a millisecond of the loop


class Forgetting:
    """Forgets what is past its time on the server, and the oldest beyond a bound. Every replica does so.

    `retention` says how many settled mails there are at most, without a request id and with one, and how large the
    contents for retries are. It does no harm if another replica has forgotten a mail already.
    """

    def __init__(self, replica: Replica, foreign: ForeignMails, retention: Retention) -> None:
        self._client, self._keys = replica.client, replica.keys
        self._foreign = foreign
        self._most, self._most_requests = retention.count, retention.request_count
        self._most_octets = retention.octets
        self._making_room: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Forgetting beyond {self._most} mails, {self._most_octets} octets>"

    async def forget_ended(self) -> None:
        """Forget mails and contents past their time, and the oldest ones beyond their bounds.

        Raises Unavailable, and StoreError where the server's user lacks a right, which nothing else would show.
        """
        try:
            await self._forget_ended()
        except StoreRefuses as refusal:
            if refusal.kind != "NOPERM":
                raise
            raise StoreError(f"{refusal}; docs/stores.md has the rights that it needs") from refusal

    async def _forget_ended(self) -> None:
        keys, now = self._keys, await self._now()
        for times in (keys.remembering, keys.answering):
            await self._client.command("ZREMRANGEBYSCORE", times, "-inf", now)
        for index, bound in ((keys.settled, self._most), (keys.answered, self._most_requests)):
            await self._client.command("ZREMRANGEBYSCORE", index, "-inf", now)
            if await self._client.command("ZCARD", index) > bound:
                await self._forget_excess(index, bound)
        while ended := await self._client.command(
            *("ZRANGEBYSCORE", keys.contents, "-inf", now, "LIMIT", 0, _SLICE),
        ):
            await self._trim(ended)
        if await self._octets() > self._most_octets:
            await self.make_room()

    async def _forget_excess(self, index: bytes, bound: int) -> None:
        """Forget the oldest mails of callers with more than their share, until the index has as many as it may.

        Mails that an earlier version has written count as those of one caller.
        """
        counts: Counter[bytes] = Counter()
        while mails := await self._slice(index, counts.total()):
            counts.update([caller for _, caller in mails])
        least, passed = level(counts.values(), bound), 0
        while mails := await self._slice(index, passed):
            excess = await self._client.command("ZCARD", index) - bound
            gone: list[str] = []
            for mail_id, caller in mails:
                if counts[caller] > least and len(gone) < excess:
                    counts[caller] -= 1
                    gone.append(mail_id)
            for start in range(0, len(gone), _SLICE):
                await self._forget(index, gone[start : start + _SLICE])
            if excess <= len(gone):
                return
            passed += len(mails) - len(gone)

    async def _slice(self, index: bytes, start: int) -> list[tuple[str, bytes]]:
        """Return the ids of mails in an index, the oldest first, and digests of their callers."""
        found = await self._client.command("ZRANGE", index, start, start + _LOOKED_AT - 1)
        mail_ids: list[str] = [mail_id.decode() for mail_id in found]
        callers: list[bytes] = await self._client.run(_CALLERS, [self._keys.mail(one) for one in mail_ids], ())
        return list(zip(mail_ids, callers, strict=True))

    async def make_room(self) -> None:
        """Forget the oldest contents, until half of their room is free for the next ones. Raises Unavailable."""
        while (excess := await self._octets() - self._most_octets // 2) > 0:
            oldest: list[bytes] = []
            for member in await self._client.command("ZRANGE", self._keys.contents, 0, _SLICE - 1):
                if excess > 0:
                    oldest.append(member)
                    excess -= int(member.rpartition(b":")[2])
            if not oldest:
                return
            await self._trim(oldest)

    def begin_making_room(self) -> None:
        """Make room behind the caller, since the server has none for the next content."""
        if self._making_room is None or self._making_room.done():
            self._making_room = asyncio.create_task(self._try_to_make_room())

    async def close(self) -> None:
        """Make no more room."""
        if self._making_room is not None:
            self._making_room.cancel()
            await asyncio.gather(self._making_room, return_exceptions=True)

    async def _try_to_make_room(self) -> None:
        with suppress(Unavailable, StoreError):  # the next content without room begins it again, and sweeps log it
            await self.make_room()

    async def _octets(self) -> int:
        return int(await self._client.command("GET", self._keys.content_octets) or 0)

    async def _now(self) -> int:
        """Return the server's time in milliseconds."""
        seconds, microseconds = await self._client.command("TIME")
        return 1000 * int(seconds) + int(microseconds) // 1000

    async def _trim(self, members: Sequence[bytes]) -> None:
        keys = self._keys
        names = [keys.contents, keys.content_octets]
        words: list[bytes] = []
        for mail_id, _, size in (member.rpartition(b":") for member in members):
            names.append(keys.mail(mail_id.decode()))
            words += (mail_id, size)
        await self._client.run(_TRIM, names, words)

    async def _forget(self, index: bytes, mail_ids: list[str]) -> None:
        keys, requests = self._keys, await self._foreign.requests(mail_ids)
        names = [index, keys.contents, keys.content_octets]
        for mail_id in mail_ids:
            record = keys.mail(mail_id)
            names += (record, requests.get(mail_id, record))
        await self._client.run(_FORGET, names, mail_ids)
