"""The mails of this process that a shared store may give to another one: held up, dropped, or cancelled for it."""

from asyncio import Queue
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from otpmail.delivery.closing import TAKEN_OVER
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.delivery.waiters import Waiters
from otpmail.errors import FailedPrecondition
from otpmail.model import Mail, MailState
from otpmail.store.base import Entry


class Ownership:
    """Answers the store about the mails of a lifecycle (`store.base.Owner`)."""

    def __init__(self, lifecycle: Lifecycle, waiters: Waiters) -> None:
        self._lifecycle = lifecycle
        self._waiters = waiters

    def __repr__(self) -> str:
        return f"<Ownership of {self._lifecycle!r}>"

    def entry(self, mail_id: str) -> Entry | None:
        """Return a mail that has not settled, as it is now; None where it has."""
        job = self._lifecycle.find(mail_id)
        return None if job is None else job.entry()

    def cancel(self, mail_id: str) -> bool:
        """Cancel a mail for another process; False where the relay has it, or may have it."""
        job = self._lifecycle.find(mail_id)
        if job is not None:
            try:
                self._lifecycle.cancel(job)
            except FailedPrecondition:
                return False
        return True

    def drop(self, mail_ids: Iterable[str]) -> Sequence[str]:
        """Let go of mails that another process may deliver from now on, and return the ids of those not in flight."""
        dropped: list[str] = []
        for job in filter(None, map(self._lifecycle.find, mail_ids)):
            if job.state is MailState.SENDING:
                self._lifecycle.fence.disowned.add(job)
            else:
                self._lifecycle.release(job, TAKEN_OVER)
                dropped.append(job.id)
        return dropped

    def resume(self) -> None:
        """Go on with the mails that were held up."""
        self._lifecycle.fence.resume()

    def watch(self, mail_id: str, states: "Queue[Mail | None]") -> Callable[[], None]:
        """Put a mail's present state into `states`, and each one that follows; None where it is not here."""
        job = self._lifecycle.find(mail_id)
        states.put_nowait(None if job is None else job.mail)
        if job is None:
            return _nothing
        self._waiters.add_watcher(job, states)
        return partial(self._waiters.remove_watcher, job, states)


def _nothing() -> None:
    """Remove a watcher that was not added."""
