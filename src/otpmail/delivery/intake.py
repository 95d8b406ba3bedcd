"""Takes up accepted mails that arrive from the store: at the start, and those of a process that died."""

import logging
from collections.abc import Callable
from dataclasses import replace

from otpmail.counts import counted
from otpmail.delivery.job import Job
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.errors import Unavailable
from otpmail.model import IssuedCode
from otpmail.store.base import Entry, MailStore

_log = logging.getLogger("otpmail")


class Intake:
    """Hands each arriving mail to the lifecycle, in the store's order. It waits for nobody's reservation.

    These mails were accepted before, so no limit may refuse them now. A store keeps no code: `code_of` derives the one
    in the mail of a code, which no reply about that mail may be repeated with. `follow_code` is called with its job.
    """

    def __init__(
        self,
        store: MailStore,
        lifecycle: Lifecycle,
        *,
        code_of: Callable[[IssuedCode], str],
        follow_code: Callable[[Job], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._lifecycle = lifecycle
        self._code_of = code_of
        self._follow_code = follow_code
        self.taken_up = 0

    def __repr__(self) -> str:
        return f"<Intake {self.taken_up} mails taken up>"

    async def run(self) -> None:
        """Take up mails until the store has no more for this process, the service stops, or it is cancelled."""
        async for entries in self._store.arrivals():
            try:
                mails = sum([self._has_taken_up(entry) for entry in entries])
            except Unavailable:  # the service stops, and the store keeps them for the next start
                return
            self.taken_up += mails
            if mails:
                _log.info(
                    "%s taken up from the store",
                    counted(mails, "accepted mail"),
                    extra={"event": "mails-taken-up", "fields": {"mails": mails}},
                )

    def _has_taken_up(self, entry: Entry) -> bool:
        """Take up a mail that has arrived, unless it was in flight when this process lost it, and so is here still."""
        job = self._lifecycle.find(entry.mail.id)
        if job is None:
            self.take_up(entry)
        else:
            self._lifecycle.fence.disowned.discard(job)
        return job is None

    def take_up(self, entry: Entry, source: str = "") -> None:
        """Submit a mail, or settle it where it must not be sent any more. Raises Unavailable while the service stops.

        `source`: whose mail it is for the limits, where this process has accepted it.
        """
        job = Job.from_entry(self._with_code(entry))
        if source:
            job.source = job.turn = source
            job.is_announced = True
        state = self._lifecycle.attempts.take_over(job, entry)
        self._lifecycle.submit(job)
        if job.issued is not None:
            self._follow_code(job)
        if state is not None:
            self._lifecycle.give_up(job, state)

    def resume(self, job: Job) -> None:
        """Submit a mail of this process that has waited for its turn. Raises Unavailable while the service stops."""
        job.is_announced = True
        self._lifecycle.submit(job)
        if job.issued is not None:
            self._follow_code(job)

    def _with_code(self, entry: Entry) -> Entry:
        issued = entry.mail.issued
        return entry if issued is None else replace(entry, envelope=entry.envelope.with_code(self._code_of(issued)))
