"""Challenges whose codes were used, remembered by each replica: a server that was set back may know one as live again.

The server announces each used challenge on a channel, so that a replica knows those of the others too.
"""

import secrets
import struct
from collections.abc import Callable

_ANNOUNCEMENT = struct.Struct("<8s16sd")  # as code_check.lua packs it: who says so, which challenge, when it expires
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
