"""Holds up the mails of a shared store while another process may be sending them, and knows which it lost in flight."""

from collections.abc import Callable

from otpmail.delivery.job import Job
from otpmail.store.base import MailStore


class Fence:
    """Holds jobs up. Its whole state: these jobs, and those `disowned` while they were in flight.

    `put_back` puts a job at the front of its lane. A store that is not durable gives no mail to another process. Nor
    does a durable one where it does not keep the mail, which has neither a guarantee nor a request id then.
    """

    def __init__(self, store: MailStore, put_back: Callable[[Job], None]) -> None:
        self.is_durable = store.durable
        self._may_send = store.may_send
        self._put_back = put_back
        self.held: dict[Job, None] = {}
        self.disowned: set[Job] = set()

    def __repr__(self) -> str:
        return f"<Fence {len(self.held)} held up, {len(self.disowned)} disowned>"

    def holds(self, job: Job) -> bool:
        """Hold up a job that is about to be sent, unless this process owns it for sure; returns whether it does."""
        if self._may_send():
            return False
        self.held[job] = None
        return True

    def has_lost(self, job: Job) -> bool:
        """Whether a job that was started, and not sent yet, may be another process's by now."""
        is_kept = self.is_durable and bool(job.guaranteed or job.request_id)
        return job in self.disowned or (is_kept and not self._may_send())

    def resume(self) -> None:
        """Let the jobs go on that were held up, in their order."""
        held, self.held = self.held, {}
        for job in reversed(held):
            self._put_back(job)

    def forget(self, job: Job) -> None:
        """Forget a job that is this process's no more."""
        self.held.pop(job, None)
        self.disowned.discard(job)
