"""The rates of callers: how many mails each may send in an hour and in a day, beside those of codes."""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import lru_cache

from otpmail.call_events import LimitReached
from otpmail.callers import Caller
from otpmail.delivery.job import Job
from otpmail.errors import LimitExceeded, Unavailable
from otpmail.events import Observer
from otpmail.limits.rules import stretch_of
from otpmail.model import DAY, HOUR
from otpmail.store.challenges import LimitStore, Quota

_REMEMBERED = 1024  # callers, whose limits are at hand


class Rates:
    """Counts mails in the store, so that replicas share a rate. Those named in `shadows` refuse nothing."""

    def __init__(self, store: LimitStore, observer: Observer, shadows: frozenset[str]) -> None:
        self._store = store
        self._observer = observer
        self._shadows = shadows
        self._quotas = lru_cache(_REMEMBERED)(self._quotas_of)

    def __repr__(self) -> str:
        return f"<Rates in {self._store!r}>"

    async def counted(self, caller: Caller, mail_id: str, accept: Callable[[], Awaitable[Job]]) -> Job:
        """Count a mail and return its job, which `accept` accepts. Raises LimitExceeded, and accepts nothing then.

        A mail that is not accepted counts for nothing, and nor does one whose request id has found another.
        """
        rates = caller.may.rates
        quotas = self._quotas(caller.name, rates.mails_per_hour, rates.mails_per_day) if rates is not None else ()
        try:
            when, reached = await self._store.count(quotas)
        except LimitExceeded as error:
            self._observer.notify(LimitReached(error.limit, caller.name))
            raise
        for limit, percent in reached:
            self._observer.notify(LimitReached(limit, caller.name, percent))
        try:
            job = await accept()
        except BaseException:
            await self._take_back(quotas, when)
            raise
        if job.id != mail_id:
            await self._take_back(quotas, when)
        return job

    async def _take_back(self, quotas: Sequence[Quota], when: float) -> None:
        """Count a mail no more. While the store is down it counts on, rather than hide what became of the mail."""
        with suppress(Unavailable):
            await self._store.uncount(quotas, when)

    def _quotas_of(self, name: str, per_hour: int | None, per_day: int | None) -> tuple[Quota, ...]:
        found = []
        for limit, most, span in (("mails_per_hour", per_hour, HOUR), ("mails_per_day", per_day, DAY)):
            if most is not None:
                key = hashlib.blake2b(f"{limit}\0{name}".encode(), digest_size=16).digest()
                found.append(Quota(limit, key, most, limit in self._shadows, warns=True, stretch=stretch_of(span)))
        return tuple(found)
