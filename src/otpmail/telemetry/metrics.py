"""Metrics: events that are counted in prometheus_client's counters, beside the gauges of `telemetry.gauges`.

A label is a relay's name, a state or a reason: never an address, and nothing that a caller can make up.
"""

from collections.abc import Callable
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

from otpmail.events import (
    ALL_EVENTS,
    AddressSuppressed,
    CallEvent,
    ChunkingDisabled,
    CodeChecked,
    CodesEvicted,
    ConnectionClosed,
    ConnectionLimitDropped,
    ConnectionLimitLearned,
    ConnectionOpened,
    DialFailed,
    Event,
    FixedCodeUsed,
    HeloRefused,
    IdleTimeDropped,
    IdleTimeLearned,
    LimitReached,
    MailAccepted,
    MailDeferred,
    MailSettled,
    MessageLimitDropped,
    MessageLimitLearned,
    RateLowered,
    RateRestored,
    RecipientLimitDropped,
    RecipientLimitLearned,
    RecipientSuppressed,
    RelayDown,
    RelayIdle,
    RelayUp,
    ResetRefused,
    SignInWanted,
    SuppressionLifted,
    SuppressionsEvicted,
    SuppressionsFull,
)
from otpmail.model import CheckResult, MailState
from otpmail.settings.otp import LIMITS
from otpmail.suppression import SuppressionScope
from otpmail.telemetry.gauges import LiveCollector, Readings, add_gauges

_CHANGES: dict[type[Event], str] = {
    AddressSuppressed: "suppressed",
    SuppressionLifted: "released",
    SuppressionsFull: "full",
    SuppressionsEvicted: "evicted",
}
_HOW = {0: "refused", 50: "half", 80: "most", 100: "shadow"}

# Counters with a label for a state or a kind are made at the start: Counter.labels takes 0.9 us, three times what
# counting does, for every mail and code.


class Metrics:
    """An Observer that counts events in `registry`, which shows process, platform and garbage collector too.

    A scrape also shows what `readings` say then.
    """

    event_types = ALL_EVENTS - {
        *(ChunkingDisabled, MessageLimitLearned, MessageLimitDropped),
        *(RecipientLimitLearned, RecipientLimitDropped, ResetRefused, HeloRefused, SignInWanted),
        *({*get_args(CallEvent)} - {CodesEvicted, FixedCodeUsed, LimitReached}),
        *(IdleTimeLearned, IdleTimeDropped),
        *(ConnectionLimitLearned, ConnectionLimitDropped, RateLowered, RateRestored),  # read at each scrape
    }

    def __init__(self, readings: Readings) -> None:
        # Otherwise each counter has a second series. The library knows this switch for the whole process only.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        counter = partial(Counter, namespace="otpmail", registry=self.registry)
        settled = counter("mails_settled", "Mails that reached their final state.", ["state"])
        self._settled = {state: settled.labels(state.value) for state in MailState if state.final}
        self._accepted = counter("mails_accepted", "Mails accepted.")
        self._deferred = counter("mails_deferred", "Attempts that did not settle a mail.")
        checked = counter("codes_checked", "Codes checked.", ["result"])
        self._checked = {result.name: checked.labels(result.value) for result in CheckResult}
        self._codes = _Codes(self.registry)
        self._addresses = _Addresses(self.registry)
        self._relays = _Relays(self.registry, add_gauges(self.registry, readings))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def add_certificate(self, not_after: Callable[[], float]) -> None:
        """Show when the certificate of the port expires, in seconds since the epoch, for a service with TLS."""
        name, text = "tls_certificate_not_after_timestamp_seconds", "When the certificate in TLS_CERT_FILE expires."
        Gauge(name, text, namespace="otpmail", registry=self.registry).set_function(not_after)

    def notify(self, event: Event) -> None:
        """Count the event."""
        match event:
            case MailSettled():
                self._settled[event.mail.state].inc()
            case MailAccepted():
                self._accepted.inc()
            case CodeChecked():
                self._checked[event.result].inc()
            case MailDeferred():
                self._deferred.inc()
            case _:
                self._codes.notify(event)
                self._addresses.notify(event)
                self._relays.notify(event)


class _Codes:
    """Counts the events of codes and limits, beside the checks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, namespace="otpmail", registry=registry)
        text = "Codes that test addresses were sent without a mail, and checks."
        fixed = counter("test_address_uses", text, ["result"])
        self._fixed = {result: fixed.labels(result.lower()) for result in ("SENT", *CheckResult.__members__)}
        text = "Mails, and checks of codes, that a limit refused, would refuse, or nearly did."
        reached = counter("limits_reached", text, ["limit", "how"])
        self._limits = {(limit, at): reached.labels(limit, how) for limit in LIMITS for at, how in _HOW.items()}
        self._gone = counter("code_records_evicted", "Records of codes that were evicted for those of another caller.")

    def notify(self, event: Event) -> None:
        """Count the event, if it is one of these."""
        match event:
            case FixedCodeUsed():
                self._fixed[event.result].inc()
            case CodesEvicted():
                self._gone.inc(event.count)
            case LimitReached():
                self._limits[event.limit, event.percent].inc()


class _Addresses:
    """Counts suppressions, and the recipients that were left out for them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, namespace="otpmail", registry=registry)
        left_out = counter("recipients_suppressed", "Recipients to whom nothing was sent.", ["scope"])
        self._left_out = {scope: left_out.labels(scope.value) for scope in SuppressionScope}
        text = "Addresses suppressed, released, or not suppressed any more for want of room."
        changed = counter("suppressions", text, ["change"])
        self._changes = {kind: changed.labels(change) for kind, change in _CHANGES.items()}

    def notify(self, event: Event) -> None:
        """Count the event, if it is one of these."""
        match event:
            case RecipientSuppressed():
                self._left_out[event.suppression.scope].inc()
            case AddressSuppressed() | SuppressionLifted() | SuppressionsFull():
                self._changes[type(event)].inc()
            case SuppressionsEvicted():
                self._changes[SuppressionsEvicted].inc(event.count)


class _Relays:
    """Counts connections to relays and failed dials, and shows which relays are up."""

    def __init__(self, registry: CollectorRegistry, live: LiveCollector) -> None:
        self._live = live
        counter = partial(Counter, namespace="otpmail", registry=registry)
        text = "Connections opened, by how mails are sent on them."
        self._opened = counter("connections_opened", text, ["relay", "mode"])
        text = "Connections ended: recycled for age, use or idleness, or lost."
        self._closed = counter("connections_closed", text, ["relay", "how"])
        text = "Dials that failed, except those that found the relay down."
        self._dials_failed = counter("dials_failed", text, ["relay"])
        text = "Whether the relay is up; absent for a relay that is not in use."
        self._up = Gauge("relay_up", text, ["relay"], namespace="otpmail", registry=registry)

    def notify(self, event: Event) -> None:
        """Count the event, if it is one of these."""
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
