"""Leaves suppressed recipients out of mails, and learns from the relay's replies which addresses to suppress."""

from collections.abc import Callable, Iterable
from functools import partial
from math import inf

from otpmail.address import Address
from otpmail.callers import Trace
from otpmail.cooperate import Steps
from otpmail.delivery.job import Job
from otpmail.events import (
    AddressSuppressed,
    Observer,
    RecipientSuppressed,
    SuppressionLifted,
    SuppressionsEvicted,
    SuppressionsFull,
)
from otpmail.limits import suppressing
from otpmail.model import Priority, RecipientResult
from otpmail.smtp.reply_kind import refuses_address
from otpmail.store.addresses import AddressStore, CallersAddress, Changed, Evicted
from otpmail.suppression import AddressRecord, Suppression

_BULK = Priority.BULK
_AGAIN_SECONDS = 60.0

Spared = Callable[[str, str], bool]
"""Whether no reply suppresses an address. It takes the address, and the id of the mail."""


class Suppressions:
    """Asks `store` about recipients, and notes there what relays say of them. Notifies `observer` of each change.

    No reply suppresses an address that is `spared`.
    """

    def __init__(self, store: AddressStore, observer: Observer, spared: Spared | None = None) -> None:
        self.store = store
        self._observer, self._spared = observer, spared
        self._full = self._evicted = -inf
        store.report = self._tell_evicted

    def __repr__(self) -> str:
        return f"<Suppressions {self.store!r}>"

    def find(self, caller: str, address: str, *, bulk: bool = False) -> Suppression | None:
        """Return what keeps a mail to an address back now, None where it may go."""
        record = self.store.find(whose(caller, address))
        return None if record is None else record.suppression(self.store.now(), Address(address).spelling, bulk=bulk)

    # A mail.

    def leave_out(self, job: Job) -> None:
        """Have nothing sent to those recipients of a mail that are suppressed. One without others has none to send."""
        for _ in self.leave_out_in_steps(job):
            pass

    def look(self, job: Job) -> None:
        """Note on a mail whether something is known of its recipients, which their replies may change."""
        job.is_known = any(self.store.find(whose(job.caller, address)) is not None for address in job.pending)

    def leave_out_in_steps(self, job: Job) -> Steps[None]:
        """Do as `leave_out`, for a mail to many. A retry goes again to those about whom a relay has said something."""
        now, results = self.store.now(), []
        for address in job.pending:
            if address in job.results:
                continue
            record = self.store.find(whose(job.caller, address))
            if record is not None:
                job.is_known = True
                suppression = record.suppression(now, Address(address).spelling, bulk=job.priority is _BULK)
                if suppression is not None:
                    results.append(result_of(address, suppression))
            yield
        job.leave_out(results)

    def tell(self, job: Job) -> None:
        """Notify the observer of each recipient that is left out of a mail."""
        for result in job.results.values():
            if (found := result.suppression) is not None:
                self._observer.notify(RecipientSuppressed(job.id, job.caller, result.address, found, job.trace))

    # Replies.

    def note(self, job: Job, results: Iterable[RecipientResult]) -> None:
        """Suppress the recipients that the relay refuses as such, and release those that it accepts."""
        for result in results:
            if result.accepted:
                if self.store.count:
                    self._release(job, result.address)
            elif self._suppresses(job, result):
                now, spelling = self.store.now(), Address(result.address).spelling
                rule = partial(suppressing.refused, now=now, reason=result.said, spelling=spelling)
                changed = self.store.note(whose(job.caller, result.address), rule)
                self.tell_change(job.caller, result.address, changed, job.trace, mail_id=job.id)

    def _suppresses(self, job: Job, result: RecipientResult) -> bool:
        if not (result.is_about_address and refuses_address(result)):
            return False
        return self._spared is None or not self._spared(result.address, job.id)

    def _release(self, job: Job, address: str) -> None:
        place = whose(job.caller, address)
        if self.store.find(place) is not None:
            changed = self.store.note(place, suppressing.delivered)
            self.tell_change(job.caller, address, changed, job.trace, mail_id=job.id)

    def tell_change(self, caller: str, address: str, changed: Changed, trace: Trace, *, mail_id: str = "") -> None:
        """Notify the observer of what a rule has changed, or could not."""
        if changed.is_full:
            last, self._full = self._full, self.store.now()
            self._observer.notify(SuppressionsFull(caller, self.store.count, self._full - last < _AGAIN_SECONDS))
        if changed.evicted is not None:
            self._tell_evicted(caller, changed.evicted)
        before, after = changed.before or AddressRecord(), changed.after or AddressRecord()
        is_joined = after.spellings != before.spellings  # a further spelling is suppressed until the same time
        for was, now, is_other in (
            (before.refused, after.refused, is_joined),
            (before.complained, after.complained, False),
        ):
            if now is not None and (is_other or now != was):
                self._observer.notify(AddressSuppressed(caller, address, now, mail_id, trace))
            elif was is not None and now is None:
                self._observer.notify(SuppressionLifted(caller, address, was, mail_id, trace))

    def _tell_evicted(self, caller: str, lost: Evicted) -> None:
        last, self._evicted = self._evicted, self.store.now()
        repeated = self._evicted - last < _AGAIN_SECONDS
        self._observer.notify(SuppressionsEvicted(caller, lost.caller, len(lost.names), repeated))


def whose(caller: str, address: str) -> CallersAddress:
    """Return the key of the record of an address in wire form: its caller, and its mailbox."""
    return CallersAddress(caller, Address(address).key)


def result_of(address: str, suppression: Suppression) -> RecipientResult:
    """Return the result of a recipient to whom nothing is sent."""
    words = f"nothing was sent, since the address is suppressed: {suppression.reason}"
    return RecipientResult(address, reply=words, suppression=suppression)
