"""Takes up accepted mails that arrive from the store: at the start, and those of a process that died."""

import logging

from otpmail.delivery.job import Job
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.errors import Unavailable
from otpmail.store.base import MailStore

_log = logging.getLogger("otpmail")


class Intake:
    """Hands each arriving mail to the lifecycle, in the store's order. It waits for nobody's reservation.

    These mails were accepted before, so no limit may refuse them now.
    """

    def __init__(self, store: MailStore, lifecycle: Lifecycle) -> None:
        self._store = store
        self._lifecycle = lifecycle
        self.taken_up = 0

    def __repr__(self) -> str:
        return f"<Intake {self.taken_up} mails taken up>"

    async def run(self) -> None:
        """Take up mails until the store has no more for this process, the service stops, or it is cancelled."""
        async for entries in self._store.arrivals():
            try:
                for entry in entries:
                    self._lifecycle.submit(Job.from_entry(entry))
            except Unavailable:  # the service stops, and the store keeps them for the next start
                return
            self.taken_up += len(entries)
            _log.info(
                "%d accepted mails taken up from the store",
                len(entries),
                extra={"event": "mails-taken-up", "fields": {"mails": len(entries)}},
            )
