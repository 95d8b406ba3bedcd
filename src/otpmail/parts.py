"""Builds the parts of a service that belong together, each from its sections of the settings. `app` joins them."""

from collections.abc import Callable
from random import random
from time import monotonic
from typing import NamedTuple

from otpmail.delivery.backlog import NEAR, Backlog
from otpmail.delivery.dispatch import Dispatcher
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.delivery.queue import MailQueue
from otpmail.delivery.standby import Standby
from otpmail.delivery.supply import Supply
from otpmail.delivery.waiters import Waiters
from otpmail.delivery.worker import Worker
from otpmail.events import Observer
from otpmail.limits.descriptors import connections_of_callers, descriptor_limit, lowest_free
from otpmail.limits.memory import Memory
from otpmail.limits.places import Places
from otpmail.relays.failover import Failover
from otpmail.relays.relay import Relay
from otpmail.settings import Settings
from otpmail.smtp.mode import Mode
from otpmail.store.base import ContentStore, MailStore
from otpmail.telemetry.http import MOST_CONNECTIONS
from otpmail.telemetry.metrics import Metrics


class Delivery(NamedTuple):
    """The parts that take an accepted mail to a relay."""

    lifecycle: Lifecycle
    backlog: Backlog
    waiters: Waiters
    relays: list[Relay]
    failover: Failover
    workers: list[Worker]


def build_supply(settings: Settings, queue: MailQueue) -> Supply:
    """Build what tells streams how many mails should wait, by the largest window of a relay."""
    window = max(Mode.allowed_by(relay.mode).window(relay.window) for relay in settings.relays)
    return Supply(queue, workers=settings.mail.workers, window=window)


def build_metrics(
    settings: Settings, memory: Memory, delivery: Callable[[], Delivery], ready: Callable[[], bool]
) -> tuple[Metrics, tuple[Observer, ...]]:
    """Build the metrics, and the observers among them: none without HTTP_PORT. A scrape calls both functions."""
    metrics = Metrics(
        connections=lambda: [connection for worker in delivery().workers for connection in worker.connections],
        waiting=lambda: delivery().backlog.waiting(),  # noqa: PLW0108  it is there at the first scrape only
        unsettled=lambda: len(delivery().lifecycle) + len(delivery().backlog),
        memory=memory.parts,
        memory_limit=settings.mail.memory_octets,
        ready=ready,
        limits=lambda: [relay.limits for relay in delivery().relays],
    )
    return metrics, () if settings.server.http_port is None else (metrics,)


def build_delivery(
    settings: Settings,
    queue: MailQueue,
    store: MailStore,
    memory: Memory,
    observer: Observer,
    *,
    contents: ContentStore | None,
) -> Delivery:
    """Build what delivers mails, from the queue to the relays."""
    dispatcher, waiters = Dispatcher(queue), Waiters()
    count = settings.mail.workers
    alone = len(settings.relays) == 1
    relays = [Relay(relay, observer, workers=count, alone=alone, random=random) for relay in settings.relays]
    failover = Failover(relays)
    lifecycle = Lifecycle(
        dispatcher,
        store,
        waiters,
        observer,
        random=random,
        places=Places(settings.mail.queue_size, now=monotonic),
        memory=memory,
        on_uncertain=settings.mail.email_on_uncertain,
        outage=lambda: failover.outage,
        relays=len(relays),
    )
    # A stream waits once STREAM_UNSETTLED of its mails are in memory, in three lanes, but not for those in the file.
    near = min(NEAR, settings.mail.stream_unsettled // 4)
    backlog = Backlog(lifecycle, queue, memory, observer, contents, now=store.now, near=near)
    standby = Standby(count)
    workers = [Worker(failover, dispatcher, lifecycle, observer, standby) for _ in range(count)]
    return Delivery(lifecycle, backlog, waiters, relays, failover, workers)


def count_connections(settings: Settings) -> int:
    """Return how many connections of callers there may be on each address, so that relays and metrics have theirs."""
    server, workers = settings.server, settings.mail.workers
    kept = 2 * workers + (0 if server.http_port is None else MOST_CONNECTIONS)  # each worker may have a successor
    return connections_of_callers(
        server.max_connections,
        limit=descriptor_limit(),
        in_use=lowest_free(),
        kept=kept,
        listeners=len(server.hosts),
    )
