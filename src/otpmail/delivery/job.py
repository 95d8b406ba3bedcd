"""One accepted mail on its way: what is to be sent, on what terms, and how far it has come.

All of it is what a store can keep. Callers that wait for it in this process are in `delivery.waiters`, its timers in
`delivery.lifecycle` and `delivery.deadlines`.
"""

from collections.abc import Iterable
from typing import Self

from otpmail.callers import NO_TRACE, Trace
from otpmail.errors import ConnectionLost
from otpmail.limits.memory import LABEL_OCTETS, MAIL_OCTETS, RECIPIENT_OCTETS
from otpmail.model import Envelope, IssuedCode, Labels, Mail, MailState, Priority, RecipientResult
from otpmail.smtp.reply_kind import refuses_mail
from otpmail.smtp.transaction import GROUP, Results
from otpmail.store.base import Entry, Progress

DEFERRED = "\0deferred"
"""Whose turn a deferred mail waits for: no caller has this name."""


class Job:
    """An accepted mail until it settles. `pending` are the recipients that still want an answer, `offer` the next try.

    `deadline` is in seconds since the epoch, on the store's clock. A `guaranteed` job is retried until then whether or
    not anybody waits. `losses` counts connections that ended under it, `copies` those of them after which the relay may
    have accepted it. `uncertain` are the recipients for whom it may have.

    `source` is whose mail it is for the limits: a caller, or an anonymous one's connection or stream. `turn` names the
    mails that it takes turns with in its lane. `is_fresh` is whether it is urgent and was never deferred, `octets` what
    it takes in memory. `is_announced`: observers know that it was accepted. `is_known`: something is known of a
    recipient's address. `next_attempt_time` is set while it is deferred. `relay` is the one that had it last. These two
    and `trace`, for the log, no store keeps.
    """

    __slots__ = (
        *("attempts", "caller", "copies", "create_time", "deadline", "deaths", "deferred", "envelope", "guaranteed"),
        *("id", "is_announced", "is_begun", "is_fresh", "is_known", "is_noted_first", "issued", "labels", "losses"),
        *(
            "message_id",
            "next_attempt_time",
            "octets",
            "offer",
            "pending",
            "priority",
            "relay",
            "request_id",
            "results",
            "source",
        ),
        *("state", "trace", "turn", "uncertain", "_settled"),
    )

    def __init__(
        self,
        mail_id: str,
        caller: str,
        message_id: str,
        create_time: float,
        *,
        envelope: Envelope,
        priority: Priority,
        deadline: float,
        guaranteed: bool,
        request_id: str = "",
        issued: IssuedCode | None = None,
        labels: Labels = (),
        source: str = "",
        trace: Trace = NO_TRACE,
    ) -> None:
        self.id, self.caller, self.message_id = mail_id, caller, message_id
        self.create_time, self.deadline = create_time, deadline
        self.request_id, self.issued, self.labels = request_id, issued, labels
        self.envelope, self.pending = envelope, envelope.recipients
        self.priority, self.guaranteed = priority, guaranteed
        self.source = self.turn = source or caller
        self.trace = trace
        self.octets = len(envelope.content) + MAIL_OCTETS + RECIPIENT_OCTETS * len(self.pending)
        if labels:
            self.octets += sum([LABEL_OCTETS + _WIDEST * (len(name) + len(value)) for name, value in labels])
        self._begin()

    def _begin(self) -> None:
        """Set the fields that change on its way to their values before the first attempt."""
        self.relay = ""
        self.is_fresh = self.priority is _URGENT
        self.is_announced = False
        self.state = _QUEUED
        self.attempts = self.losses = self.copies = self.deaths = 0
        self.is_noted_first = self.is_begun = self.is_known = False
        self.offer = self.envelope.only(self.offered) if len(self.pending) > GROUP else self.envelope
        self.deferred: tuple[str, ...] = ()
        self.uncertain: frozenset[str] = frozenset()
        self.results: dict[str, RecipientResult] = {}
        self.next_attempt_time: float | None = None
        self._settled: Mail | None = None

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.state.name} {self.priority.name} {len(self.pending)} pending>"

    @property
    def offered(self) -> tuple[str, ...]:
        """The recipients that the next transaction is for: a group of those that are pending."""
        return self.pending[:GROUP]

    @property
    def is_left_out(self) -> bool:
        """Whether nothing is sent to any of its recipients, since all of them are suppressed."""
        if self.pending or not self.results:
            return False
        return all(result.suppression is not None for result in self.results.values())

    def defer(self) -> None:
        """Take turns with all deferred mails from now on, so that no number of retries is ahead of fresh mails."""
        self.is_fresh = False
        self.turn = DEFERRED

    def note_refusal(self, results: Iterable[RecipientResult]) -> bool:
        """Keep the replies of a relay that refused it because too much came at once; returns whether it did so before.

        That is no attempt. The next one replaces these replies.
        """
        again = any(result.address in self.results for result in results)
        self.results.update((result.address, result) for result in results)
        return again

    def narrow(self, pending: tuple[str, ...]) -> None:
        """Go on for these recipients alone, group by group."""
        self.pending = pending
        self.offer = self.envelope.only(self.offered)

    def leave_out(self, results: Iterable[RecipientResult]) -> None:
        """Send nothing to the recipients of these results, which say why."""
        left_out = {result.address: result for result in results}
        self.results |= left_out
        self.narrow(tuple([address for address in self.pending if address not in left_out]))

    def note(self, results: Results) -> None:
        """Keep the relay's replies. Those that it was not asked about, or that were too many at once, stay pending."""
        for result in results:
            self.results[result.address] = result
            if result.accepted:
                # A refusal now says nothing of an earlier copy that may have been accepted.
                if self.uncertain:
                    self.uncertain -= {result.address}
            elif not refuses_mail(result):
                self.deferred += (result.address,)
        answered = {result.address for result in results}
        self.narrow(tuple([address for address in self.pending if address not in answered]))

    def end_attempt(self) -> None:
        """Count an attempt; those that were deferred in it are pending again."""
        self.narrow(self.deferred + self.pending)
        self.deferred = ()
        self.attempts += 1

    def lose(self, error: ConnectionLost) -> None:
        """Note that the connection ended: its words stand for the reply to each recipient that has none."""
        offered, words = error.offered or self.offered, str(error)
        self.results |= {
            address: RecipientResult(address, reply=words)
            for address in offered
            if address not in self.results or not self.results[address].code
        }
        self.losses += not error.not_started
        if error.uncertain:
            self.uncertain = self.uncertain.union(offered)
            self.attempts += 1
            self.copies += 1

    @property
    def is_refused(self) -> bool:
        """Whether the relay has refused the mail to a recipient for good."""
        return any(map(refuses_mail, self.results.values()))

    def explain(self, words: str) -> None:
        """Say why there is no reply, where neither the relay nor the connection has said anything."""
        for address in self.pending:
            self.results.setdefault(address, RecipientResult(address, reply=words))

    @property
    def settled(self) -> bool:
        """Whether it has reached its final state."""
        return self.state.final

    @property
    def known(self) -> tuple[RecipientResult, ...]:
        """The relay's last reply about each recipient, in the order of the envelope."""
        results = self.results
        return tuple([results.get(address) or RecipientResult(address) for address in self.envelope.recipients])

    @property
    def mail(self) -> Mail:
        """The mail as its caller sees it now."""
        return self._settled or self._snapshot(self.known if self.attempts or self.results else (), None)

    def settle(self, state: MailState, recipients: tuple[RecipientResult, ...], settle_time: float) -> Mail:
        """Give the job its final state, with the relay's last reply about each recipient; returns the mail."""
        self.state = state
        self._settled = mail = self._snapshot(recipients, settle_time)
        return mail

    def _snapshot(self, recipients: tuple[RecipientResult, ...], settle_time: float | None) -> Mail:
        return Mail(
            self.id,
            self.caller,
            self.message_id,
            self.create_time,
            self.request_id,
            self.state,
            recipients,
            self.attempts,
            settle_time,
            self.issued,
            self.labels,
            self.next_attempt_time,
        )

    # The part that a store keeps.

    @property
    def progress(self) -> Progress:
        """How far it has come: what a later attempt must know, also in another process."""
        return Progress(
            pending=self.deferred + self.pending,  # those deferred in earlier groups of this attempt, too
            results=tuple(self.results.values()),
            uncertain=tuple(sorted(self.uncertain)),
            attempts=self.attempts,
            losses=self.losses,
            copies=self.copies,
            deaths=self.deaths,
        )

    def entry(self, fingerprint: bytes = b"") -> Entry:
        """Return what a store keeps of it; `fingerprint` belongs to its request id."""
        return Entry(
            mail=self.mail,
            envelope=self.envelope,
            priority=self.priority,
            deadline=self.deadline,
            progress=self.progress,
            fingerprint=fingerprint,
        )

    @classmethod
    def finished(cls, mail: Mail) -> Self:
        """Return a job that has nothing left to do: what a repeated request finds of a settled mail."""
        nothing = Envelope("", (), b"")
        job = cls(
            mail.id,
            mail.caller,
            mail.message_id,
            0.0,
            envelope=nothing,
            priority=Priority.NORMAL,
            deadline=0.0,
            guaranteed=False,
        )
        job.request_id, job.issued = mail.request_id, mail.issued
        job.state, job._settled = mail.state, mail
        return job

    @classmethod
    def from_entry(cls, entry: Entry) -> Self:
        """Return the job that goes on where the entry stands: only guaranteed mails are kept, so it is one."""
        mail, progress = entry.mail, entry.progress
        job = cls(
            mail.id,
            mail.caller,
            mail.message_id,
            mail.create_time,
            envelope=entry.envelope,
            priority=entry.priority,
            deadline=entry.deadline,
            guaranteed=True,
            request_id=mail.request_id,
            issued=mail.issued,
            labels=mail.labels,
        )
        job.narrow(progress.pending)
        job.results = {result.address: result for result in progress.results}
        job.uncertain = frozenset(progress.uncertain)
        job.attempts, job.losses = progress.attempts, progress.losses
        job.copies, job.deaths = progress.copies, progress.deaths
        return job


_WIDEST = 4  # octets that a character of a string takes at most
_QUEUED, _URGENT = MailState.QUEUED, Priority.URGENT  # naming a member takes its time
