"""Mails that other replicas own, or owned: their records, states as they change, and requests to cancel them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, suppress
from typing import Any

from otpmail.errors import FailedPrecondition, StoreError, Unavailable
from otpmail.model import Mail
from otpmail.store.base import Entry
from otpmail.store.redis.announcements import KEPT_SECONDS, Announcements
from otpmail.store.redis.records import Claim, Record, microseconds
from otpmail.store.redis.replica import Replica
from otpmail.store.redis.script import Script
from otpmail.store.wanted import Wanted

_CANCEL = Script.load("mail_cancel")
_NEWEST = Script.load("mail_newest")

_SLICE = 50  # records at a time: their contents come with those that have not settled
SENT_ELSEWHERE = "another replica is sending this mail, and its caller waits for that: ask again"
_FIRST_LOOK, _LAST_LOOK, _LAST_LOOK_IF_ANNOUNCED = 0.1, 1.0, KEPT_SECONDS / 3
_SETTLED = 3  # where a settled mail stands among the fields of a record (mail_read.lua)
_CLOCKS = 60.0  # seconds that the clock of a replica may be ahead of the server's
_TRIES = 5  # to read the owners, which come and go
_LEASES = 3.0  # for which a request to cancel a mail is repeated: its owner may end meanwhile


class ForeignMails:
    """Reads the records of mails of any owner."""

    def __init__(self, replica: Replica, announcements: Announcements) -> None:
        self._client, self._keys, self._lease = replica.client, replica.keys, replica.lease
        self._records, self._reader, self._now = replica.records, replica.reader, replica.now
        self._announcements = announcements

    def __repr__(self) -> str:
        return f"<ForeignMails {self._client!r}>"

    async def read(self, mail_id: str) -> Record | Claim | None:
        """Return a mail's record while it is remembered. Raises Unavailable, and FailedPrecondition without its key."""
        [fields] = await self._reader.records((mail_id,))
        try:
            return self._records.open_record(mail_id, fields)
        except (StoreError, ValueError) as error:
            raise FailedPrecondition(f"the record of this mail in the store can't be read: {error}") from None

    async def get(self, caller: str, mail_id: str) -> Mail | None:
        """Return that caller's mail."""
        record = await self._read_of(caller, mail_id)
        return None if record is None else record.mail

    async def caller_of(self, mail_id: str) -> str | None:
        """Return whose mail it is. Raises Unavailable where another replica alone has its content."""
        record = await self.read(mail_id)
        if isinstance(record, Claim):
            await self._refuse_if_sent(record.request, mail_id)
            return None
        return None if record is None or record.forgotten <= self._now() else record.mail.caller

    async def watch(self, caller: str, mail_id: str) -> AsyncGenerator[Mail, None]:
        """Yield the mail whenever it changes, to its end. Raises Unavailable where the server is down at first."""
        seen: Mail | None = None
        async with aclosing(self._states(caller, mail_id)) as states:
            async for mail in states:
                if mail != seen:
                    yield (seen := mail)
                if mail.state.final:
                    return

    async def _states(self, caller: str, mail_id: str) -> AsyncGenerator[Mail, None]:
        """Yield what the mail's owner announces, and what its record says: that lags behind the owner.

        The record is looked at after 100 ms and then less often. Its owner is asked each time, since it may be another
        one by now, or its announcement may be lost. While the server is down all goes on. Where the server has lost the
        mail, the owner that still announces it is about to write it again.
        """
        announced_by, pause = "", _FIRST_LOOK
        with self._announcements.watching(mail_id) as announced:
            record = await self._read_of(caller, mail_id)
            while record is not None:
                if record.mail.state.final or record.owner != announced_by:
                    yield record.mail
                await self._announcements.ask(mail_id)
                is_announced = False
                async for mail in _until(asyncio.get_running_loop().time() + pause, announced):
                    yield mail
                    is_announced, announced_by = True, record.owner
                pause = min(2 * pause, _LAST_LOOK if announced_by != record.owner else _LAST_LOOK_IF_ANNOUNCED)
                with suppress(Unavailable):
                    record = await self._read_of(caller, mail_id) or (record if is_announced else None)

    async def cancel(self, caller: str, mail_id: str) -> Mail | None:
        """Let the mail's owner cancel it, and return it as it settled; see `store.base.MailStore.cancel`."""
        record = await self._read_of(caller, mail_id)
        ends = self._now() + _LEASES * self._lease.seconds
        denied, pause = record.denied if record is not None else "", _FIRST_LOOK
        while record is not None and not record.mail.state.final and record.owner != self._lease.name:
            if record.denied != denied:
                raise FailedPrecondition("the mail is being handed to the relay")
            if self._now() >= ends:
                raise Unavailable("the replica that owns the mail does not answer")
            await self._ask_to_cancel(mail_id, record.owner)
            await asyncio.sleep(pause)
            pause = min(_LAST_LOOK, 2 * pause)
            record = await self._read_of(caller, mail_id)
        return None if record is None else record.mail

    async def settled(self, wanted: Wanted) -> AsyncIterator[Sequence[Mail]]:
        """Yield settled mails, in slices: of each index those that end last come first."""
        for key, seconds in (
            (self._keys.settled, await self._least_remembered(self._keys.remembering)),
            (self._keys.answered, await self._least_remembered(self._keys.answering)),
        ):
            async for some in self._settled(key, seconds, wanted):
                yield some

    async def _settled(self, key: bytes, seconds: float, wanted: Wanted) -> AsyncIterator[Sequence[Mail]]:
        """Yield the mails of an index. Each ends so many `seconds` after it was accepted at the least."""
        async for mail_ids, ends in self._members(key):
            if ends / 1000 - seconds + _CLOCKS < wanted()[0]:
                return
            now = self._now()
            yield [record.mail for record in await self._read_all(mail_ids) if record.forgotten > now]

    async def _least_remembered(self, times: bytes) -> float:
        """Return the shortest time for which a mail is remembered that has not ended, by whatever replica's setting.

        It is 0 where that is not known.
        """
        seconds, _ = await self._client.command("TIME")
        found = await self._client.command("ZRANGEBYSCORE", times, 1000 * int(seconds), "+inf")
        return min(map(int, found), default=0) / 1000

    async def settled_octets(self, key: bytes) -> AsyncIterator[tuple[list[str], list[bytes | None]]]:
        """Yield the mails that an index of settled ones names as the server keeps them, None for one that is gone."""
        async for mail_ids, _ in self._members(key):
            yield mail_ids, [fields[_SETTLED] for fields in await self._reader.records(mail_ids)]

    async def settled_of(self, mail_ids: list[str]) -> AsyncIterator[tuple[str, bytes]]:
        """Yield those of some mails that have settled, as the server keeps them."""
        for mail_id, fields in zip(mail_ids, await self._reader.records(mail_ids), strict=True):
            if (octets := fields[_SETTLED]) is not None:
                yield mail_id, octets

    async def open(self, wanted: Wanted) -> AsyncIterator[Sequence[Mail]]:
        """Yield the mails that other replicas own, the newest first, in slices."""
        before = microseconds(wanted()[1])
        seen: set[str] = set()
        owners: list[bytes] = []
        while True:
            named, owners = await self._newest(before, owners)
            least = microseconds(wanted()[0])
            found = [mail_id for mail_id, time in named if mail_id not in seen and time >= least]
            if not found:
                return
            yield [record.mail for record in await self._read_all(found)]
            before = named[-1][1]
            seen = {mail_id for mail_id, time in named if time == before}

    async def _newest(self, before: int, owners: list[bytes]) -> tuple[list[tuple[str, int]], list[bytes]]:
        """Return the ids and times of mails that were accepted last, up to a time, and the owners of all there are.

        `owners` are those that were known before.
        """
        me = self._lease.name.encode()
        for _ in range(_TRIES):
            names = (self._keys.owners, *[self._keys.own(owner.decode()) for owner in owners])
            found = await self._client.run(_NEWEST, names, (before, _SLICE, me, *owners))
            if found is not None:
                return [(mail_id.decode(), int(time)) for mail_id, time in found], owners
            owners = [one for one in await self._client.command("ZRANGE", self._keys.owners, 0, -1) if one != me]
        raise Unavailable("replicas come and go: ask again")

    async def content(self, caller: str, mail_id: str) -> Entry | None:
        """Return that caller's settled mail with its content, as it settled; None where its content is not kept."""
        record = await self._read_of(caller, mail_id)
        if record is None or record.owner:
            return None
        octets = await self._reader.content(mail_id)
        entry = None if octets is None else self._records.open_entry(mail_id, octets, None)
        return entry if entry is not None and entry.mail.settle_time == record.mail.settle_time else None

    async def requests(self, mail_ids: Sequence[str]) -> dict[str, bytes]:
        """Return the keys of these mails' request ids, by mail id; those without one are left out."""
        mails = [record.mail for record in await self._read_all(mail_ids)]
        return {mail.id: self._keys.request(mail.caller, mail.request_id) for mail in mails if mail.request_id}

    async def _read_of(self, caller: str, mail_id: str) -> Record | None:
        """Return the record of that caller's mail. Raises Unavailable where another replica alone has its content."""
        record = await self.read(mail_id)
        if isinstance(record, Claim):
            if record.caller == self._keys.caller(caller):
                await self._refuse_if_sent(record.request, mail_id)
            return None
        if record is None or record.mail.caller != caller or record.forgotten <= self._now():
            return None
        return record

    async def _refuse_if_sent(self, request: bytes, mail_id: str) -> None:
        state, claimed, owner = await self._client.command("HMGET", request, "state", "mail", "own")
        is_claimed = state == b"running" and claimed == mail_id.encode()
        if is_claimed and owner != self._lease.name.encode() and await self.is_alive(owner):
            raise Unavailable(SENT_ELSEWHERE)

    async def is_alive(self, owner: bytes) -> bool:
        """Whether the lease of an owner has not ended."""
        ends, (seconds, _) = await asyncio.gather(
            self._client.command("ZSCORE", self._keys.owners, owner), self._client.command("TIME")
        )
        return owner == self._lease.name.encode() or (ends is not None and float(ends) > 1000 * int(seconds))

    async def _ask_to_cancel(self, mail_id: str, owner: str) -> None:
        keys = self._keys
        asked = int(1000 * self._lease.seconds)
        await self._client.run(_CANCEL, (keys.mail(mail_id), keys.cancels(owner)), (mail_id, owner, asked))

    async def _read_all(self, mail_ids: Sequence[str]) -> list[Record]:
        """Return what is kept of these mails; one that can't be read, as without its key, is left out."""
        records: list[Record] = []
        for mail_id, fields in zip(mail_ids, await self._reader.records(mail_ids), strict=True):
            with suppress(StoreError, ValueError):
                record = self._records.open_record(mail_id, fields)
                records += [record] if isinstance(record, Record) else []
        return records

    async def _members(self, key: bytes) -> AsyncIterator[tuple[list[str], float]]:
        """Yield the members of a sorted set in slices, the greatest scores first, with the first score of a slice.

        Those that come or go meanwhile may be left out, or come twice. Members of one score may be more than a slice,
        so a slice begins with the score at which the last one ended.
        """
        start, first = 0, "+inf"
        while True:
            found: list[Any] = await self._client.command(
                *("ZREVRANGEBYSCORE", key, first, "-inf", "WITHSCORES", "LIMIT", start, _SLICE)
            )
            scores = found[1::2]
            if not scores:
                return
            yield [mail_id.decode() for mail_id in found[::2]], float(scores[0])
            last = scores[-1].decode()
            same = sum(score == scores[-1] for score in scores)
            start = start + same if last == first else same
            first = last


async def _until(ends: float, states: "asyncio.Queue[Mail]") -> AsyncIterator[Mail]:
    """Yield what is put into a queue until a time of the loop."""
    while True:
        try:
            async with asyncio.timeout_at(ends):
                mail = await states.get()
        except TimeoutError:
            return
        yield mail
