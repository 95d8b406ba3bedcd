"""One accepted mail on its way, as the queue, the workers and the delivery pass it on."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Self

from otpmail.errors import Unavailable
from otpmail.model import Envelope, Mail, MailState, Priority, RecipientResult
from otpmail.smtp.transaction import GROUP

Tell = Callable[["Job", Mail | Unavailable], None]
"""Is told of a job's end: the mail as it settled, or that the service stops first. It must not raise."""


class Job:
    """One accepted mail on its way: what is to be sent, what the relay said so far, and who waits for the end.

    `deadline` is on the loop's clock. `guaranteed` jobs are kept trying whether or not anybody waits. `losses` counts
    connections that ended under it, `copies` those by which the relay may have taken it unheard, and `uncertain` are
    the recipients it may have then.
    """

    __slots__ = (
        *("_mail", "_waiting", "attempts", "callers", "copies", "deadline", "deferred", "envelope", "id", "losses"),
        *("pending", "priority", "guaranteed", "request_id", "results", "retry", "state", "uncertain", "watchers"),
    )

    def __init__(
        self, mail: Mail, envelope: Envelope, priority: Priority, deadline: float, *, guaranteed: bool
    ) -> None:
        self._mail = mail
        self.id = mail.id
        self.request_id = mail.request_id
        self.state = mail.state
        self.envelope = envelope
        self.priority = priority
        self.deadline = deadline
        self.guaranteed = guaranteed
        self.attempts = mail.attempts
        self.callers = 0
        self.losses = 0
        self.copies = 0
        self.pending = envelope.recipients
        # Empty ones that all share, since most mails need none.
        self.uncertain: frozenset[str] = frozenset()
        self.deferred: tuple[str, ...] = ()
        self.watchers: tuple[asyncio.Queue[Mail], ...] = ()
        self._waiting: tuple[Tell, ...] = ()
        self.results: dict[str, RecipientResult] = {}
        self.retry: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.state.name} {self.priority.name} {len(self.pending)} pending>"

    @classmethod
    def finished(cls, mail: Mail) -> Self:
        """A job that has nothing left to do: what a repeated request finds."""
        return cls(mail, _NOTHING, Priority.NORMAL, 0.0, guaranteed=False)

    @property
    def offered(self) -> tuple[str, ...]:
        """The recipients for whom the relay is offered the mail next: a group of those that are pending."""
        return self.pending[:GROUP]

    @property
    def offer(self) -> Envelope:
        """What the relay is offered next: the mail for that group."""
        envelope = self.envelope
        if self.pending is envelope.recipients and len(self.pending) <= GROUP:  # so it is with nearly every mail
            return envelope
        return envelope.only(self.offered)

    @property
    def abandoned(self) -> bool:
        """Nobody waits for it and nobody was promised it."""
        return not self.guaranteed and self.callers == 0

    @property
    def settled(self) -> bool:
        """Whether it has reached its final state."""
        return self.state.final

    def add_done_callback(self, tell: Tell) -> None:
        """Have this called once when the job ends: now, where it has."""
        if self.settled:
            tell(self, self.mail)
        else:
            self._waiting = (*self._waiting, tell)

    def end(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[Mail]:
        """A future for the mail as it ends, one for each who asks: cancelling it takes nothing from the others.

        It raises Unavailable where the service stops first.
        """
        end: asyncio.Future[Mail] = loop.create_future()
        self.add_done_callback(partial(_resolve, end))
        return end

    def tell(self, outcome: Mail | Unavailable) -> None:
        """Let whoever waits for the end have this; nobody is told twice."""
        waiting, self._waiting = self._waiting, ()
        for tell in waiting:
            try:
                tell(self, outcome)
            except Exception as error:  # noqa: BLE001  a fault of ours over one who waits is not to harm the others
                told = {"message": "the end of a mail was not taken", "exception": error}
                asyncio.get_running_loop().call_exception_handler(told)

    @property
    def mail(self) -> Mail:
        """The mail as its caller sees it now. It is made when somebody looks: most states are over before that."""
        last = self._mail
        if last.state is not self.state or last.attempts != self.attempts:
            self._mail = self._as_mail(self.state, last.recipients)
        return self._mail

    def change(self, state: MailState) -> None:
        """Give the mail this state, and show it to whoever watches; the recipients' results stay as they are."""
        self.state = state
        if self.watchers:
            self._show()

    @property
    def known(self) -> tuple[RecipientResult, ...]:
        """What the relay last said of each recipient."""
        results = self.results
        return tuple([results.get(address) or RecipientResult(address) for address in self.envelope.recipients])

    def report(self, state: MailState, known: tuple[RecipientResult, ...], settle_time: float | None = None) -> Mail:
        """Give the mail this state with what is known of each recipient, and show it; returns it."""
        self.state = state
        self._mail = self._as_mail(state, known, settle_time)
        if self.watchers:
            self._show()
        return self._mail

    def _as_mail(
        self, state: MailState, recipients: tuple[RecipientResult, ...], settle_time: float | None = None
    ) -> Mail:
        # Not dataclasses.replace, which takes five times as long.
        last = self._mail
        return Mail(
            last.id,
            last.caller,
            last.message_id,
            last.create_time,
            last.request_id,
            state,
            recipients,
            self.attempts,
            settle_time,
            last.issued,
        )

    def _show(self) -> None:
        for watcher in self.watchers:
            watcher.put_nowait(self.mail)


def _resolve(end: asyncio.Future[Mail], _: Job, outcome: Mail | Unavailable) -> None:
    if end.done():  # cancelled
        return
    if isinstance(outcome, Mail):
        end.set_result(outcome)
    else:
        end.set_exception(outcome)
        end.exception()  # not everybody who waits looks


_NOTHING = Envelope("", (), b"")
