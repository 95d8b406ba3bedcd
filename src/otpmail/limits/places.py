"""Divides the QUEUE_SIZE places for unsettled mails among lanes and callers. Pure rules: nothing here waits.

- Normal and bulk mails, and mails that the relay has deferred, share nine tenths. The last tenth is for urgent mails.
- While another caller has mails or wants a place, no caller takes more than half of a lane.
- A twentieth is for urgent mails that end soon. A guaranteed mail, which may be deferred for a day, takes no place
  there, nor does a caller that has as many urgent mails already.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf

from otpmail.limits.waiting import Waiting

_REMEMBER_SECONDS = 3.0  # for which a refused caller still wants a place; its error says to retry after 1 second


class Places:
    """The places of unsettled mails. Its whole state: the places of each source, by lane, and who wants one.

    A source is one that takes turns with others: a caller, or a connection or stream of an anonymous one. A fresh mail
    is an urgent one that was never deferred. `now` is a monotonic clock in seconds.
    """

    def __init__(self, size: int, *, now: Callable[[], float]) -> None:
        tenth = size // 10
        self.size = size
        self.for_others = size - tenth
        """Places for all mails but fresh ones."""
        self.for_streams = self.for_others - self.for_others // 10
        """The part of them that streams take: they can wait for a place, and single calls can't."""
        self.plenty = size // 4
        """While fewer places are taken, everybody may have one more."""
        self._for_guaranteed = size - tenth // 2
        self._few = tenth // 2
        self._now = now
        self.taken = 0
        self._fresh = 0
        # By source: the places of all mails but fresh ones, and those of fresh ones.
        self._held = defaultdict[str, int](int), defaultdict[str, int](int)
        self._octets: dict[str, int] = {}  # by source too, those of mails that are in memory
        self._accepting: tuple[dict[str, int], dict[str, int]] = ({}, {})  # by source too, mails that take long
        self.waiting = Waiting()
        self._refused, self._refused_at = "", -inf  # the latest source that found no place and had fewer than its share

    @property
    def others(self) -> int:
        """How many places other mails than fresh ones take."""
        return self.taken - self._fresh

    def __repr__(self) -> str:
        others, fresh = self._held
        return (
            f"<Places {self.taken} of {self.size} taken, {self.others} by others than urgent mails, "
            f"{len(others)} and {len(fresh)} sources, {self.waiting!r}>"
        )

    def has_place(self, source: str, *, fresh: bool, guaranteed: bool, most: int, reserved: int = 0) -> bool:
        """Whether this source may have one more place.

        `most` is how many places there are for mails of its kind: `size`, `for_others` or `for_streams`. `reserved`
        counts mails of all sources that are being accepted; of its own those count for its share that take long.
        """
        taken = self.taken + reserved
        if taken >= self.size:
            return False
        mine = self._held[fresh].get(source, 0)
        if self._accepting[fresh]:
            mine += self._accepting[fresh].get(source, 0)
        if not fresh:
            free = self.others + reserved < most
            lane = self.for_others
        else:
            free = taken < self._for_guaranteed or not (guaranteed or mine >= self._few)
            lane = self.size - self.others
        return free and (not mine or 2 * mine + 2 <= lane or not self._is_contended(source, fresh=fresh))

    def held(self, source: str) -> int:
        """Return how many places a source has in both lanes, with those of mails that are being accepted."""
        lanes = (*self._held, *self._accepting)
        return sum(lane.get(source, 0) for lane in lanes)

    def octets(self, source: str) -> int:
        """Return how much memory the mails of a source take."""
        return self._octets.get(source, 0)

    def take(self, source: str, *, fresh: bool, octets: int = 0) -> None:
        """Count a mail that was accepted, and the octets of one that is in memory."""
        self._held[fresh][source] += 1
        if octets:
            self._octets[source] = self._octets.get(source, 0) + octets
        self.taken += 1
        if fresh:
            self._fresh += 1

    def begin_accepting(self, source: str, *, fresh: bool, mails: int = 1) -> None:
        """Count mails for their source's share already, where accepting takes long: they have places by reservation."""
        accepting = self._accepting[fresh]
        accepting[source] = accepting.get(source, 0) + mails

    def end_accepting(self, source: str, *, fresh: bool, mails: int = 1) -> None:
        """Count mails no more as being accepted."""
        accepting = self._accepting[fresh]
        accepting[source] -= mails
        if not accepting[source]:
            del accepting[source]

    @contextmanager
    def accepting(self, source: str, *, fresh: bool, mails: int = 1) -> Iterator[None]:
        """Count mails as being accepted within the block."""
        self.begin_accepting(source, fresh=fresh, mails=mails)
        try:
            yield
        finally:
            self.end_accepting(source, fresh=fresh, mails=mails)

    def free(self, source: str, *, fresh: bool, octets: int = 0) -> None:
        """Count a mail that has settled, with the octets that it was taken with."""
        held = self._held[fresh]
        left = held[source] - 1
        if left:
            held[source] = left
        else:
            del held[source]
        self.taken -= 1
        if fresh:
            self._fresh -= 1
        if octets:
            left = self._octets[source] - octets
            if left:
                self._octets[source] = left
            else:
                del self._octets[source]

    def defer(self, source: str) -> bool:
        """Count a fresh mail as a deferred one from now on; returns whether there is a place for it as such."""
        had_place = self.others < self.for_others
        self.free(source, fresh=True)
        self.take(source, fresh=False)
        return had_place

    # Callers that want a place.

    def refused(self, source: str, *, fresh: bool) -> None:
        """Note a single call that found no place, so that others do not take more than their half in its stead."""
        if 2 * self._held[fresh].get(source, 0) < self.for_others:
            self._refused, self._refused_at = source, self._now()

    def _is_contended(self, source: str, *, fresh: bool) -> bool:
        """Whether another source has mails in the lane, or wants a place."""
        for sources in (self._held[fresh], self._accepting[fresh], self.waiting.sources):
            if len(sources) > (source in sources):
                return True
        return self._refused != source and self._now() < self._refused_at + _REMEMBER_SECONDS
