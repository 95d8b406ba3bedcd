"""Challenges whose codes were used, remembered here: a server that is set back may know one as live again."""

from collections import deque
from collections.abc import Callable


class UsedChallenges:
    """Ids of used challenges, each kept for `life` seconds: no code lives longer."""

    def __init__(self, clock: Callable[[], float], life: float) -> None:
        self._clock = clock
        self._life = life
        self._ids: set[bytes] = set()
        self._ends: deque[tuple[float, bytes]] = deque()

    def __repr__(self) -> str:
        return f"<UsedChallenges {len(self._ids)}>"

    def add(self, challenge_id: bytes) -> bool:
        """Remember a challenge as used; returns False if it was."""
        now = self._clock()
        while self._ends and self._ends[0][0] <= now:
            self._ids.discard(self._ends.popleft()[1])
        if challenge_id in self._ids:
            return False
        self._ids.add(challenge_id)
        self._ends.append((now + self._life, challenge_id))
        return True
