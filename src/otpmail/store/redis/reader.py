"""Reads what the server keeps of mails: many in one reply, and a large one in parts."""

from collections.abc import Sequence
from typing import Any

from otpmail.errors import Unavailable
from otpmail.store.redis.client import Client
from otpmail.store.redis.keys import Keys
from otpmail.store.redis.script import Script

_READ = Script.load("mail_read")
_PART = Script.load("mail_part")

_PART_OCTETS = 256 << 10
REPLY_OCTETS = 2 * _PART_OCTETS
"""How large a reply may be: MOST octets of mail_read.lua or mail_take.lua, and one mail beyond it."""

_TRIES = 3  # at a mail that changes while it is read

Kept = tuple[bytes, bytes | None, bool]
"""The octets of an open mail, its progress, and whether it is orphaned (`store.base.Entry`)."""


class Reader:
    """Asks for replies of half a mebibyte at most, so that other calls on a slow way need not wait for them."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def __repr__(self) -> str:
        return f"<Reader {self._client!r}>"

    async def records(self, mail_ids: Sequence[str]) -> list[list[Any]]:
        """Return the fields of mails, as `Records.open_record` takes them. Raises Unavailable."""
        found: list[list[Any]] = []
        while len(found) < len(mail_ids):
            keys = [self._keys.mail(mail_id) for mail_id in mail_ids[len(found) :]]
            reply: list[list[Any]] = await self._client.run(_READ, keys, reply_octets=REPLY_OCTETS)
            for mail_id, fields in zip(mail_ids[len(found) :], reply, strict=False):
                if isinstance(fields[-1], int):  # it was kept by a version that writes no heads
                    fields[-1] = await self.whole(mail_id, "entry", fields[-1]) or None
                found.append(fields)
        return found

    async def kept(self, mail_id: str) -> Kept | None:
        """Return an open mail; None where it is open no more. Raises Unavailable."""
        key = self._keys.mail(mail_id)
        for _ in range(_TRIES):
            size = await self._client.command("HSTRLEN", key, "entry")
            octets = await self.whole(mail_id, "entry", size)
            if len(octets) == size:
                progress, orphaned = await self._client.command("HMGET", key, "progress", "orphaned")
                return (octets, progress, orphaned is not None) if size else None
        raise Unavailable("the mail has just changed")

    async def content(self, mail_id: str) -> bytes | None:
        """Return the content of a settled mail that may be retried, None where it is not kept. Raises Unavailable."""
        size = await self._client.command("HSTRLEN", self._keys.mail(mail_id), "content")
        octets = await self.whole(mail_id, "content", size)
        return octets if octets and len(octets) == size else None

    async def whole(self, mail_id: str, field: str, size: int) -> bytes:
        """Return a field of a mail's record; fewer octets than its `size` where it has changed meanwhile."""
        parts: list[bytes] = []
        for start in range(0, size, _PART_OCTETS):
            words = (field, start + 1, start + _PART_OCTETS)
            parts.append(await self._client.run(_PART, (self._keys.mail(mail_id),), words, reply_octets=_PART_OCTETS))
        return b"".join(parts)
