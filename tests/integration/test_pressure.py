"""Relays that take fewer connections, fewer mails a second, or close what is idle: the service finds out by itself."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from calls import scrape
from otpmail.v1 import mail_pb2
from relay import Faults, Relay
from service import Service, relay_settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from relay import Certificates


async def _send(service: Service, count: int, name: str = "p", **fields: Any) -> Sequence[mail_pb2.Mail]:
    requests = [mail_pb2.SendMailRequest(to=[f"{name}{n}@example.org"], text="t", **fields) for n in range(count)]
    return [answer.mail for answer in await asyncio.gather(*map(service.mail.SendMail, requests))]


def _all_at_first(mails: Sequence[mail_pb2.Mail]) -> None:
    """Every mail was relayed, by one attempt."""
    assert {mail.state for mail in mails} == {mail_pb2.Mail.STATE_RELAYED}
    assert {mail.attempts for mail in mails} == {1}


def _problems(service: Service) -> list[str]:
    return [str(line["event"]) for line in service.log if line["level"] in {"warning", "error"}]


# Microsoft 365: "432 4.3.2 Concurrent connections limit exceeded", three for each mailbox; Postfix: 421 4.7.0.
@pytest.mark.parametrize(
    ("crowded_at", "crowded"),
    [
        ("CONNECT", "421 4.7.0 relay.test Error: too many connections from 127.0.0.1"),
        ("AUTH", "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending"),
        ("AUTH", "421 4.7.0 Too many concurrent SMTP connections; please try again later."),
        ("MAIL", "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded"),
        ("MAIL", "421 4.7.0 Too many concurrent SMTP connections; please try again later."),
    ],
)
@pytest.mark.service(WORKERS=5, HTTP_PORT=0)
async def test_a_relay_that_takes_three_connections(
    service: Service, relay: Relay, crowded_at: Any, crowded: str
) -> None:
    """All mails go by their first attempt, with one warning that has the number, and the metric has it too."""
    await relay.wait_for_ready(5)
    relay.faults = Faults(most_open=3, crowded_at=crowded_at, crowded=crowded)
    if crowded_at != "MAIL":
        relay.cut_connections()
    started = time.monotonic()
    _all_at_first(await _send(service, 60))
    assert time.monotonic() - started < 10
    learned = await service.wait_for_log("connection-limit-learned")
    assert (learned["limit"], learned["wanted"]) == (3, 5)
    assert _problems(service) == ["connection-limit-learned"]
    assert (await scrape(service))[f'otpmail_connections_limit{{relay="{learned["relay"]}"}}'] == 3
    dialled = relay.connections
    _all_at_first(await _send(service, 60))
    assert relay.connections == dialled


@pytest.mark.relay(auth=(), most_open=3)
@pytest.mark.service(WORKERS=5, EMAIL_MAX_AGE=0.5)
async def test_connections_that_age_at_the_limit(service: Service, relay: Relay) -> None:
    """At the relay's limit an aged connection is closed before the next one is dialled, and no mail fails."""
    for n in range(4):
        _all_at_first(await _send(service, 20, f"p{n}-"))
        await relay.wait_for_connections(relay.connections + 2)
    assert relay.max_open <= 5
    assert not service.logged("relay-down")


@pytest.mark.relay(auth=(), rate=(20, 1.0))
@pytest.mark.service(WORKERS=3, HTTP_PORT=0)
async def test_a_relay_that_takes_twenty_a_second(service: Service, relay: Relay) -> None:
    """Mails wait in the queue for a lower rate, none counts a second attempt, and a code goes ahead of them."""
    bulk = asyncio.create_task(_send(service, 80, priority=mail_pb2.PRIORITY_BULK))
    lowered = await service.wait_for_log("rate-lowered")
    assert float(str(lowered["rate"])) < 100
    assert (await scrape(service))[f'otpmail_rate_limit{{relay="{lowered["relay"]}"}}'] < 100
    (urgent,) = await _send(service, 1, "urgent", priority=mail_pb2.PRIORITY_URGENT)
    assert urgent.state == mail_pb2.Mail.STATE_RELAYED
    assert not bulk.done()
    _all_at_first(await bulk)
    assert _problems(service) == ["rate-lowered"]
    assert len(relay.mails) == 81


@pytest.mark.relay(auth=(), rate=(20, 1.0))
@pytest.mark.service(WORKERS=3)
async def test_the_rate_recovers(service: Service, relay: Relay) -> None:
    """120 mails to a relay that takes twenty a second take not much longer than the six seconds that they must."""
    started = time.monotonic()
    _all_at_first(await _send(service, 120))
    assert time.monotonic() - started < 14
    assert len(relay.mails) == 120


@pytest.mark.relay(auth=(), refuse_sender="450 4.7.1 Error: too much mail from 127.0.0.1")
@pytest.mark.service(WORKERS=2)
async def test_a_code_is_tried_while_a_relay_refuses_all_as_too_fast(service: Service, relay: Relay) -> None:
    """Other mails wait for the relay's minute to be over, and an urgent one is tried within seconds all the same."""
    bulk = asyncio.create_task(_send(service, 20, priority=mail_pb2.PRIORITY_BULK))
    await service.wait_for_log("rate-lowered")
    await relay.wait_for_command("MAIL FROM", 6, timeout=30)
    urgent = asyncio.create_task(_send(service, 1, "urgent", priority=mail_pb2.PRIORITY_URGENT))
    await relay.wait_for_command("RCPT TO:<urgent0@", 1, timeout=15)
    relay.faults = replace(relay.faults, refuse_sender=None)
    _all_at_first(await urgent)
    bulk.cancel()
    await asyncio.gather(bulk, return_exceptions=True)


