"""Notifies observers of refused calls, within a budget so that no flood of calls fills the log."""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any
from urllib.parse import unquote

from otpmail.api.calls import Context
from otpmail.api.parse import SMALL, Parser
from otpmail.api.status import RpcStatus
from otpmail.callers import CALLER
from otpmail.errors import CallerError, InvalidArgument, Unauthenticated
from otpmail.events import CallRefused, CallsRefused, Observer
from otpmail.timers import CallLater

BURST = 10
PER_SECOND = 1.0
SUMMARY_SECONDS = 10.0

_MOST_ADDRESS = 320
_MOST_MESSAGE = 300
_WITH_ADDRESSES = ("email", "to", "cc", "bcc", "recipient")

_Kind = tuple[str, str, str]
"""A method, a status and a reason: there are only so many of them, whatever callers send."""


class _Budget:
    """How many events of one kind may follow now, and how many calls were left out since the last summary."""

    __slots__ = ("left", "left_out", "since")

    def __init__(self, now: float) -> None:
        self.left = float(BURST)
        self.since = now
        self.left_out = 0

    def take(self, now: float) -> bool:
        """Take one event, if there is one: BURST at once, then PER_SECOND."""
        self.left = min(BURST, self.left + (now - self.since) * PER_SECOND)
        self.since = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


class Refusals:
    """Emits `CallRefused` for a refused call, and counts what is beyond the budget of its method, status and reason.

    Those counted come in one `CallsRefused` after SUMMARY_SECONDS. `now` is a steady clock in seconds.
    """

    def __init__(
        self, observer: Observer, *, now: Callable[[], float] = monotonic, call_later: CallLater | None = None
    ) -> None:
        self._observer = observer
        self._now = now
        self._call_later = call_later or asyncio.get_running_loop().call_later
        self._budgets: dict[_Kind, _Budget] = {}

    def __repr__(self) -> str:
        return f"<Refusals {len(self._budgets)} kinds, {sum(b.left_out for b in self._budgets.values())} left out>"

    def note(
        self,
        method: str,
        context: Context,
        error: Exception,
        *,
        status: RpcStatus,
        request: Any,
        parse: Parser | None,
    ) -> None:
        """Take note that a call ends with an error; one that is not meant for callers is in the log already.

        `request` is only looked at for its first address, and only where an event is emitted.
        """
        if not isinstance(error, CallerError):
            return
        kind = method, status.code.name, error.reason
        now = self._now()
        budget = self._budgets.get(kind)
        if budget is None:
            budget = self._budgets[kind] = _Budget(now)
        if budget.take(now):
            peer, address = unquote(context.peer()), _first_address(request, parse)
            message = status.message[:_MOST_MESSAGE]
            caller = "" if isinstance(error, Unauthenticated) else CALLER.get().name
            self._observer.notify(CallRefused(method, peer, status.code.name, error.reason, message, address, caller))
            return
        if not budget.left_out:
            self._call_later(SUMMARY_SECONDS, self._summarize, kind)
        budget.left_out += 1

    def _summarize(self, kind: _Kind) -> None:
        budget = self._budgets[kind]
        count, budget.left_out = budget.left_out, 0
        self._observer.notify(CallsRefused(*kind, count))


def _first_address(request: Any, parse: Parser | None) -> str:
    """Return the first address in the octets of a small request, empty without one."""
    if parse is None or not isinstance(request, bytes) or len(request) > SMALL:
        return ""
    try:
        message = parse(request)
    except InvalidArgument:
        return ""
    for name in _WITH_ADDRESSES:
        value = getattr(message, name, None)
        if value:
            return str(value if isinstance(value, str) else value[0]).strip()[:_MOST_ADDRESS]
    return ""
