"""Metrics: events counted in prometheus_client's counters, and gauges that are read at each scrape.

A label is a relay's name, a state or a reason: never an address, and nothing that a caller can make up.
"""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from otpmail.address_events import (
    AddressSuppressed,
    RecipientSuppressed,
    SuppressionLifted,
    SuppressionsFull,
    SuppressionsGiveWay,
)
from otpmail.call_events import CallEvent, CodesGiveWay, FixedCodeUsed, LimitReached
from otpmail.events import (
    ALL_EVENTS,
    ChunkingDisabled,
    CodeChecked,
    ConnectionClosed,
    ConnectionLimitDropped,
    ConnectionLimitLearned,
    ConnectionOpened,
    DialFailed,
    Event,
    HeloRefused,
    IdleTimeDropped,
    IdleTimeLearned,
    MailAccepted,
    MailDeferred,
    MailSettled,
    MessageLimitDropped,
    MessageLimitLearned,
    RateLowered,
    RateRestored,
    RecipientLimitDropped,
    RecipientLimitLearned,
    RelayDown,
    RelayIdle,
    RelayUp,
    ResetRefused,
    SignInWanted,
)
from otpmail.model import CheckResult, MailState
from otpmail.relays.connection import Connection
from otpmail.relays.throttle import Limits
from otpmail.settings.otp import LIMITS
from otpmail.suppression import SuppressionScope

_CHANGES: dict[type[Event], str] = {
    AddressSuppressed: "suppressed",
    SuppressionLifted: "released",
    SuppressionsFull: "full",
    SuppressionsGiveWay: "given_way",
}
_HOW = {0: "refused", 50: "half", 80: "most", 100: "shadow"}