@pytest.mark.relay(auth=())
@pytest.mark.service(WORKERS=2, EMAIL_RATE=0.05)
async def test_a_code_does_not_wait_for_the_slot_of_another_mail(service: Service, relay: Relay) -> None:
    """With a mail in 20 seconds by EMAIL_RATE, an urgent one leaves at once; the next other mail waits for both."""
    bulk = asyncio.create_task(_send(service, 3, priority=mail_pb2.PRIORITY_BULK))
    await relay.wait_for_mails(1)
    async with asyncio.timeout(10):
        _all_at_first(await _send(service, 1, "urgent", priority=mail_pb2.PRIORITY_URGENT))
    assert len(relay.mails) == 2
    bulk.cancel()
    await asyncio.gather(bulk, return_exceptions=True)


@pytest.mark.relay(auth=(), rate=(3, 2.0), too_fast="421 4.7.28 Our system has detected an unusual rate of mail.")
@pytest.mark.service(WORKERS=2)
async def test_a_relay_that_closes_over_the_rate(service: Service) -> None:
    """Gmail closes the connection with its refusal: the mails go later over others, and the relay is not down."""
    _all_at_first(await _send(service, 8))
    assert _problems(service) == ["rate-lowered"]


@pytest.mark.parametrize("words", ["421 4.4.2 idle too long", "451 4.4.2 Timeout waiting for data from client.", None])
@pytest.mark.service(WORKERS=5)
async def test_a_relay_that_closes_what_is_idle(service: Service, relay: Relay, words: str | None) -> None:
    """Once the time is known one connection is kept, dialled ever more slowly; mails dial the others in parallel."""
    await relay.wait_for_ready(5)
    relay.faults = replace(relay.faults, idle_close=1.0, idle_words=words)
    relay.cut_connections()
    learned = await service.wait_for_log("idle-time-learned")
    assert 0.5 < float(str(learned["seconds"])) < 10
    await relay.wait_for_quiet(0.4)  # what was dialled meanwhile is closed again
    await relay.wait_for_open(1)
    started = time.monotonic()
    await relay.wait_for_connections(relay.connections + 2, timeout=30)
    assert time.monotonic() - started > 1.5
    relay.faults = replace(relay.faults, delay=0.1)
    started = time.monotonic()
    _all_at_first(await _send(service, 100))
    assert time.monotonic() - started < 10
    assert relay.max_open > 3
    assert not service.logged("relay-down")


@pytest.mark.relay(idle_close=1.0)
@pytest.mark.service(WORKERS=3, EMAIL_STANDBY=0)
async def test_none_is_kept(service: Service, relay: Relay, certificates: Certificates, tmp_path: Path) -> None:
    """With EMAIL_STANDBY=0 an idle service has no connection, is SERVING, and dials with the next mail.

    Meanwhile another service, with the default, replaces its idle connection several times.
    """
    await service.wait_for_log("idle-time-learned")
    await relay.wait_for_quiet(0.4)  # what was dialled meanwhile is closed again
    await relay.wait_for_open(0)
    dialled = relay.connections
    async with (
        Relay(Faults(idle_close=1.0), certificates=certificates) as other,
        Service(**relay_settings(other, certificates, tmp_path / "other"), WORKERS=1),
    ):
        await other.wait_for_connections(4, timeout=30)
    assert (relay.connections, relay.open_connections) == (dialled, 0)
    await service.wait_until_serving()
    _all_at_first(await _send(service, 1))
    assert relay.connections == dialled + 1
    await relay.wait_for_open(0)
    await relay.close()
    await service.wait_until_serving()
    await _send(service, 1, wait_for=mail_pb2.WAIT_FOR_QUEUE)
    await service.wait_for_log("relay-down")


@pytest.mark.relay(idle_close=1.0)
@pytest.mark.service(WORKERS=1, EMAIL_IDLE_SECONDS=0.4, LOG_LEVEL="debug")
async def test_idle_seconds_of_our_own(service: Service) -> None:
    """A connection that we close for idleness is replaced ever more slowly while no mail comes."""
    lines = [await service.wait_for_log("connection-opened", count=number) for number in (1, 4)]
    first, fourth = (datetime.fromisoformat(str(line["time"])) for line in lines)
    assert (fourth - first).total_seconds() > 0.4 + 1 + 2 - 0.1
    _all_at_first(await _send(service, 1))
    assert not service.logged("relay-down")


async def test_more_standby_connections_than_workers(relay: Relay) -> None:
    """EMAIL_STANDBY above WORKERS ends the start with a line that names both."""
    service = Service(EMAIL_HOST="127.0.0.1", EMAIL_PORT=relay.port, EMAIL_STANDBY=6, WORKERS=5)
    try:
        await service.spawn()
        assert await service.wait_exited() == 2
    finally:
        await service.close()
    assert any("EMAIL_STANDBY: is 6, and WORKERS is 5" in line for line in service.output)


@pytest.mark.parametrize(
    "words", ["421 4.4.2 idle too long", "451 4.4.2 Timeout waiting for data from client."], ids=["421", "451"]
)
@pytest.mark.service(WORKERS=5)
async def test_a_goodbye_that_crosses_a_mail(service: Service, relay: Relay, words: str) -> None:
    """The mail goes at once over another connection, also where all five say goodbye, and counts one attempt."""
    await relay.wait_for_ready(5)
    await relay.wait_for_quiet(0.5)  # longer than the service takes for a pause
    relay.faults = replace(relay.faults, refuse_sender=words, cut_after_reply="MAIL", times=10)
    sending = asyncio.create_task(_send(service, 1))
    await relay.wait_for_command("MAIL", 5)
    relay.faults = replace(relay.faults, refuse_sender=None, cut_after_reply=None)
    _all_at_first(await sending)
    assert not service.logged("mail-deferred")
