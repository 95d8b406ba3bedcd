"""Builds every part from the settings, starts them in order, and stops them in the reverse order."""

import asyncio
import contextlib
import gc
import logging
from collections.abc import Callable, Sequence
from random import random
from time import monotonic

from otpmail.compose.templates import Templates
from otpmail.delivery.closing import Closed
from otpmail.delivery.dispatch import Dispatcher
from otpmail.delivery.intake import Intake
from otpmail.delivery.lifecycle import Lifecycle
from otpmail.delivery.queue import MailQueue
from otpmail.delivery.supply import Supply
from otpmail.delivery.waiters import Waiters
from otpmail.delivery.worker import Worker
from otpmail.events import Observer, Observers
from otpmail.limits.descriptors import ConnectionWatch, connections_of_callers, descriptor_limit, lowest_free
from otpmail.limits.memory import Memory
from otpmail.limits.places import Places
from otpmail.limits.sockets import count_by_address
from otpmail.limits.streams import StreamLimit
from otpmail.mail.admission import PAUSE_SECONDS, Admission
from otpmail.mail.service import MailService
from otpmail.otp.service import OtpService
from otpmail.relays.failover import Failover
from otpmail.relays.relay import Access, Relay
from otpmail.rpc.batching import MOST_SECONDS
from otpmail.rpc.health import Health
from otpmail.rpc.listening import Listening
from otpmail.rpc.server import Server
from otpmail.settings import Settings
from otpmail.smtp.mode import Mode
from otpmail.store.memory import MemoryStore
from otpmail.telemetry.exposition import MetricsServer
from otpmail.telemetry.http import MOST_CONNECTIONS
from otpmail.telemetry.logs import LogObserver, log_event, mails
from otpmail.telemetry.metrics import Metrics

_COLLECT_AFTER = (2_000, 4, 1_000)  # more objects than freed; then collections of the generation before
_LAST_WORDS_SECONDS = 1.0  # for answers that are ready to reach their callers


