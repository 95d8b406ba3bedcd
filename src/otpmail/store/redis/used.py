"""Challenges whose codes were used, remembered by each replica: a server that was set back may know one as live again.

The server announces each used challenge on a channel, so that a replica knows those of the others too.
"""

import asyncio
import logging
import math
import secrets
import struct
from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError

from otpmail.store.redis.client import Client
from otpmail.store.redis.dial import hang_up
from otpmail.store.redis.replies import kind_of

_log = logging.getLogger("otpmail")

_ANNOUNCEMENT = struct.Struct("<8s16sd")  # as code_check.lua packs it: who says so, which challenge, when it expires
_RETRY_SECONDS = 1.0
_MOST = 200_000
_OCTETS = 150  # of one: an id, a time, and their place in a dict


class UsedChallenges:
    """Ids of used challenges, each until its code would have expired, and the latest `most` of them at most.

    `clock` is the store's. `origin` marks what this replica has announced, and skips.
    """

    def __init__(self, clock: Callable[[], float], *, most: int = _MOST) -> None:
        self._most = most
        self.origin = secrets.token_bytes(8)
        self._clock = clock
        self._expiries: dict[bytes, float] = {}

    def __repr__(self) -> str:
        return f"<UsedChallenges {len(self._expiries)}>"

    @property
    def octets(self) -> int:
        """The memory that they take."""
        return len(self._expiries) * _OCTETS

    def add(self, challenge_id: bytes, expires: float) -> bool:
        """Remember a challenge as used; returns False if it was used before."""
        if challenge_id in self._expiries:
            return False
        self._expiries[challenge_id] = expires
        if len(self._expiries) > self._most:
            del self._expiries[next(iter(self._expiries))]
        return True

    def receive(self, announcement: bytes) -> None:
        """Remember a challenge that another replica has used."""
        if len(announcement) == _ANNOUNCEMENT.size:
            origin, challenge_id, expires = _ANNOUNCEMENT.unpack(announcement)
            if origin != self.origin:
                self.add(challenge_id, expires)

    def sweep(self) -> None:
        """Forget the challenges that have expired."""
        now = self._clock()
        self._expiries = {used: expires for used, expires in self._expiries.items() if expires > now}

    async def listen(self, client: Client, channel: bytes) -> None:
        """Hear what other replicas announce until cancelled, over a connection that is opened again when it is lost."""
        refused = False
        while True:
            try:
                await self._listen(client, channel)
            except (RedisError, OSError, TimeoutError) as error:
                if isinstance(error, RedisError) and kind_of(error) == "NOPERM" and not refused:
                    refused = True
                    _log.warning(
                        "STORE_URL: its user may not use the channel %s, on which replicas tell each other used codes",
                        channel.decode(),
                        extra={"event": "store-channel-refused", "fields": {"channel": channel.decode()}},
                    )
            await asyncio.sleep(_RETRY_SECONDS)

    async def _listen(self, client: Client, channel: bytes) -> None:
        connection = await client.connect()
        try:
            await connection.send_command("SUBSCRIBE", channel)
            while True:
                message: Any = await connection.read_response(timeout=math.inf)
                if message[0] == b"message":
                    self.receive(message[2])
        finally:
            await hang_up(connection)
