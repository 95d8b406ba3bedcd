"""Notices replicas with wholly different OTP_KEYS, whose codes and mails this one can't read."""

import asyncio
import logging
from contextlib import suppress

from otpmail.errors import StoreError, Unavailable
from otpmail.store.digests import have_a_key_in_common
from otpmail.store.redis.client import Client
from otpmail.store.redis.keys import Keys
from otpmail.store.redis.script import Script
from otpmail.store.retention import REQUEST_SECONDS

_log = logging.getLogger("otpmail")

_LOOK = Script.load("key_marks")
_EVERY_SECONDS = 2.0


class KeyWatch:
    """Notes the `marks` of our keys on the server, and compares those of all replicas of the last day with them.

    That is how long codes and request ids live. There is one warning in the life of a process.
    """

    def __init__(self, client: Client, keys: Keys, marks: bytes, *, every: float = _EVERY_SECONDS) -> None:
        self._client = client
        self._name = keys.marks
        self._marks = marks
        self._every = every
        self._has_warned = False

    def __repr__(self) -> str:
        return f"<KeyWatch{', warned' * self._has_warned}>"

    async def run(self) -> None:
        """Look again and again until cancelled: another replica may start later."""
        while True:
            with suppress(Unavailable, StoreError):  # the log has that already
                await self.look()
            await asyncio.sleep(self._every)

    async def look(self) -> None:
        """Note our keys, and warn of others. Raises Unavailable."""
        others = await self._client.run(_LOOK, (self._name,), (self._marks, int(1000 * REQUEST_SECONDS)))
        if self._has_warned or all(have_a_key_in_common(self._marks, marks) for marks in others):
            return
        self._has_warned = True
        _log.warning(
            "OTP_KEYS has no key in common with that of another process which uses this store, or did in the last day. "
            "Neither can read the codes and mails of the other; give all of them the same keys",
            extra={"event": "keys-differ", "fields": {}},
        )
