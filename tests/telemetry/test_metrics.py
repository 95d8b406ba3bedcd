"""Metrics: what is counted, and under which names."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from prometheus_client import CollectorRegistry, generate_latest

from otpmail.events import (
    AddressSuppressed,
    CodeChecked,
    CodesEvicted,
    ConnectionClosed,
    ConnectionOpened,
    DialFailed,
    Event,
    FixedCodeUsed,
    LimitReached,
    MailAccepted,
    MailDeferred,
    MailSettled,
    RecipientSuppressed,
    RelayDown,
    RelayIdle,
    RelayUp,
    SuppressionLifted,
    SuppressionsEvicted,
    SuppressionsFull,
)
from otpmail.model import CheckResult, Mail, MailState
from otpmail.relays.connection import Connection
from otpmail.supervisor.metrics import MergedMetrics
from otpmail.suppression import Suppression
from otpmail.telemetry.gauges import Readings
from otpmail.telemetry.metrics import Metrics

RELAY = "relay.example:465"


def _mail(state: MailState = MailState.QUEUED) -> Mail:
    return Mail("m1", "shop", "<m1@example.org>", 1.0, state=state)


def _connection(in_flight: int, sent: int) -> SimpleNamespace:
    return SimpleNamespace(owner=SimpleNamespace(name=RELAY), in_flight=in_flight, sent=sent)


def _metrics(*connections: SimpleNamespace) -> Metrics:
    return Metrics(
        Readings(
            connections=lambda: cast("tuple[Connection, ...]", connections),
            waiting=lambda: {"urgent": 1, "normal": 0, "bulk": 2},
            unsettled=lambda: 9,
            unwritten=lambda: 4,
            memory=lambda: {"reading": 10, "unsettled": 20, "remembered": 30},
            memory_limit=1000,
            ready=lambda: True,
        )
    )


def _scrape(metrics: Metrics) -> dict[str, float]:
    """Return what a scrape shows, by name and labels."""
    text = generate_latest(metrics.registry).decode()
    rows = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in rows}


_SUPPRESSION = Suppression("550 5.1.1 no", 1.0, 2.0)
EVENTS: list[Event] = [
    RelayUp(RELAY, "bdat", 16),
    *[MailAccepted(_mail())] * 3,
    MailDeferred(_mail(), 2.0, "451 later"),
    *[MailSettled(_mail(MailState.RELAYED))] * 2,
    MailSettled(_mail(MailState.FAILED)),
    *[ConnectionOpened(RELAY, "bdat", 16)] * 3,
    ConnectionClosed(RELAY, "worn", 40, recycled=True),
    ConnectionClosed(RELAY, "cut", 2, recycled=False),
    DialFailed(RELAY, "refused", 1.0),
    CodeChecked("WRONG_CODE"),
    FixedCodeUsed("shop", "login", "ada@example.org", "SENT"),
    CodesEvicted("shop", "bank", 2, repeated=False),
    LimitReached("block", "shop"),
    LimitReached("caller", "shop", 50),
    RecipientSuppressed("m1", "shop", "ada@example.org", _SUPPRESSION),
    *[AddressSuppressed("shop", "ada@example.org", _SUPPRESSION)] * 2,
    SuppressionLifted("shop", "ada@example.org", _SUPPRESSION),
    SuppressionsFull("shop", 9, repeated=True),
    SuppressionsEvicted("shop", "bank", 3, repeated=True),
]


def test_each_event_is_counted() -> None:
    """Each event is counted under a name of its own, with few labels."""
    metrics = _metrics()
    for event in EVENTS:
        metrics.notify(event)
    shown = _scrape(metrics)
    assert shown["otpmail_mails_accepted_total"] == 3
    assert shown["otpmail_mails_deferred_total"] == 1
    assert shown['otpmail_mails_settled_total{state="relayed"}'] == 2
    assert shown['otpmail_mails_settled_total{state="failed"}'] == 1
    assert shown[f'otpmail_mails_sent_total{{relay="{RELAY}"}}'] == 42
    assert shown[f'otpmail_connections_opened_total{{mode="bdat",relay="{RELAY}"}}'] == 3
    assert shown[f'otpmail_connections_closed_total{{how="recycled",relay="{RELAY}"}}'] == 1
    assert shown[f'otpmail_connections_closed_total{{how="lost",relay="{RELAY}"}}'] == 1
    assert shown[f'otpmail_dials_failed_total{{relay="{RELAY}"}}'] == 1
    assert shown['otpmail_codes_checked_total{result="wrong_code"}'] == 1
    assert shown['otpmail_limits_reached_total{how="refused",limit="block"}'] == 1
    assert shown['otpmail_test_address_uses_total{result="sent"}'] == 1
    assert shown['otpmail_limits_reached_total{how="half",limit="caller"}'] == 1
    assert shown['otpmail_recipients_suppressed_total{scope="all"}'] == 1
    assert shown["otpmail_code_records_evicted_total"] == 2
    names = ("suppressed", "released", "full", "evicted")
    assert [shown[f'otpmail_suppressions_total{{change="{name}"}}'] for name in names] == [2, 1, 1, 3]


def test_no_event_that_it_asks_for_is_left_out() -> None:
    """A new type of event is either counted, or taken out of `event_types`."""
    assert Metrics.event_types == {type(event) for event in EVENTS} | {RelayDown, RelayIdle}


def test_whether_a_relay_is_up_follows_its_events() -> None:
    """A relay is 1 when up and 0 when down; one that is not in use has no series at all."""
    name = f'otpmail_relay_up{{relay="{RELAY}"}}'
    metrics = _metrics()
    assert name not in _scrape(metrics)
    metrics.notify(RelayUp(RELAY, "bdat", 16))
    assert _scrape(metrics)[name] == 1
    metrics.notify(RelayDown(RELAY, "refused", 1.0))
    assert _scrape(metrics)[name] == 0
    metrics.notify(RelayIdle(RELAY))
    metrics.notify(RelayIdle(RELAY))
    assert name not in _scrape(metrics)


def test_gauges_are_read_at_the_scrape() -> None:
    """A scrape reads the open connections; what they have sent is added to what closed ones had."""
    metrics = _metrics(_connection(3, 10), _connection(0, 5))
    metrics.notify(ConnectionClosed(RELAY, "worn", 40, recycled=True))
    shown = _scrape(metrics)
    assert shown[f'otpmail_connections_open{{relay="{RELAY}"}}'] == 2
    assert shown[f'otpmail_mails_in_flight{{relay="{RELAY}"}}'] == 3
    assert shown[f'otpmail_mails_sent_total{{relay="{RELAY}"}}'] == 55
    assert shown['otpmail_mails_waiting{priority="bulk"}'] == 2
    assert shown["otpmail_mails_unsettled"] == 9
    assert shown["otpmail_store_unwritten"] == 4
    assert shown['otpmail_memory_bytes{part="unsettled"}'] == 20
    assert shown["otpmail_memory_limit_bytes"] == 1000


def test_a_rate_has_a_first_value() -> None:
    """The counters of mails and codes start at 0, not absent: an alarm on a rate would miss the first time."""
    shown = _scrape(_metrics())
    assert shown["otpmail_mails_accepted_total"] == shown["otpmail_mails_deferred_total"] == 0
    settled = {name for name in shown if name.startswith("otpmail_mails_settled_total")}
    assert settled == {f'otpmail_mails_settled_total{{state="{state.value}"}}' for state in MailState if state.final}
    checked = {name: value for name, value in shown.items() if name.startswith("otpmail_codes_checked_total")}
    assert checked == {f'otpmail_codes_checked_total{{result="{result.value}"}}': 0 for result in CheckResult}


def test_no_name_changes() -> None:
    """Dashboards rely on these names, and no counter has a `_created` series beside it."""
    metrics = _metrics(_connection(1, 1))
    for event in EVENTS:
        metrics.notify(event)
    names = {name.partition("{")[0] for name in _scrape(metrics)}
    assert {name.removeprefix("otpmail_") for name in names if name.startswith("otpmail_")} == {
        "code_records_evicted_total",
        "codes_checked_total",
        "connections_closed_total",
        "connections_open",
        "connections_opened_total",
        "dials_failed_total",
        "limits_reached_total",
        "test_address_uses_total",
        "mails_accepted_total",
        "mails_deferred_total",
        "mails_in_flight",
        "mails_sent_total",
        "mails_settled_total",
        "mails_unsettled",
        "mails_waiting",
        "memory_bytes",
        "memory_limit_bytes",
        "ready",
        "recipients_suppressed_total",
        "relay_up",
        "store_unwritten",
        "suppressions_total",
    }
    assert {"process_resident_memory_bytes", "python_info", "python_gc_collections_total"} <= names


def test_one_family_can_be_asked_for_by_name() -> None:
    """A scrape can be limited to names, those that are read from connections included."""
    registry = _metrics(_connection(3, 10)).registry
    text = generate_latest(registry.restricted_registry(["otpmail_mails_in_flight"])).decode()
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert samples == [f'otpmail_mails_in_flight{{relay="{RELAY}"}} 3.0']


def _names(registry: CollectorRegistry) -> set[str]:
    families = {f"{family.name}{'_total' * (family.type == 'counter')}" for family in registry.collect()}
    return {name for name in families if name.startswith("otpmail_")}


def test_the_page_names_each_metric() -> None:
    """The page of monitoring has a row for each metric, and for none that is gone."""
    page = (Path(__file__).parents[2] / "docs/monitoring.md").read_text("utf-8")
    metrics = _metrics()
    metrics.add_certificate(lambda: 0.0)
    merged = MergedMetrics(lambda: 1)
    merged.refresh([])
    names = _names(metrics.registry) | _names(merged.registry)
    assert names == set(re.findall(r"^\| `(otpmail_[a-z_]+)` \|", page, re.MULTILINE))
