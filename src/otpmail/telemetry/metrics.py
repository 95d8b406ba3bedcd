"""Metrics in Prometheus' text form, by HTTP on HTTP_PORT: what happened, counted, and what there is when one asks.

A label is a relay's name, a state or a reason: never an address, and nothing that a caller can make up.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import TimeoutError as NoAnswer
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, start_http_server
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from otpmail.errors import SettingsError
from otpmail.events import (
    ALL_EVENTS,
    ChunkingDisabled,
    CodeChecked,
    ConnectionClosed,
    ConnectionOpened,
    DialFailed,
    Event,
    MailAccepted,
    MailDeferred,
    MailSettled,
    RelayDown,
    RelayIdle,
    RelayUp,
)
from otpmail.relays.connection import Connection

_PATIENCE_SECONDS = 5.0  # how long a scrape waits for a loop that is busy


_COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "mails_accepted": ("Mails accepted", ()),
    "mails_settled": ("Mails that have reached their final state", ("state",)),
    "mails_deferred": ("Tries that did not settle a mail", ()),
    "mails_sent": ("Mails that a relay has taken", ("relay",)),
    "connections_opened": ("Connections opened, by how mails travel on them", ("relay", "mode")),
    "connections_closed": ("Connections ended: replaced for age, use or idleness, or lost", ("relay", "how")),
    "dials_failed": ("Dials that failed, but for the one that found the relay away", ("relay",)),
    "codes_checked": ("Codes checked", ("result",)),
}
_GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "relay_up": ("Whether the relay is there; nothing is said of one that is not in use", ("relay",)),
    "connections_open": ("Open connections, those included that wait for their last answers", ("relay",)),
    "mails_in_flight": ("Mails that a relay has and has not answered", ("relay",)),
    "mails_waiting": ("Mails that wait for a connection", ("priority",)),
    "mails_unsettled": ("Accepted mails that have not reached their final state", ()),
}
Counts = Counter[tuple[str, ...]]


class Metrics(Collector):
    """An Observer that counts, and a Collector that is asked from the thread that answers HTTP.

    `connections` are those that are open, `waiting` says how many mails wait for one, by priority, and `unsettled` how
    many there are in all.
    """

    event_types = ALL_EVENTS - {ChunkingDisabled}

    def __init__(
        self,
        *,
        connections: Callable[[], Iterable[Connection]],
        waiting: Callable[[], dict[str, int]],
        unsettled: Callable[[], int],
    ) -> None:
        self._connections = connections
        self._waiting = waiting
        self._unsettled = unsettled
        self._loop = asyncio.get_running_loop()
        self._up: dict[str, bool] = {}
        self._counts: dict[str, Counts] = {name: Counter() for name in _COUNTERS}
        for name in ("mails_accepted", "mails_deferred"):  # a rate needs a first value
            self._counts[name][()] = 0

    def __repr__(self) -> str:
        return f"<Metrics {self._counts['mails_accepted'].total()} mails accepted>"

    def notify(self, event: Event) -> None:
        """Count it."""
        counts = self._counts
        match event:
            case MailAccepted():
                counts["mails_accepted"][()] += 1
            case MailSettled(mail):
                counts["mails_settled"][mail.state.value,] += 1
            case CodeChecked(result):
                counts["codes_checked"][result.lower(),] += 1
            case MailDeferred():
                counts["mails_deferred"][()] += 1
            case ConnectionOpened(relay, mode):
                counts["connections_opened"][relay, mode] += 1
            case ConnectionClosed(relay, _, sent, recycled):
                counts["connections_closed"][relay, "recycled" if recycled else "lost"] += 1
                counts["mails_sent"][relay,] += sent
            case DialFailed(relay):
                counts["dials_failed"][relay,] += 1
            case RelayUp(relay) | RelayDown(relay):
                self._up[relay] = isinstance(event, RelayUp)
            case RelayIdle(relay):
                self._up.pop(relay, None)  # nobody asks it at present

    def collect(self) -> Iterable[Metric]:
        """What there is now. For other threads than the loop's, in which all this changes."""
        snapshot = self._snapshot()
        try:
            asked = asyncio.run_coroutine_threadsafe(snapshot, self._loop)
        except RuntimeError:  # the loop is closed: the process ends
            snapshot.close()
            return []
        try:
            return asked.result(_PATIENCE_SECONDS)
        except NoAnswer:
            asked.cancel()
            return []

    async def _snapshot(self) -> list[Metric]:
        sent = Counter(self._counts["mails_sent"])
        opened: Counts = Counter()
        flying: Counts = Counter()
        for connection in self._connections():
            relay = (connection.owner.name,)
            opened[relay] += 1
            flying[relay] += connection.in_flight
            sent[relay] += connection.sent
        now: dict[str, Counts] = {
            "relay_up": Counter({(relay,): int(up) for relay, up in self._up.items()}),
            "connections_open": opened,
            "mails_in_flight": flying,
            "mails_waiting": Counter({(lane,): count for lane, count in self._waiting().items()}),
            "mails_unsettled": Counter({(): self._unsettled()}),
        }
        return [
            *_families(CounterMetricFamily, _COUNTERS, self._counts | {"mails_sent": sent}),
            *_families(GaugeMetricFamily, _GAUGES, now),
        ]


def _families(
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily],
    known: dict[str, tuple[str, tuple[str, ...]]],
    values: dict[str, Counts],
) -> Iterator[Metric]:
    for name, (text, labels) in known.items():
        family = kind(f"otpmail_{name}", f"{text}.", labels=labels)
        for label_values, value in values[name].items():
            family.add_metric(label_values, value)
        yield family


class MetricsServer:
    """Answers GET /metrics, in a thread of its own."""

    def __init__(self, metrics: Metrics) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(metrics)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._server: WSGIServer | None = None
        self._thread: threading.Thread | None = None

    def start(self, host: str, port: int) -> str:
        """Listen; returns the address. Raises SettingsError when it can't be had."""
        try:
            self._server, self._thread = start_http_server(port, host, self._registry)
        except (OSError, UnicodeError) as error:  # a name that can't be encoded is none
            why = getattr(error, "strerror", None) or error
            raise SettingsError(f"HTTP_HOST, HTTP_PORT: can't listen on {host}:{port}: {why}") from None
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{self._server.server_port}/metrics"

    async def stop(self) -> None:
        """Listen no more."""
        if self._server is not None and self._thread is not None:
            await asyncio.to_thread(self._server.shutdown)
            self._server.server_close()
            await asyncio.to_thread(self._thread.join)
