"""Metrics of the service as a process, read as Prometheus reads them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from calls import scrape
from otpmail.v1 import mail_pb2

if TYPE_CHECKING:
    from relay import Relay
    from service import Service


def _mail(number: int, wait_for: mail_pb2.WaitFor.ValueType = mail_pb2.WAIT_FOR_RELAY) -> mail_pb2.SendMailRequest:
    return mail_pb2.SendMailRequest(to=[f"p{number}@example.org"], text="Hello", wait_for=wait_for)


@pytest.mark.relay(auth=())
@pytest.mark.service(HTTP_PORT=0, WORKERS=2, EMAIL_MAX_MESSAGES=4, LOG_LEVEL="debug")
async def test_what_goes_where_is_counted(service: Service, relay: Relay) -> None:
    """Mails sent, in flight and waiting, and connections opened, replaced and lost: as the relay sees them."""
    for number in range(12):
        await service.mail.SendMail(_mail(number))
    name = f"127.0.0.1:{relay.port}"
    opened = f'otpmail_connections_opened_total{{mode="bdat",relay="{name}"}}'
    said: dict[str, float] = {}
    async with asyncio.timeout(30):  # the last ones may still be in the replacing when all mails are answered
        while not said or (said[opened], len(service.logged("connection-closed"))) != (
            relay.connections,
            relay.connections - 2,
        ):
            await relay.wait_for_idle(2)
            await service.wait_for_log("connection-closed", count=relay.connections - 2)
            said = await scrape(service)
    assert said["otpmail_mails_accepted_total"] == 12
    assert said['otpmail_mails_settled_total{state="relayed"}'] == 12
    assert said[f'otpmail_mails_sent_total{{relay="{name}"}}'] == 12 == len(relay.mails)
    assert said[f'otpmail_mails_in_flight{{relay="{name}"}}'] == 0
    recycled = said[f'otpmail_connections_closed_total{{how="recycled",relay="{name}"}}']
    assert recycled == len(service.logged("connection-closed")) >= 2
    assert said[opened] == relay.connections
    assert said[f'otpmail_relay_up{{relay="{name}"}}'] == 1

    relay.faults = replace(relay.faults, silent_at="MAIL")
    for number in range(6):
        await service.mail.SendMail(_mail(number, mail_pb2.WAIT_FOR_QUEUE))
    said = await scrape(service)
    flying = said[f'otpmail_mails_in_flight{{relay="{name}"}}']
    assert flying + said['otpmail_mails_waiting{priority="normal"}'] == said["otpmail_mails_unsettled"] == 6
    assert flying > 0
    relay.cut_connections()
    await service.wait_for_log("connection-closed", recycled=False)
    assert (await scrape(service))[f'otpmail_connections_closed_total{{how="lost",relay="{name}"}}'] > 0


@pytest.mark.relay(auth=(), silent_at="MAIL")
@pytest.mark.service(WORKERS=1, EMAIL_MAX_MESSAGES=2, LOG_LEVEL="debug")
async def test_a_worn_connection_that_is_lost_is_no_recycled_one(service: Service, relay: Relay) -> None:
    """A connection that has a successor already is lost all the same, if it ends with mails in flight."""
    for number in range(2):
        await service.mail.SendMail(_mail(number, mail_pb2.WAIT_FOR_QUEUE))
    await service.wait_for_log("connection-opened", count=2)
    relay.cut_connections()
    await service.wait_for_log("connection-closed", count=2)
    assert [line["recycled"] for line in service.logged("connection-closed")[:2]] == [False, False]
