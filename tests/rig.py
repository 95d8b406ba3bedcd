"""The use cases of mail over the real lifecycle and memory store; the relay and the clock are the test's own hand."""

from __future__ import annotations

from sys import maxsize
from typing import TYPE_CHECKING, Any, TypeVar

from otpmail.callers import ANONYMOUS, Call, Caller
from otpmail.delivery.backlog import NEAR, Backlog
from otpmail.delivery.dispatch import Dispatcher
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.delivery.queue import MailQueue
from otpmail.delivery.suppressions import Suppressions
from otpmail.delivery.waiters import Waiters
from otpmail.events import ALL_EVENTS, Event
from otpmail.limits.memory import Memory
from otpmail.limits.places import Places
from otpmail.mail.admission import Admission
from otpmail.mail.rates import Rates
from otpmail.mail.service import MailService
from otpmail.model import MailState, RecipientResult
from otpmail.settings import MailSettings
from otpmail.store.memory import MemoryStore
from otpmail.store.retention import Retention
from rules import POLICY

if TYPE_CHECKING:
    from collections.abc import Callable

    from otpmail.delivery.job import Job
    from otpmail.store.base import ContentStore, MailStore
    from otpmail.timers import CallLater

NOW = 1_700_000_000.0
EventT = TypeVar("EventT", bound=Event)


def call_of(name: str = ANONYMOUS.name) -> Call:
    """Return a call of that caller."""
    return Call(Caller(name), "unix:")


class RelayState:
    """Says whether the relay is down."""

    down = False
    outage = ""
    retry_after = 7.0


class MailRig:
    """A MailService with everything around it in the test's hands.

    `high_water` is the queue's mark. A stream pauses for `pause` seconds before a queue above it, and looks at the
    relay each `look` seconds. `clock` tells streams for how long they have had the loop; by default it stands still.
    `memory` is the budget in octets. Mails may wait in `contents` beyond `near` of them, whose timers are those of
    `call_later`.
    """

    event_types = ALL_EVENTS

    def __init__(
        self,
        *,
        high_water: int = maxsize,
        pause: float = 600.0,
        look: float = 600.0,
        clock: Callable[[], float] = lambda: 0.0,
        store: MailStore | None = None,
        contents: ContentStore | None = None,
        near: int = NEAR,
        call_later: CallLater | None = None,
        memory: int = maxsize,
        **settings: Any,
    ) -> None:
        self.now = NOW
        self.relay = RelayState()
        self.queue = MailQueue(high_water=high_water)
        self.dispatcher = Dispatcher(self.queue)
        self.waiters = Waiters()
        self.events: list[Event] = []
        self.memory = MemoryStore(lambda: self.now, retention=Retention(seconds=3600, count=100), rules=POLICY)
        self.store = store or self.memory.mails
        given = MailSettings(**{"email_from": "Shop <shop@example.org>", **settings})
        self.memory_budget = Memory(memory, self.memory.mails, self.memory.challenges)
        self.lifecycle = Lifecycle(
            self.dispatcher,
            self.store,
            self.waiters,
            self,
            random=lambda: 0.5,
            places=Places(given.queue_size, now=lambda: self.now),
            memory=self.memory_budget,
            suppressions=Suppressions(self.memory.addresses, self),
        )
        self.admission = Admission(
            self.lifecycle,
            self.queue,
            self.relay,
            self.memory_budget,
            pause_seconds=pause,
            look_seconds=look,
            clock=clock,
        )
        self.backlog = Backlog(
            self.lifecycle,
            self.queue,
            self.memory_budget,
            self,
            contents,
            now=lambda: self.now,
            call_later=call_later,
            near=near,
        )
        self.mails = MailService(
            given,
            self.lifecycle,
            self.waiters,
            self.store,
            self.admission,
            backlog=self.backlog,
            rates=Rates(self.memory.challenges, self, frozenset()),
        )

    def notify(self, event: Event) -> None:
        """Keep the event."""
        self.events.append(event)

    def seen(self, kind: type[EventT]) -> list[EventT]:
        """Return the events of that kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def settle(self, job: Job | None = None, code: int = 250) -> Job:
        """Be worker and relay for a job, the next in the queue if none is given; returns it."""
        job = self.queue.get_nowait() if job is None else job
        if job.state is MailState.QUEUED:
            self.queue.discard(job)
            assert self.lifecycle.start(job)
        self.lifecycle.replied(job, tuple(RecipientResult(address, code, "", "said") for address in job.pending))
        return job
