"""Which warnings about limits are new: that half of one is used up, or four fifths, is said once for each window."""

from collections.abc import Iterable

from otpmail.model import DAY, HOUR, Reached

_LEVELS = frozenset({50, 80})
_MOST = 4096  # that are remembered, before those that have ended are looked for
_OF_ALL = "service"  # the limit over all callers


class Levels:
    """Remembers when each level of a limit was said last.

    A count goes up and down around a level, as old mails leave its window and others are taken back.
    """

    def __init__(self) -> None:
        self._said: dict[tuple[str, str, int], float] = {}

    def __repr__(self) -> str:
        return f"<Levels {len(self._said)} said>"

    def new(self, caller: str, reached: Iterable[Reached], now: float) -> list[Reached]:
        """Return what has not been said in this window: an hour, or a day for a limit of one."""
        return [one for one in reached if one.percent not in _LEVELS or self._is_new(caller, one, now)]

    def _is_new(self, caller: str, one: Reached, now: float) -> bool:
        key = one.limit, "" if one.limit == _OF_ALL else caller, one.percent
        said = self._said.get(key)
        if said is not None and said <= now < said + _span_of(one.limit):
            return False
        if len(self._said) >= _MOST:
            self._said = {known: at for known, at in self._said.items() if now < at + _span_of(known[0])}
        self._said[key] = now
        return True


def _span_of(limit: str) -> int:
    return DAY if limit.endswith("_day") else HOUR
