"""Finds names in the environment that are probably misspelt settings: they have no effect, and no error says so.

Every program reads the environment, so most names there are none of ours. Those of Kubernetes and Docker for the
addresses of services may look like ours by chance (MAIL_PORT, for a service `mail`).
"""

import re
from collections.abc import Collection, Iterator, Mapping

from otpmail.settings.usual_names import MEANT

_OURS = ("EMAIL_", "OTP_", "STORE_")
"""Nearly all names of settings that only otpmail reads begin with one of these."""

_OF_SERVICES = re.compile(r".+_SERVICE_(?:HOST|PORT(?:_.+)?)|.+_PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?")
_ADDRESSES = ("tcp://", "udp://", "sctp://")


def near_misses(
    environment: Mapping[str, str], known: Collection[str], given: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Yield each name that is one or two edits away from a known one, with that one. Names are in capitals.

    `given` are the settings that are set anywhere. A name that may be another program's counts only if the setting that
    it resembles is not set.
    """
    for name, value in environment.items():
        if _OF_SERVICES.fullmatch(name) or value.startswith(_ADDRESSES):
            continue
        is_ours = name.startswith(_OURS)
        nearest = (MEANT.get(name) if is_ours else None) or _nearest(name, known, most=_most_edits(name, is_ours))
        if nearest and (nearest not in given or (is_ours and name not in MEANT)):
            yield name, nearest


def _most_edits(name: str, is_ours: bool) -> int:  # noqa: FBT001  a property of the name
    """Return how far apart two names may be: short ones are near to others by chance, as MAIL is to EMAIL."""
    return 2 if len(name) >= (8 if is_ours else 10) else 1 if len(name) >= 6 else 0


def _nearest(name: str, known: Collection[str], *, most: int) -> str:
    letters, size = set(name), len(name)
    # An edit changes the length by one, and the set of letters by two: few names need be compared, 1 ms for all.
    near = [other for other in known if abs(len(other) - size) <= most and len(letters ^ set(other)) <= 2 * most]
    found = [(_edits(name, other), other) for other in near]
    edits, nearest = min(found, default=(most + 1, ""))
    return nearest if edits <= most else ""


def _edits(one: str, other: str) -> int:
    """Return how many letters have to be inserted, removed, replaced or exchanged with the next one."""
    two_above: list[int] = []
    above = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        row = [i]
        for j, other_letter in enumerate(other, 1):
            edits = min(above[j] + 1, row[-1] + 1, above[j - 1] + (letter != other_letter))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == other_letter:
                edits = min(edits, two_above[j - 2] + 1)
            row.append(edits)
        two_above, above = above, row
    return above[-1]