class App:
    """The whole service. Build it inside a running loop.

    `batch_seconds` is the longest that unary calls are held back under load (`rpc.batching`); 0 holds none back.
    `pause_seconds` is the longest pause of a stream before a long queue (`mail.admission`).
    """

    def __init__(
        self,
        settings: Settings,
        *observers: Observer,
        batch_seconds: float = MOST_SECONDS,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self._settings = settings
        mail = settings.mail
        limit = mail.memory_octets
        self._counts = LogObserver(len(settings.relays))
        self._health = Health(StreamLimit(limit))
        queue = MailQueue()
        window = max(Mode.allowed_by(relay.mode).window(relay.window) for relay in settings.relays)
        self._store = MemoryStore(
            remember_seconds=mail.mail_remember_seconds,
            remember_count=mail.mail_remember_count,
            remember_octets=limit // 2,
        )
        self._memory = Memory(limit, self._store.mails, self._store.challenges)
        # These read parts that are made below, at each scrape.
        metrics = Metrics(
            connections=lambda: [connection for worker in self._workers for connection in worker.connections],
            waiting=queue.waiting,
            unsettled=lambda: len(self._lifecycle),
            memory=self._memory.parts,
            memory_limit=limit,
        )
        self._metrics = MetricsServer(metrics.registry)
        watching = () if settings.server.http_port is None else (metrics,)
        self._observer = observer = Observers(
            self._counts, self._health, Supply(queue, workers=mail.workers, window=window), *watching, *observers
        )
        dispatcher, waiters = Dispatcher(queue), Waiters()
        self._lifecycle = Lifecycle(
            dispatcher,
            self._store.mails,
            waiters,
            observer,
            random=random,
            places=Places(mail.queue_size, now=monotonic),
            memory=self._memory,
            on_uncertain=mail.email_on_uncertain,
        )
        self._relays = [Relay(relay, observer, random=random) for relay in settings.relays]
        failover = Failover(self._relays)
        self._workers = [Worker(failover, dispatcher, self._lifecycle, observer) for _ in range(mail.workers)]
        self._admission = Admission(self._lifecycle, queue, failover, self._memory, pause_seconds=pause_seconds)
        mails = MailService(mail, self._lifecycle, waiters, self._store.mails, self._admission)
        self._codes = OtpService(settings.otp, self._store.challenges, mails, Templates.load(settings.otp), observer)
        self._intake = Intake(self._store.mails, self._lifecycle, code_of=self._codes.code_of)
        connections = _connections(settings)
        self._connection_watch = ConnectionWatch(connections, observer, count=count_by_address)
        self._server = Server(
            settings.server,
            codes=self._codes,
            mails=mails,
            health=self._health,
            most_octets=mail.most_request_octets,
            most_unsettled=mail.stream_unsettled,
            connections=connections,
            batch_seconds=batch_seconds,
        )

    def __repr__(self) -> str:
        return f"<App {self._lifecycle!r}, {self._store!r}>"

    async def run(self, stop: asyncio.Event, started: Callable[[str], None] = lambda _: None) -> int:
        """Serve until `stop` is set, then stop in order. `started` is called with the first address.

        Returns how many guaranteed mails the stop lost. Raises SettingsError when the service can't listen. A part
        that fails stops the whole service, and `run` raises its error.
        """
        await self._store.open()
        listening = await self._server.start()
        await self._start_metrics()
        _log_listening(listening)
        started(listening.addresses[0])
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(self._store.challenges.sweep_forever(self._settings.otp.cleanup_seconds)),
                tasks.create_task(self._intake.run()),
                tasks.create_task(self._connection_watch.run(listening.addresses)),
            ]
            workers = [tasks.create_task(worker.run()) for worker in self._workers]
            try:
                await stop.wait()
                closed = await self._stop(workers)
            except asyncio.CancelledError:  # a part has failed, during a stop even: callers that wait are answered
                self._admission.close()
                self._log_end(self._lifecycle.close(), by_error=True)
                await asyncio.gather(self._server.stop(_LAST_WORDS_SECONDS), self._metrics.stop())
                raise
            for task in background:
                task.cancel()
        return closed.lost

    def give_up(self) -> None:
        """Log how many mails are lost. For a process that ends right after this, whatever is in flight."""
        left, lost = len(self._lifecycle), self._lifecycle.unkept
        log_event(
            logging.ERROR if lost else logging.WARNING,
            "stopped-at-once",
            f"stopped at once by a second signal: {mails(left)} had not settled, {lost} of them guaranteed; what the "
            "relay has not taken is lost",
            sent=self._counts.relayed,
            failed=self._counts.failed,
            unsettled=left,
            lost=lost,
        )

    @property
    def templates(self) -> Templates:
        """The templates of codes that are used now."""
        return self._codes.templates

    @property
    def accesses(self) -> tuple[Access, ...]:
        """How each relay is dialled now."""
        return tuple(relay.access for relay in self._relays)

    def renew(self, templates: Templates, accesses: Sequence[Access]) -> None:
        """Use these from now on, and the level of the log that is set. Mails in flight are not touched."""
        self._codes.templates = templates
        for relay, access in zip(self._relays, accesses, strict=True):
            if access != relay.access:
                relay.renew(access)
        self._counts.refresh()
        self._observer.refresh()

    async def _start_metrics(self) -> None:
        server = self._settings.server
        if server.http_port is None:
            return
        try:
            url = await self._metrics.start(server.http_host, server.http_port)
        except BaseException:
            await self._server.stop(0)
            raise
        log_event(logging.INFO, "metrics", f"metrics at {url}", url=url)

    async def _stop(self, workers: list[asyncio.Task[None]]) -> Closed:
        seconds = self._settings.server.drain_seconds
        waiting = len(self._lifecycle)
        log_event(
            logging.INFO,
            "stopping",
            f"stopping: {mails(waiting)} to settle in {seconds:g} s; a second signal stops at once, and loses the rest",
            waiting=waiting,
        )
        # 1. Health says NOT_SERVING, so that the mesh sends no more callers.
        self._health.stop()
        # 2. New calls are answered UNAVAILABLE; running ones go on.
        self._server.refuse_calls()
        self._admission.close()
        # 3. Running calls and queued mails settle, while there is time.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._server.idle()
                await self._lifecycle.drained()
        # 4. A durable store keeps what is guaranteed; the rest fails. Callers that wait get UNAVAILABLE.
        closed = self._lifecycle.close()
        await self._server.stop(_LAST_WORDS_SECONDS)
        # 5. The workers close their connections, and the metrics port is closed.
        for worker in workers:
            worker.cancel()
        await asyncio.gather(self._metrics.stop(), *workers, return_exceptions=True)
        # 6. The store closes, with what this process owned.
        await self._codes.close()
        await self._store.close()
        self._log_end(closed)
        return closed

    def _log_end(self, closed: Closed, *, by_error: bool = False) -> None:
        sent, failed = self._counts.relayed, self._counts.failed
        text = f"stopped{' by an error' * by_error}: {mails(sent)} sent, {closed.kept} kept for the next start, "
        text += f"{failed} failed ({closed.failed} of them {'with it' if by_error else 'for lack of time'})"
        if closed.lost:
            maybe = f", but the relay may have taken {closed.uncertain} of them" if closed.uncertain else ""
            text += f"; {closed.lost} guaranteed {'mail is' if closed.lost == 1 else 'mails are'} lost{maybe}"
        log_event(
            logging.ERROR if closed.lost or by_error else logging.INFO,
            "stopped",
            text,
            sent=sent,
            kept=closed.kept,
            failed=failed,
            out_of_time=closed.failed,
            lost=closed.lost,
            uncertain=closed.uncertain,
        )


def _log_listening(listening: Listening) -> None:
    for address in listening.absent:
        message = f"not listening on {address}: this machine does not have that address"
        log_event(logging.INFO, "address-absent", message, address=address)
    addresses = listening.addresses
    text = f"listening on {', '.join(addresses)}"
    log_event(logging.INFO, "listening", text, address=addresses[0], addresses=addresses)


def _connections(settings: Settings) -> int:
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


def spare_the_collector() -> None:
    """Exempt what was made so far from garbage collection, and make collections rare, for the whole process.

    A mail leaves little garbage that only the collector finds, but makes enough objects to start a collection every few
    mails. Young objects are collected a few at a time, because each collection blocks the loop.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
