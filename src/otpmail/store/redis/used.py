"""Challenges whose codes were used, remembered by each replica: a server that was set back may know one as live again.

The server announces each used challenge on a channel, so that a replica knows those of the others too.
"""

import secrets
import struct
from collections.abc import Callable

# As code_check.lua packs it: who says so, which challenge, when it expires, and the digest of the check's request id.
_ANNOUNCEMENT = struct.Struct("<8s16sd8s")
_USE = struct.Struct("<d8sd")  # when a challenge expires, the digest, until when the same check is answered again
_AGAIN_SECONDS = 60.0
_NO_REQUEST = bytes(8)
_MOST = 200_000
_OCTETS = 182  # of one: an id, a use, and their place in a dict


class UsedChallenges:
    """Ids of used challenges, each until its code would have expired, and the latest `most` of them at most.

    `clock` is the store's. `origin` marks what this replica has announced, and skips.
    """

    def __init__(self, clock: Callable[[], float], *, most: int = _MOST) -> None:
        self._most = most
        self.origin = secrets.token_bytes(8)
        self._clock = clock
        self._uses: dict[bytes, bytes] = {}

    def __repr__(self) -> str:
        return f"<UsedChallenges {len(self._uses)}>"

    @property
    def octets(self) -> int:
        """The memory that they take."""
        return len(self._uses) * _OCTETS

    def add(self, challenge_id: bytes, expires: float, request: bytes = b"") -> bool:
        """Remember a challenge as used by a check; returns False if another check has used it before.

        A check with a request id is the same one for a minute, by the digest `request`.
        """
        use = self._uses.get(challenge_id)
        if use is not None:
            _, known, until = _USE.unpack(use)
            is_same: bool = known == request != _NO_REQUEST
            return is_same and self._clock() < until
        self._uses[challenge_id] = _USE.pack(expires, request, self._clock() + _AGAIN_SECONDS)
        if len(self._uses) > self._most:
            del self._uses[next(iter(self._uses))]
        return True

    def receive(self, announcement: bytes) -> None:
        """Remember a challenge that another replica has used."""
        if len(announcement) == _ANNOUNCEMENT.size:
            origin, challenge_id, expires, request = _ANNOUNCEMENT.unpack(announcement)
            if origin != self.origin:
                self.add(challenge_id, expires, request)

    def sweep(self) -> None:
        """Forget the challenges that have expired."""
        now = self._clock()
        self._uses = {used: use for used, use in self._uses.items() if _USE.unpack(use)[0] > now}
