"""Metrics: what is counted, under which names, and how they are answered."""

import asyncio
import urllib.request
from types import SimpleNamespace
from typing import cast

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from otpmail.errors import SettingsError
from otpmail.events import (
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
from otpmail.model import Mail, MailState
from otpmail.relays.connection import Connection
from otpmail.telemetry.metrics import Metrics, MetricsServer

RELAY = "relay.example:465"


def _mail(state: MailState = MailState.QUEUED) -> Mail:
    return Mail("m1", "shop", "<m1@example.org>", 1.0, state=state)


def _connection(in_flight: int, sent: int) -> SimpleNamespace:
    return SimpleNamespace(owner=SimpleNamespace(name=RELAY), in_flight=in_flight, sent=sent)


def _metrics(*connections: SimpleNamespace) -> Metrics:
    return Metrics(
        connections=lambda: cast("tuple[Connection, ...]", connections),
        waiting=lambda: {"urgent": 1, "normal": 0, "bulk": 2},
        unsettled=lambda: 9,
    )


async def _said(metrics: Metrics) -> dict[str, float]:
    """What a scrape says, by name and labels."""
    registry = CollectorRegistry()
    registry.register(metrics)
    text = (await asyncio.to_thread(generate_latest, registry)).decode()
    parted = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in parted}


async def test_what_happened_is_counted() -> None:
    """Each event under a name of its own, with labels that are few."""
    metrics = _metrics()
    events: list[Event] = [
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
    ]
    for event in events:
        metrics.notify(event)
    said = await _said(metrics)
    assert said["otpmail_mails_accepted_total"] == 3
    assert said["otpmail_mails_deferred_total"] == 1
    assert said['otpmail_mails_settled_total{state="relayed"}'] == 2
    assert said['otpmail_mails_settled_total{state="failed"}'] == 1
    assert said[f'otpmail_mails_sent_total{{relay="{RELAY}"}}'] == 42
    assert said[f'otpmail_connections_opened_total{{mode="bdat",relay="{RELAY}"}}'] == 3
    assert said[f'otpmail_connections_closed_total{{how="recycled",relay="{RELAY}"}}'] == 1
    assert said[f'otpmail_connections_closed_total{{how="lost",relay="{RELAY}"}}'] == 1
    assert said[f'otpmail_dials_failed_total{{relay="{RELAY}"}}'] == 1
    assert said['otpmail_codes_checked_total{result="wrong_code"}'] == 1
    assert said[f'otpmail_relay_up{{relay="{RELAY}"}}'] == 1
    metrics.notify(RelayDown(RELAY, "refused", 1.0))
    assert (await _said(metrics))[f'otpmail_relay_up{{relay="{RELAY}"}}'] == 0
    metrics.notify(RelayIdle(RELAY))
    assert f'otpmail_relay_up{{relay="{RELAY}"}}' not in await _said(metrics)


async def test_what_there_is_is_read_when_one_asks() -> None:
    """Connections and their mails are looked at, not counted along; what open ones have sent is in the sum."""
    metrics = _metrics(_connection(3, 10), _connection(0, 5))
    metrics.notify(ConnectionClosed(RELAY, "worn", 40, recycled=True))
    said = await _said(metrics)
    assert said[f'otpmail_connections_open{{relay="{RELAY}"}}'] == 2
    assert said[f'otpmail_mails_in_flight{{relay="{RELAY}"}}'] == 3
    assert said[f'otpmail_mails_sent_total{{relay="{RELAY}"}}'] == 55
    assert said['otpmail_mails_waiting{priority="bulk"}'] == 2
    assert said["otpmail_mails_unsettled"] == 9


async def test_a_rate_has_a_first_value() -> None:
    """What has never happened is 0, not absent: an alarm on a rate would miss the first time."""
    said = await _said(_metrics())
    assert said["otpmail_mails_accepted_total"] == said["otpmail_mails_deferred_total"] == 0


async def test_answers_over_http_until_it_is_stopped() -> None:
    """On the port that is told; a port that is taken is an error that names the setting."""
    server, second = MetricsServer(_metrics()), MetricsServer(_metrics())
    url = server.start("127.0.0.1", 0)

    def get() -> str:
        with urllib.request.urlopen(url, timeout=5) as response:
            return str(response.read().decode())

    assert "otpmail_mails_unsettled 9.0" in await asyncio.to_thread(get)
    with pytest.raises(SettingsError, match="HTTP_PORT: can't listen"):
        second.start("127.0.0.1", int(url.rpartition(":")[2].partition("/")[0]))
    with pytest.raises(SettingsError, match="HTTP_HOST"):
        second.start("a..b", 0)
    await second.stop()
    await server.stop()
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(get)
