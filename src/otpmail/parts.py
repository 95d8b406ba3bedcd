"""Builds the parts of a service that belong together, each from its sections of the settings. `app` joins them."""

from collections.abc import Callable
from random import random
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple, Self

from otpmail.api.access import Access
from otpmail.api.calls import Ended
from otpmail.api.service import Api
from otpmail.compose.catalog import Templates
from otpmail.delivery.backlog import NEAR, Backlog
from otpmail.delivery.dispatch import Dispatcher
from otpmail.delivery.intake import Intake
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.delivery.ownership import Ownership
from otpmail.delivery.queue import MailQueue
from otpmail.delivery.standby import Standby
from otpmail.delivery.supply import Supply
from otpmail.delivery.suppressions import Spared, Suppressions
from otpmail.delivery.waiters import Waiters
from otpmail.delivery.worker import Worker
from otpmail.events import Observer
from otpmail.limits.descriptors import FOR_PROBES, connections_of_callers, descriptor_limit, lowest_free
from otpmail.limits.memory import Memory
from otpmail.limits.places import Places
from otpmail.mail.admission import Admission
from otpmail.mail.rates import Rates
from otpmail.mail.service import MailService
from otpmail.otp.codes import CodeBook
from otpmail.otp.eviction import EvictionReport
from otpmail.otp.policy import Policy
from otpmail.otp.service import OtpService
from otpmail.relays.failover import Failover
from otpmail.relays.relay import Relay
from otpmail.settings import Settings
from otpmail.smtp.mode import Mode
from otpmail.store.memory import MemoryStore
from otpmail.store.open import AnyStore, build_store

if TYPE_CHECKING:  # only a service with HTTP_PORT imports these
    from otpmail.telemetry.metrics import Metrics
    from otpmail.web.binding import DevDoor, SharedDoor
    from otpmail.web.server import WebServer


class Base(NamedTuple):
    """The parts from which most others are built."""

    settings: Settings
    store: AnyStore
    queue: MailQueue
    memory: Memory
    book: CodeBook

    @classmethod
    def of(cls, settings: Settings, clock: Callable[[], float] | None = None) -> Self:
        """Build these from the settings, and with the clock of a store in memory. The store is not opened yet."""
        book = CodeBook.of(settings.otp)
        rules = Policy.of(settings.otp)
        store = build_store(settings.store, settings.mail, settings.otp, rules=rules, proofs=book, clock=clock)
        memory = Memory(settings.mail.memory_octets, store.mails, store.challenges, store.addresses)
        return cls(settings, store, MailQueue(), memory, book)


class Delivery(NamedTuple):
    """The parts that take an accepted mail to a relay."""

    lifecycle: Lifecycle
    backlog: Backlog
    waiters: Waiters
    relays: list[Relay]
    failover: Failover
    workers: list[Worker]


class UseCases(NamedTuple):
    """The parts that callers use: what accepts mails and codes, and what takes up those that the store has kept."""

    admission: Admission
    mails: MailService
    codes: OtpService
    intake: Intake


def build_supply(base: Base) -> Supply:
    """Build what tells streams how many mails should wait, by the largest window of a relay."""
    settings = base.settings
    window = max(Mode.allowed_by(relay.mode).window(relay.window) for relay in settings.relays)
    return Supply(base.queue, workers=settings.mail.workers, window=window)


def build_metrics(base: Base, delivery: Callable[[], Delivery], ready: Callable[[], bool]) -> "Metrics | None":
    """Build the metrics: none without HTTP_PORT. A scrape calls both functions."""
    settings = base.settings
    if settings.server.http_port is None:
        return None
    from otpmail.telemetry.gauges import Readings
    from otpmail.telemetry.metrics import Metrics

    readings = Readings(
        connections=lambda: [connection for worker in delivery().workers for connection in worker.connections],
        waiting=lambda: delivery().backlog.waiting(),  # noqa: PLW0108  it is there at the first scrape only
        unsettled=lambda: len(delivery().lifecycle) + len(delivery().backlog),
        unwritten=lambda: base.store.unwritten,
        memory=base.memory.parts,
        memory_limit=settings.mail.memory_octets,
        ready=ready,
        limits=lambda: [relay.limits for relay in delivery().relays],
    )
    return Metrics(readings)