class Metrics:
    """An Observer that counts events in `registry`, which shows process, platform and garbage collector too.

    A scrape calls `connections` for those that are open, and `waiting` for the number of queued mails by priority. It
    calls `unsettled` for that of accepted mails without a final state, and `unwritten` for that of changes which the
    store lacks. It calls `memory` for the octets that each part of the budget takes; `memory_limit` is the budget. It
    calls `limits` for what each relay is given at present, and `ready` for whether callers should come.
    """

    event_types = ALL_EVENTS - {
        *(ChunkingDisabled, MessageLimitLearned, MessageLimitDropped),
        *(RecipientLimitLearned, RecipientLimitDropped, ResetRefused, HeloRefused, SignInWanted),
        *({*get_args(CallEvent)} - {CodesGiveWay, FixedCodeUsed, LimitReached}),
        *(IdleTimeLearned, IdleTimeDropped),
        *(ConnectionLimitLearned, ConnectionLimitDropped, RateLowered, RateRestored),  # read at each scrape
    }

    def __init__(
        self,
        *,
        connections: Callable[[], Iterable[Connection]],
        waiting: Callable[[], Mapping[str, int]],
        unsettled: Callable[[], int],
        unwritten: Callable[[], int],
        memory: Callable[[], Mapping[str, int]],
        memory_limit: int,
        ready: Callable[[], bool],
        limits: Callable[[], Sequence[Limits]] = tuple,
    ) -> None:
        # Otherwise each counter has a second series. The library knows this switch for the whole process only.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        counter = partial(Counter, namespace="otpmail", registry=self.registry)
        settled = counter("mails_settled", "Mails that reached their final state.", ["state"])
        checked = counter("codes_checked", "Codes checked.", ["result"])
        fixed = counter(
            "test_address_uses", "Codes that test addresses were sent without a mail, and checks.", ["result"]
        )
        self._fixed = {result: fixed.labels(result.lower()) for result in ("SENT", *CheckResult.__members__)}
        reached = counter(
            "limits_reached",
            "Mails, and checks of codes, that a limit refused, would refuse, or nearly did.",
            ["limit", "how"],
        )
        self._limits = {
            (limit, percent): reached.labels(limit, how) for limit in LIMITS for percent, how in _HOW.items()
        }
        self._gone = counter("code_records_given_way", "Records of codes that gave way to those of another caller.")
        left_out = counter("recipients_suppressed", "Recipients to whom nothing was sent.", ["scope"])
        self._left_out = {scope: left_out.labels(scope.value) for scope in SuppressionScope}
        changed = counter(
            "suppressions", "Addresses suppressed, released, or not suppressed any more for want of room.", ["change"]
        )
        self._suppressions = {kind: changed.labels(change) for kind, change in _CHANGES.items()}
        self._accepted = counter("mails_accepted", "Mails accepted.")
        self._deferred = counter("mails_deferred", "Attempts that did not settle a mail.")
        # Made once: Counter.labels takes 0.9 us, three times what counting does, for every mail and code.
        self._settled = {state: settled.labels(state.value) for state in MailState if state.final}
        self._checked = {result.name: checked.labels(result.value) for result in CheckResult}
        self._opened = counter(
            "connections_opened", "Connections opened, by how mails are sent on them.", ["relay", "mode"]
        )
        self._closed = counter(
            "connections_closed", "Connections ended: recycled for age, use or idleness, or lost.", ["relay", "how"]
        )
        self._dials_failed = counter(
            "dials_failed", "Dials that failed, except those that found the relay down.", ["relay"]
        )
        gauge = partial(Gauge, namespace="otpmail", registry=self.registry)
        self._up = gauge("relay_up", "Whether the relay is up; absent for a relay that is not in use.", ["relay"])
        gauge("mails_unsettled", "Accepted mails that have not reached their final state.").set_function(unsettled)
        gauge("store_unwritten", "Changes, such as settlements, that wait for the store.").set_function(unwritten)
        gauge("ready", "Whether callers should come here: what grpc.health.v1 and /readyz say.").set_function(ready)
        gauge("memory_limit_bytes", "Octets for what is read, unsettled and remembered, and for codes.").set(
            memory_limit
        )
        self._live = _LiveCollector(connections, waiting, memory, limits)
        self.registry.register(self._live)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def add_certificate(self, not_after: Callable[[], float]) -> None:
        """Show when the certificate of the port expires, in seconds since the epoch, for a service with TLS."""
        name, text = "tls_certificate_not_after_timestamp_seconds", "When the certificate in TLS_CERT_FILE expires."
        Gauge(name, text, namespace="otpmail", registry=self.registry).set_function(not_after)

    def _count_code(self, event: FixedCodeUsed | LimitReached | CodesGiveWay) -> None:
        match event:
            case FixedCodeUsed():
                self._fixed[event.result].inc()
            case CodesGiveWay():
                self._gone.inc(event.count)
            case LimitReached():
                self._limits[event.limit, event.percent].inc()

    def notify(self, event: Event) -> None:
        """Count the event."""
        match event:
            case MailSettled():
                self._settled[event.mail.state].inc()
            case MailAccepted():
                self._accepted.inc()
            case CodeChecked():
                self._checked[event.result].inc()
            case FixedCodeUsed() | LimitReached() | CodesGiveWay():
                self._count_code(event)
            case RecipientSuppressed():
                self._left_out[event.suppression.scope].inc()
            case AddressSuppressed() | SuppressionLifted() | SuppressionsFull():
                self._suppressions[type(event)].inc()
            case SuppressionsGiveWay():
                self._suppressions[SuppressionsGiveWay].inc(event.count)
            case MailDeferred():
                self._deferred.inc()
            case _:
                self._of_relay(event)

    def _of_relay(self, event: Event) -> None:
        match event:
            case ConnectionOpened(relay, mode):
                self._opened.labels(relay, mode).inc()
            case ConnectionClosed(relay, _, sent, recycled):
                self._closed.labels(relay, "recycled" if recycled else "lost").inc()
                self._live.add_closed(relay, sent)
            case DialFailed(relay):
                self._dials_failed.labels(relay).inc()
            case RelayUp() | RelayDown() | RelayIdle():
                self._set_up(event)

    def _set_up(self, event: RelayUp | RelayDown | RelayIdle) -> None:
        if isinstance(event, RelayIdle):
            self._up.remove(event.relay)
        else:
            self._up.labels(event.relay).set(isinstance(event, RelayUp))


class _LiveCollector(Collector):
    """Reads queue, memory and open connections at each scrape, and remembers what closed connections have sent."""

    def __init__(
        self,
        connections: Callable[[], Iterable[Connection]],
        waiting: Callable[[], Mapping[str, int]],
        memory: Callable[[], Mapping[str, int]],
        limits: Callable[[], Sequence[Limits]],
    ) -> None:
        self._limits = limits
        self._connections = connections
        self._waiting = waiting
        self._memory = memory
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
        for connection in self._connections():
            relay = connection.owner.name
            sent[relay] += connection.sent
            opened[relay] += 1
            in_flight[relay] += connection.in_flight
        return _live_families(sent, opened, in_flight, self._waiting(), self._memory(), limits=self._limits())


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
