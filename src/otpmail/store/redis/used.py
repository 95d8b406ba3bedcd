"""Challenges whose codes were used, remembered here: a server that was set back may know one as live again."""

from collections.abc import Callable


class UsedChallenges:
    """Ids of used challenges, each until its code would have expired. `clock` is the store's."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._expiries: dict[bytes, float] = {}

    def __repr__(self) -> str:
        return f"<UsedChallenges {len(self._expiries)}>"

    def add(self, challenge_id: bytes, expires: float) -> bool:
        """Remember a challenge as used; returns False if it was used before."""
        if challenge_id in self._expiries:
            return False
        self._expiries[challenge_id] = expires
        return True

    def sweep(self) -> None:
        """Forget the challenges that have expired."""
        now = self._clock()
        self._expiries = {used: expires for used, expires in self._expiries.items() if expires > now}