def build_web(
    base: Base,
    api: Api,
    metrics: "Metrics | None",
    problem: Callable[[], str],
    *,
    connections: int,
    shared: "SharedDoor | None",
    dev: "DevDoor | None",
) -> "WebServer | None":
    """Build the door of HTTP: none without metrics. Its probes answer with those, and with the `problem`, if any."""
    if metrics is None:
        return None
    from otpmail.telemetry.exposition import Exposition
    from otpmail.web.server import WebServer

    probe = Exposition(metrics.registry, problem).answer
    return WebServer(base.settings.server, api, probe, connections=connections, shared=shared, dev=dev)


def build_delivery(base: Base, observer: Observer, spared: Spared | None) -> Delivery:
    """Build what delivers mails, from the queue to the relays, and what follows the store's mails.

    No reply suppresses an address that is `spared`.
    """
    settings, store = base.settings, base.store
    dispatcher, waiters = Dispatcher(base.queue), Waiters()
    count = settings.mail.workers
    alone = len(settings.relays) == 1
    relays = [Relay(relay, observer, workers=count, alone=alone, random=random) for relay in settings.relays]
    failover = Failover(relays)
    lifecycle = Lifecycle(
        dispatcher,
        store.mails,
        waiters,
        observer,
        random=random,
        places=Places(settings.mail.queue_size, now=monotonic),
        memory=base.memory,
        suppressions=Suppressions(store.addresses, observer, spared),
        on_uncertain=settings.mail.email_on_uncertain,
        outage=lambda: failover.outage,
        relays=len(relays),
    )
    store.mails.follow(Ownership(lifecycle, waiters))
    # A stream waits once STREAM_UNSETTLED of its mails are in memory, in three lanes, but not for those in the file.
    near = min(NEAR, settings.mail.stream_unsettled // 4)
    backlog = Backlog(lifecycle, base.queue, base.memory, observer, store.contents, now=store.mails.now, near=near)
    standby = Standby(count)
    workers = [Worker(failover, dispatcher, lifecycle, observer, standby) for _ in range(count)]
    return Delivery(lifecycle, backlog, waiters, relays, failover, workers)


def build_use_cases(base: Base, delivery: Delivery, observer: Observer, *, pause_seconds: float) -> UseCases:
    """Build what callers use. Raises SettingsError for a template that can't be used."""
    settings, store, lifecycle = base.settings, base.store, delivery.lifecycle
    admission = Admission(
        lifecycle,
        base.queue,
        delivery.failover,
        base.memory,
        pause_seconds=pause_seconds,
        has_backlog=store.contents is not None,
    )
    rates = Rates(store.challenges, observer, settings.otp.limits_in_shadow)
    mails = MailService(
        settings.mail, lifecycle, delivery.waiters, store.mails, admission, backlog=delivery.backlog, rates=rates
    )
    templates = Templates.load(settings.otp, settings.product.product)
    if isinstance(store, MemoryStore):  # another one keeps records where they take no memory of this process
        store.challenges.on_evicted = EvictionReport(observer, store.challenges.now)
    codes = OtpService(
        settings.otp,
        store.challenges,
        mails,
        templates,
        observer,
        codes=base.book,
        issue=store.issue,
        relays=[relay.endpoint for relay in settings.relays],
    )
    intake = Intake(store.mails, lifecycle, code_of=base.book.code_of, follow_code=codes.follow)
    return UseCases(admission, mails, codes, intake)


def build_api(base: Base, use_cases: UseCases, observer: Observer, *, ended: Ended, batch_seconds: float) -> Api:
    """Build what every door shares. `ended` is what a door raises in a call that has ended."""
    mail = base.settings.mail
    return Api(
        base.settings.server,
        codes=use_cases.codes,
        mails=use_cases.mails,
        observer=observer,
        most_octets=mail.most_request_octets,
        most_unsettled=mail.stream_unsettled,
        ended=ended,
        batch_seconds=batch_seconds,
    )


def count_connections(settings: Settings) -> int:
    """Return how many connections of callers each address and HTTP_PORT may have, so that relays have theirs."""
    server, workers = settings.server, settings.mail.workers
    kept = 2 * workers + (0 if server.http_port is None else FOR_PROBES)  # each worker may have a successor
    return connections_of_callers(
        server.max_connections,
        limit=descriptor_limit(),
        in_use=lowest_free(),
        kept=kept,
        listeners=len(server.hosts) + (server.http_port is not None),
    )


def show_certificate(metrics: "Metrics | None", access: Access) -> None:
    """Have the metrics show when the certificate of the port expires, if there are metrics and a certificate."""
    if metrics is not None and access.certificate_not_after is not None:
        metrics.add_certificate(lambda: access.certificate_not_after or 0.0)
