"""The rates of callers: how many mails each may send in an hour and in a day, beside those of codes."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial

from otpmail.callers import Caller, TableKey
from otpmail.delivery.job import Job
from otpmail.errors import CallerError, LimitExceeded
from otpmail.events import LimitReached, Observer
from otpmail.limits.levels import Levels
from otpmail.limits.rules import stretch_of
from otpmail.mail.undoing import Undoing
from otpmail.model import DAY, HOUR, Reached
from otpmail.store.challenges import LimitStore, Quota

_REMEMBERED = 1024  # callers, whose limits are at hand


Counted = tuple[tuple[Quota, ...], float]
"""The limits that a mail counts for, and since when."""


class Rates:
    """Counts mails in the store, so that replicas share a rate. Those named in `shadows` refuse nothing.

    A mail that is not accepted counts for nothing. Its call may be cancelled, and the store be down for a while: what
    it has counted for is taken back behind the call.
    """

    def __init__(self, store: LimitStore, observer: Observer, shadows: frozenset[str]) -> None:
        self._store = store
        self._observer = observer
        self._shadows = shadows
        self.levels = Levels()
        self._undoing = Undoing()
        self._quotas = lru_cache(_REMEMBERED)(self._quotas_of)

    def __repr__(self) -> str:
        return f"<Rates in {self._store!r}, {self._undoing!r}>"

    async def counted(self, caller: Caller, mail_id: str, accept: Callable[[], Awaitable[Job]]) -> Job:
        """Count a mail and return its job, which `accept` accepts. Raises LimitExceeded, and accepts nothing then.

        The count is taken back for a mail whose request id found an earlier mail, and for one whose recipients are all
        suppressed.
        """
        counted = await self.count(caller)
        try:
            job = await accept()
        except BaseException:
            await self._undoing.run(partial(self._uncount, counted))
            raise
        if job.id != mail_id or job.is_left_out:
            self.take_back(counted)
        return job

    async def count(self, caller: Caller) -> Counted:
        """Count a mail. Raises LimitExceeded, and counts nothing then, nor where the call is cancelled meanwhile."""
        rates = caller.may.rates
        quotas = self._quotas(caller.name, rates.mails_per_hour, rates.mails_per_day) if rates is not None else ()
        try:
            when, reached = self._store.count_at_once(quotas) or await self._ask(quotas)
        except LimitExceeded as error:
            self._observer.notify(LimitReached(error.limit, caller.name))
            raise
        for limit, percent in self.levels.new(caller.name, reached, when) if reached else ():
            self._observer.notify(LimitReached(limit, caller.name, percent))
        return quotas, when

    def take_back(self, counted: Counted) -> None:
        """Count a mail no more that was not accepted."""
        self._undoing.begin(partial(self._uncount, counted))

    async def close(self, seconds: float) -> None:
        """Wait for what is being taken back, `seconds` at most."""
        await self._undoing.close(seconds)

    async def _ask(self, quotas: tuple[Quota, ...]) -> tuple[float, tuple[Reached, ...]]:
        """Ask a store that takes its time. It may count a mail whose call has gone meanwhile."""
        counting = asyncio.ensure_future(self._store.count(quotas))
        try:
            return await asyncio.shield(counting)
        except asyncio.CancelledError:
            self._undoing.own(self._take_back_once_counted(quotas, counting))
            raise

    async def _take_back_once_counted(
        self, quotas: tuple[Quota, ...], counting: "asyncio.Future[tuple[float, tuple[Reached, ...]]]"
    ) -> None:
        try:
            when, _ = await counting
        except CallerError:  # it was not counted
            return
        await self._undoing.begin(partial(self._uncount, (quotas, when)))

    def _uncount(self, counted: Counted) -> Awaitable[None]:
        return self._store.uncount(*counted)

    def _quotas_of(self, name: str, per_hour: int | None, per_day: int | None) -> tuple[Quota, ...]:
        found = []
        for limit, most, span in (("mails_per_hour", per_hour, HOUR), ("mails_per_day", per_day, DAY)):
            if most is not None:
                key = hashlib.blake2b(f"{limit}\0{name}".encode(), digest_size=16).digest()
                quota = Quota(limit, key, most, limit in self._shadows, warns=True, stretch=stretch_of(span))
                found.append(quota._replace(named=TableKey(limit, Caller(name).place)))
        return tuple(found)
