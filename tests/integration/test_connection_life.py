"""Thousands of mails over connections that come and go: none is lost, and none doubled."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from otpmail.v1 import mail_pb2

if TYPE_CHECKING:
    from relay import Relay
    from service import Service

MAILS = int(os.environ.get("OTPMAIL_MAILS") or "2000")


async def _send(service: Service, first: int, count: int) -> None:
    """Send so many mails, a hundred at a time, and see each relayed."""
    numbers = iter(range(first, first + count))

    async def caller() -> None:
        for number in numbers:
            request = mail_pb2.SendMailRequest(to=[f"p{number}@example.org"], text=f"for p{number}@example.org.")
            assert (await service.mail.SendMail(request)).mail.state == mail_pb2.Mail.RELAYED

    await asyncio.gather(*(caller() for _ in range(100)))


def _each_once(relay: Relay, count: int) -> None:
    assert sorted(caught.recipients[0] for caught in relay.mails) == sorted(f"p{n}@example.org" for n in range(count))
    assert all(f"for {caught.recipients[0]}.".encode() in caught.content for caught in relay.mails)


@pytest.mark.relay(auth=(), close_after=100)
@pytest.mark.service(EMAIL_MAX_MESSAGES=100)
async def test_a_relay_that_closes_after_a_hundred(service: Service, relay: Relay) -> None:
    """A relay that takes 100 mails on a connection is sent 100, and successors are open before they are needed."""
    await _send(service, 0, MAILS)
    _each_once(relay, MAILS)
    assert relay.connections >= MAILS // 100
    assert relay.max_open > 5


@pytest.mark.relay(auth=(), most_open=3)
@pytest.mark.service(EMAIL_MAX_MESSAGES=100, EMAIL_RETRY_SECONDS=0.05)
async def test_a_relay_that_has_enough_of_us(service: Service, relay: Relay) -> None:
    """Where the relay allows fewer connections than WORKERS, and says so to each successor too, mails go on."""
    await _send(service, 0, MAILS)
    _each_once(relay, MAILS)


@pytest.mark.relay(auth=())
async def test_a_relay_that_closes_when_idle(service: Service, relay: Relay) -> None:
    """A relay that closes whatever is idle, between one burst and the next, costs no mail."""
    burst = MAILS // 10
    for first in range(0, MAILS, burst):
        await _send(service, first, burst)
        await relay.wait_for_idle(5)
        relay.drop_connections("421 4.4.2 idle too long")
    _each_once(relay, MAILS)


@pytest.mark.relay(auth=())
@pytest.mark.service(EMAIL_MAX_AGE=0.3)
async def test_connections_that_age(service: Service, relay: Relay) -> None:
    """Connections replaced for their age, full of mail, hand over without a gap."""
    await _send(service, 0, MAILS)
    _each_once(relay, MAILS)
    assert relay.connections > 5
