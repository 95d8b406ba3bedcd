"""Streams that wait for a place, in turns: one stream of each source after the other."""

from collections import OrderedDict
from collections.abc import Callable

_LOOKS = 4  # sources that are asked for each place: those with more than their share are few


class Waiting:
    """Callbacks of streams that wait, by source. `sources` holds them; the first source has the next turn."""

    def __init__(self) -> None:
        self.sources: OrderedDict[str, dict[Callable[[], None], Callable[[], bool]]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Waiting {sum(map(len, self.sources.values()))} streams of {len(self.sources)} sources>"

    def add(self, source: str, callback: Callable[[], None], may_go: Callable[[], bool]) -> None:
        """Call `callback` once, when there is a place, it is its turn, and `may_go` returns True. It must not raise."""
        self.sources.setdefault(source, {})[callback] = may_go

    def discard(self, source: str, callback: Callable[[], None]) -> bool:
        """Do not call `callback` any more; returns whether it was still waiting."""
        waiting = self.sources.get(source)
        if waiting is None or callback not in waiting:
            return False
        del waiting[callback]
        if not waiting:
            del self.sources[source]
        return True

    def call_next(self) -> None:
        """Call the first callback that may go, if there is one; its source waits for its next turn then."""
        for _ in range(min(_LOOKS, len(self.sources))):
            source = next(iter(self.sources))
            callback, may_go = next(iter(self.sources[source].items()))
            self.sources.move_to_end(source)
            if may_go():
                self.discard(source, callback)
                callback()
                return
