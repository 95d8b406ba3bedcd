"""The counts of limits over many addresses, in this process."""

from itertools import islice

from otpmail.errors import MemoryFull
from otpmail.store.counts_codec import NO_COUNTS, counts_end, counts_needed

_ENTRY_OCTETS = 159  # the key, two object headers, and a place in a dict
_LOOKED_AT = 1024  # counts, for some that may be forgotten
_DROPPED = 2  # for a new one, which may be larger
_FULL = "limits that are reached take their part"


class MemoryCounts:
    """Counts by key, the one that changed longest ago first. `octets` is the memory that all of them take.

    Without room those that limit nobody at present give way to new ones. Counts that have reached their limit never do.
    """

    def __init__(self) -> None:
        self.octets = 0
        self._kept: dict[bytes, bytes] = {}

    def __repr__(self) -> str:
        return f"<MemoryCounts {len(self)} counts>"

    def __len__(self) -> int:
        return len(self._kept)

    def read(self, key: bytes) -> bytes:
        """Return the octets of a key, those of no counts where it has none."""
        return self._kept.get(key, NO_COUNTS)

    def make_room(self, key: bytes, now: float) -> None:
        """Forget the oldest counts that limit nobody, unless the key has counts. Raises MemoryFull without any.

        Counts that stay are looked at again only after all others.
        """
        if key in self._kept:
            return
        dropped = 0
        for known in tuple(islice(self._kept, _LOOKED_AT)):
            if counts_needed(self._kept[known]) <= now:
                self._drop(known)
                dropped += 1
            else:
                self._kept[known] = self._kept.pop(known)
            if dropped == _DROPPED:
                return
        if not dropped:
            raise MemoryFull(_FULL)

    def write(self, key: bytes, octets: bytes) -> None:
        """Keep counts as octets, as those that changed last."""
        self._drop(key)
        if octets != NO_COUNTS:
            self._kept[key] = octets
            self.octets += len(octets) + _ENTRY_OCTETS

    def sweep(self, now: float, *, most: int) -> int:
        """Drop those that have ended among the `most` that changed longest ago; returns how many those were."""
        ended = [key for key, octets in islice(self._kept.items(), most) if counts_end(octets) <= now]
        for key in ended:
            self._drop(key)
        return len(ended)

    def _drop(self, key: bytes) -> None:
        octets = self._kept.pop(key, None)
        if octets is not None:
            self.octets -= len(octets) + _ENTRY_OCTETS
