"""The rates of callers: how many mails each may send in an hour and in a day, beside those of codes."""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from otpmail.call_events import LimitReached
from otpmail.callers import Caller
from otpmail.delivery.job import Job
from otpmail.errors import LimitExceeded, Unavailable
from otpmail.events import Observer
from otpmail.limits.rules import stretch_of
from otpmail.model import DAY, HOUR
from otpmail.store.challenges import LimitStore, Quota


class Rates:
    """Counts mails in the store, so that replicas share a rate. Those named in `shadows` refuse nothing."""

    def __init__(self, store: LimitStore, observer: Observer, shadows: frozenset[str]) -> None:
        self._store = store
        self._observer = observer
        self._shadows = shadows

    def __repr__(self) -> str:
        return f"<Rates in {self._store!r}>"

    async def counted(self, caller: Caller, mail_id: str, accept: Callable[[], Awaitable[Job]]) -> Job:
        """Count a mail and return its job, which `accept` accepts. Raises LimitExceeded, and accepts nothing then.

        A mail that is not accepted counts for nothing, and nor does one whose request id has found another.
        """
        quotas = self._quotas(caller)
        counted = await self._count(caller, quotas)
        try:
            job = await accept()
        except BaseException:
            await self._take_back(quotas, counted)
            raise
        if job.id != mail_id:
            await self._take_back(quotas, counted)
        return job

    async def _take_back(self, quotas: Sequence[Quota], counted: float) -> None:
        """Count a mail no more. While the store is down it counts on, rather than hide what became of the mail."""
        with suppress(Unavailable):
            await self._store.uncount(quotas, counted)

    async def _count(self, caller: Caller, quotas: Sequence[Quota]) -> float:
        """Count a mail, and return when."""
        try:
            when, reached = await self._store.count(quotas)
        except LimitExceeded as error:
            self._observer.notify(LimitReached(error.limit, caller.name))
            raise
        for limit, percent in reached:
            self._observer.notify(LimitReached(limit, caller.name, percent))
        return when

    def _quotas(self, caller: Caller) -> tuple[Quota, ...]:
        rates = caller.may.rates
        if rates is None:
            return ()
        found = []
        spans = (("mails_per_hour", rates.mails_per_hour, HOUR), ("mails_per_day", rates.mails_per_day, DAY))
        for limit, most, span in spans:
            if most is not None:
                key = hashlib.blake2b(f"{limit}\0{caller.name}".encode(), digest_size=16).digest()
                found.append(Quota(limit, key, most, limit in self._shadows, warns=True, stretch=stretch_of(span)))
        return tuple(found)
