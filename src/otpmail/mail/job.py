"""One accepted mail on its way, as the queue, the workers and the delivery pass it on."""

import asyncio
from typing import Self

from otpmail.model import Envelope, Mail, MailState, Priority, RecipientResult
from otpmail.smtp.transaction import GROUP


class Job:
    """One accepted mail on its way: what is to be sent, what the relay said so far, and who waits for the end.

    `mail` is replaced as its state changes; `settled` gets the final one. `deadline` is on the loop's clock.
    `promised` jobs are kept trying whether or not anybody waits. `losses` counts connections that ended under it,
    `copies` those by which the relay may have taken it unheard, and `uncertain` are the recipients it may have then.
    """

    __slots__ = (
        *("attempts", "callers", "copies", "deadline", "envelope", "expiry", "losses", "mail", "pending", "priority"),
        *("deferred", "promised", "results", "retry", "settled", "uncertain", "watchers"),
    )

    def __init__(self, mail: Mail, envelope: Envelope, priority: Priority, deadline: float, *, promised: bool) -> None:
        self.mail = mail
        self.envelope = envelope
        self.priority = priority
        self.deadline = deadline
        self.promised = promised
        self.attempts = 0
        self.callers = 0
        self.losses = 0
        self.copies = 0
        self.uncertain: set[str] = set()
        self.pending = envelope.recipients
        self.deferred: tuple[str, ...] = ()
        self.results: dict[str, RecipientResult] = {}
        self.settled: asyncio.Future[Mail] = asyncio.get_running_loop().create_future()
        self.expiry: asyncio.TimerHandle | None = None
        self.retry: asyncio.TimerHandle | None = None
        self.watchers: list[asyncio.Queue[Mail]] = []

    def __repr__(self) -> str:
        return f"<Job {self.mail.id} {self.mail.state.name} {self.priority.name} {len(self.pending)} pending>"

    @classmethod
    def finished(cls, mail: Mail) -> Self:
        """A job that has nothing left to do: what a repeated request finds."""
        job = cls(mail, _NOTHING, Priority.NORMAL, 0.0, promised=False)
        job.settled.set_result(mail)
        return job

    @property
    def offered(self) -> tuple[str, ...]:
        """The recipients for whom the relay is offered the mail next: a group of those that are pending."""
        return self.pending[:GROUP]

    @property
    def given_up(self) -> bool:
        """Nobody waits for it and nobody was promised it."""
        return not self.promised and self.callers == 0

    def change(
        self,
        *,
        state: MailState,
        recipients: tuple[RecipientResult, ...] | None = None,
        settle_time: float | None = None,
    ) -> None:
        """Give the mail this state, and show it to whoever watches. Without `recipients`, their results stay."""
        last = self.mail
        self.mail = Mail(  # not dataclasses.replace, which takes five times as long, twice for every mail
            last.id,
            last.caller,
            last.message_id,
            last.create_time,
            last.request_id,
            state,
            last.recipients if recipients is None else recipients,
            self.attempts,
            settle_time,
            last.issued,
        )
        for watcher in self.watchers:
            watcher.put_nowait(self.mail)


_NOTHING = Envelope("", (), b"")
