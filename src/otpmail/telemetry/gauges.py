"""The gauges, which are read at each scrape, and the mails that each connection has sent."""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from otpmail.relays.connection import Connection
from otpmail.relays.throttle import Limits
from otpmail.values import frozen


@frozen()
class Readings:
    """The parts of the service that a scrape asks."""

    connections: Callable[[], Iterable[Connection]]
    """The open connections to relays."""
    waiting: Callable[[], Mapping[str, int]]
    """How many mails are queued, by priority."""
    unsettled: Callable[[], int]
    """How many accepted mails have no final state."""
    unwritten: Callable[[], int]
    """How many changes the store lacks."""
    memory: Callable[[], Mapping[str, int]]
    """The octets that each part of the budget takes."""
    memory_limit: int
    """The octets of the budget."""
    ready: Callable[[], bool]
    """Whether callers should come."""
    limits: Callable[[], Sequence[Limits]] = tuple
    """The connections and the rate that each relay has at present."""


def add_gauges(registry: CollectorRegistry, readings: Readings) -> "LiveCollector":
    """Have the registry show what is read at each scrape."""
    gauge = partial(Gauge, namespace="otpmail", registry=registry)
    for name, text, read in (
        ("mails_unsettled", "Accepted mails that have not reached their final state.", readings.unsettled),
        ("store_unwritten", "Changes, such as settlements, that wait for the store.", readings.unwritten),
        ("ready", "Whether callers should come here: what grpc.health.v1 and /readyz say.", readings.ready),
    ):
        gauge(name, text).set_function(read)
    budget = gauge("memory_limit_bytes", "Octets for what is read, unsettled and remembered, and for codes.")
    budget.set(readings.memory_limit)
    live = LiveCollector(readings)
    registry.register(live)
    return live


class LiveCollector(Collector):
    """Reads queue, memory and open connections at each scrape, and remembers what closed connections have sent."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings
        self._sent_by_closed: Tally[str] = Tally()

    def add_closed(self, relay: str, sent: int) -> None:
        """Add the mails of a connection that is no longer among the open ones."""
        self._sent_by_closed[relay] += sent

    def describe(self) -> Iterable[Metric]:
        """Return the families without values, for which the registry keeps their names."""
        return _live_families({}, {}, {}, {}, {}, limits=())

    def collect(self) -> Iterable[Metric]:
        """Return the families as of now."""
        sent, opened, in_flight = Tally(self._sent_by_closed), Tally[str](), Tally[str]()
        for connection in self._readings.connections():
            relay = connection.owner.name
            sent[relay] += connection.sent
            opened[relay] += 1
            in_flight[relay] += connection.in_flight
        waiting, memory, limits = self._readings.waiting(), self._readings.memory(), self._readings.limits()
        return _live_families(sent, opened, in_flight, waiting, memory, limits=limits)


def _live_families(
    sent: Mapping[str, int],
    opened: Mapping[str, int],
    in_flight: Mapping[str, int],
    waiting: Mapping[str, int],
    memory: Mapping[str, int],
    *,
    limits: Sequence[Limits],
) -> list[Metric]:
    counter, gauge = CounterMetricFamily, GaugeMetricFamily
    connections = {given.relay: given.connections for given in limits}
    rates = {given.relay: given.rate for given in limits if given.rate is not None}
    return [
        _family(counter, "mails_sent", "Mails that a relay has taken.", "relay", sent),
        _family(gauge, "connections_open", "Open connections, draining ones included.", "relay", opened),
        _family(gauge, "mails_in_flight", "Mails sent to a relay that has not replied yet.", "relay", in_flight),
        _family(gauge, "mails_waiting", "Mails that wait for a connection.", "priority", waiting),
        _family(gauge, "memory_bytes", "Octets of memory_limit_bytes that are taken.", "part", memory),
        _family(gauge, "connections_limit", "Connections that the workers may have now.", "relay", connections),
        _family(gauge, "rate_limit", "Mails a second at most now; absent without a limit.", "relay", rates),
    ]


def _family(
    kind: type[CounterMetricFamily | GaugeMetricFamily], name: str, text: str, label: str, values: Mapping[str, float]
) -> Metric:
    family = kind(f"otpmail_{name}", text, labels=[label])
    for label_value, value in values.items():
        family.add_metric([label_value], value)
    return family
