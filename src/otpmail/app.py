"""Builds every part from the settings, starts them in order, and stops them in the reverse order."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from otpmail import parts
from otpmail.api.batching import MOST_SECONDS
from otpmail.api.calls import CallEnded
from otpmail.compose.catalog import Templates
from otpmail.counts import describe_counts, mails
from otpmail.delivery.closing import Closed
from otpmail.delivery.suppressions import Spared
from otpmail.events import Observer, Observers
from otpmail.limits.descriptors import ConnectionWatch
from otpmail.limits.floods import FloodWatch
from otpmail.limits.sockets import count_by_address
from otpmail.limits.streams import StreamLimit
from otpmail.mail.admission import PAUSE_SECONDS
from otpmail.relays.dialler import Credentials
from otpmail.rpc.health import Health
from otpmail.rpc.listening import Listening
from otpmail.rpc.server import ENDED, Server
from otpmail.settings import Settings
from otpmail.store.base import StoreState
from otpmail.telemetry.logs import LogObserver, log_event

if TYPE_CHECKING:  # only a service with HTTP_PORT imports these
    from prometheus_client import CollectorRegistry

    from otpmail.web.binding import DevDoor, SharedDoor

ResultT = TypeVar("ResultT")

Started = Callable[[str, int | None], None]
"""Is called once a service listens, with its first address and the port of HTTP. That is None without HTTP_PORT."""

_LAST_WORDS_SECONDS = 1.0  # for answers that are ready to reach their callers


class App:
    """The whole service. Build it inside a running loop.

    `batch_seconds` is the longest that unary calls are held back under load (`api.batching`); 0 holds none back.
    `pause_seconds` is the longest pause of a stream before a long queue (`mail.admission`). With `shared` it is one of
    several processes, whose supervisor holds the ports. With `dev` HTTP_PORT is that of `otpmail dev`. `clock` is that
    of a store in memory, in seconds since the epoch. No reply suppresses an address that is `spared`.
    """

    def __init__(
        self,
        settings: Settings,
        *observers: Observer,
        batch_seconds: float = MOST_SECONDS,
        pause_seconds: float = PAUSE_SECONDS,
        shared: "SharedDoor | None" = None,
        dev: "DevDoor | None" = None,
        clock: Callable[[], float] | None = None,
        spared: Spared | None = None,
    ) -> None:
        self._settings = settings
        self.health = Health(StreamLimit(settings.mail.memory_octets), lambda: self._delivery.failover.outage)
        server = settings.server
        self._counts = LogObserver(len(settings.relays), mails=server.log_mails, addresses=server.log_addresses)
        base = parts.Base.of(settings, clock)
        self._store = base.store
        self._store.watch(self._on_store)
        metrics = parts.build_metrics(base, lambda: self._delivery, lambda: not self.health.problem)
        self.registry: CollectorRegistry | None = None if metrics is None else metrics.registry
        watching = () if metrics is None else (metrics,)
        self._observer = Observers(self._counts, self.health, parts.build_supply(base), *watching, *observers)
        self._delivery = parts.build_delivery(base, self._observer, spared)
        self._lifecycle, self._backlog = self._delivery.lifecycle, self._delivery.backlog
        use_cases = parts.build_use_cases(base, self._delivery, self._observer, pause_seconds=pause_seconds)
        self._admission, self._codes, self._intake = use_cases.admission, use_cases.codes, use_cases.intake
        connections = parts.count_connections(settings)
        self._connection_watch = ConnectionWatch(connections, self._observer, count=count_by_address)
        self._api = parts.build_api(
            base, use_cases, self._observer, ended=(ENDED, CallEnded), batch_seconds=batch_seconds
        )
        self._server = Server(
            server, self._api, health=self.health, connections=connections, shares_port=shared is not None
        )
        self._web = parts.build_web(
            base, self._api, metrics, lambda: self.health.problem, connections=connections, shared=shared, dev=dev
        )
        parts.show_certificate(metrics, self._api.access)

    def __repr__(self) -> str:
        return f"<App {self._lifecycle!r}, {self._store!r}>"

    async def run(self, stop: asyncio.Event, started: Started = lambda *_: None) -> int:
        """Serve until `stop` is set, then stop in order.

        Returns how many guaranteed mails the stop lost. Raises SettingsError when the service can't listen, and
        StoreError when it can't open its store. A part that fails stops the whole service, and `run` raises its error.
        """
        listens = await _unless(stop, self._start())
        if listens is None:  # as while the name in HTTP_HOST is looked up
            await self._store.close()
            self._log_end(self._backlog.close())
            return 0
        listening, http_port = listens
        _log_listening(listening)
        if exposed := self._api.access.shows_tokens_on:
            text = f"tokens of callers come in plain text on {exposed}: set TLS_CERT_FILE, unless a mesh encrypts them"
            log_event(logging.WARNING, "plain-text-tokens", text, host=exposed)
        for words in self._settings.otp.beyond_ceilings:
            log_event(logging.WARNING, "beyond-ceiling", words, setting=words.partition("=")[0])
        for words in self._settings.otp.without_effect:
            log_event(logging.WARNING, "limit-without-effect", words, setting=words.partition("=")[0])
        started(listening.addresses[0], http_port)
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(self._store.sweep_forever(self._settings.otp.cleanup_seconds)),
                tasks.create_task(self._intake.run()),
                tasks.create_task(self._backlog.run(self._intake.take_up, self._intake.resume)),
                tasks.create_task(self._connection_watch.run(listening.addresses)),
                tasks.create_task(FloodWatch(self._api.memory).run(listening.addresses)),
                tasks.create_task(self._api.access.run()),
            ]
            workers = [tasks.create_task(worker.run()) for worker in self._delivery.workers]
            try:
                await stop.wait()
                closed = await self._stop(workers)
            except asyncio.CancelledError:  # a part has failed, during a stop even
                await self._stop_by_error()
                raise
            for task in background:
                task.cancel()
        return closed.lost

    def give_up(self) -> None:
        """Log how many mails are lost. For a process that ends right after this, whatever is in flight."""
        left = len(self._lifecycle) + len(self._backlog)
        lost = self._lifecycle.promises.unkept(self._lifecycle.jobs.values())
        log_event(
            logging.ERROR if lost else logging.WARNING,
            "stopped-at-once",
            f"stopped by a second signal: {mails(left)} had not settled, {lost} of them guaranteed and not stored; "
            "these are lost unless the relay took them",
            sent=self._counts.relayed,
            failed=self._counts.failed,
            unsettled=left,
            lost=lost,
        )

    @property
    def templates(self) -> Templates:
        """The templates of codes that are used now."""
        return self._codes.profiles.templates

    @property
    def credentials(self) -> tuple[Credentials, ...]:
        """How each relay is dialled now."""
        return tuple(relay.credentials for relay in self._delivery.relays)

    @property
    def watched_files(self) -> Sequence[str]:
        """The settings whose files `renew` reads again: of callers and TLS."""
        return self._api.access.watched

    def renew(self, templates: Templates, credentials: Sequence[Credentials]) -> None:
        """Use these from now on, and the level of the log that is set; read the files of callers and TLS again.

        Mails in flight are not touched.
        """
        self._codes.profiles.templates = templates
        for relay, fresh in zip(self._delivery.relays, credentials, strict=True):
            if fresh != relay.credentials:
                relay.renew(fresh)
        self._counts.refresh()
        self._observer.refresh()
        self._api.access.notify_of_slips()
        self._api.access.request()

    async def _start(self) -> tuple[Listening, int | None]:
        await self._store.open()
        try:
            listening = await self._server.start()
            return listening, await self._start_web()
        except BaseException:
            await self._store.close()
            raise

    def _on_store(self, state: StoreState) -> None:
        """Report NOT_SERVING while the store takes nothing new, so that the mesh sends callers elsewhere."""
        self.health.set_store(up=not state.problem)
        if state.problem:
            log_event(logging.ERROR, "store-away", state.problem, retry_after=state.retry_after)
        else:
            log_event(logging.INFO, "store-back", "the store takes changes again")

    async def _start_web(self) -> int | None:
        if self._web is None:
            return None
        try:
            return await self._web.start()
        except BaseException:
            await self._server.stop(0)
            raise

    async def _stop(self, workers: list[asyncio.Task[None]]) -> Closed:
        seconds = self._settings.server.drain_seconds
        text, waiting = "stopping", len(self._lifecycle) + len(self._backlog)
        if waiting:
            loses = "all but what the store has" if self._settings.store.is_durable else "the rest"
            text += f": {mails(waiting)} to settle in {seconds:g} s; a second signal stops at once, and loses {loses}"
        log_event(logging.INFO, "stopping", text, waiting=waiting)
        # 1. Health says NOT_SERVING, so that the mesh sends no more callers. It may take a while to notice.
        self.health.stop()
        if self._web is not None:
            self._web.retire()
        await asyncio.sleep(self._settings.server.lameduck_seconds)
        # 2. New calls are answered UNAVAILABLE; running ones go on.
        self._api.refuse_calls()
        self._admission.close()
        # 3. Running calls and queued mails settle, while there is time.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._api.idle()
                await self._backlog.drained()
        # 4. A durable store keeps what is guaranteed; the rest fails. Callers that wait get UNAVAILABLE.
        closed = self._backlog.close()
        await self._close_doors()
        # 5. The workers close their connections.
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        # 6. The store closes, with what this process owned.
        await self._close_store()
        self._log_end(closed)
        return closed

    async def _stop_by_error(self) -> None:
        """Answer the callers that wait, and close the store."""
        self._admission.close()
        self._log_end(self._backlog.close(), by_error=True)
        await self._close_doors()
        await self._close_store()

    async def _close_doors(self) -> None:
        """Close both doors. Callers that are refused wait until they know that their connections end."""
        release = await self._api.hold_refusals()
        closing = [self._server.stop(_LAST_WORDS_SECONDS, release.set)]
        if self._web is not None:
            closing.append(self._web.stop(_LAST_WORDS_SECONDS))
        await asyncio.gather(*closing)

    async def _close_store(self) -> None:
        """Close the store, once codes and addresses have written what they still had to."""
        await self._codes.addresses.close()
        await self._codes.close()
        await self._store.close()

    def _log_end(self, closed: Closed, *, by_error: bool = False) -> None:
        sent, failed = self._counts.relayed, self._counts.failed
        why = "with it" if by_error else "for lack of time"
        ends = [(sent, "sent"), (closed.kept, "kept for the next start"), (failed - closed.failed, "failed")]
        counts = describe_counts(*ends, (closed.failed, f"failed {why}"))
        text = f"stopped{' by an error' * by_error}{f': {counts}' * bool(counts)}"
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


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, ResultT]) -> ResultT | None:
    """Do the work and return its result. None if `stop` is set first: the work is cancelled then."""
    working = asyncio.create_task(work)
    tasks = working, asyncio.create_task(stop.wait())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _log_listening(listening: Listening) -> None:
    for address in listening.absent:
        message = f"not listening on {address}: this machine does not have that address"
        log_event(logging.INFO, "address-absent", message, address=address)
    addresses = listening.addresses
    text = f"listening on {', '.join(addresses)}"
    log_event(logging.INFO, "listening", text, address=addresses[0], addresses=addresses)
