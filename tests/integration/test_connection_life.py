"""Thousands of mails over connections that come and go: none is lost, and none doubled."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from calls import parsed, send_to
from otpmail.v1 import mail_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay import Relay
    from service import Service

MAILS = int(os.environ.get("OTPMAIL_MAILS") or "4000")
PEOPLE = [f"p{n}@example.org" for n in range(MAILS)]


async def _send(service: Service, people: Sequence[str] = PEOPLE) -> None:
    told = await send_to(service, people)
    assert {mail.state for mail in told.values()} == {mail_pb2.Mail.STATE_RELAYED}


def _each_once(relay: Relay) -> None:
    assert sorted(caught.recipients[0] for caught in relay.mails) == sorted(PEOPLE)
    assert all(f"for {caught.recipients[0]}.".encode() in caught.content for caught in relay.mails)


@pytest.mark.relay(auth=(), close_after=100)
@pytest.mark.service(EMAIL_MAX_MESSAGES=100)
async def test_a_relay_that_closes_after_a_hundred(service: Service, relay: Relay) -> None:
    """A relay that takes 100 mails on a connection is sent 100, and successors are open before they are needed."""
    await _send(service)
    _each_once(relay)
    assert relay.connections >= MAILS // 100
    assert relay.max_open > 5


@pytest.mark.relay(auth=(), close_after=100)
async def test_a_relay_that_closes_after_an_unknown_number(service: Service, relay: Relay) -> None:
    """With the settings that ship the service learns the number, and logs it once; every mail arrives once."""
    people = PEOPLE[: MAILS // 2]
    await _send(service, people[: MAILS // 4])
    await service.wait_for_log("message-limit-learned", limit=100)
    await _send(service, people[MAILS // 4 :])
    assert sorted(caught.recipients[0] for caught in relay.mails) == sorted(people)
    assert len(service.logged("message-limit-learned")) == 1


# KumoMTA, max_messages_per_connection: further MAIL commands get a transient failure, and the connection stays open.
@pytest.mark.relay(auth=(), most_mails=100)
async def test_a_relay_that_defers_what_is_too_much_for_a_connection(service: Service, relay: Relay) -> None:
    """The mails beyond go at once over further connections, by their first attempt."""
    told = await send_to(service, PEOPLE[:1000])
    assert {(mail.state, mail.attempts) for mail in told.values()} == {(mail_pb2.Mail.STATE_RELAYED, 1)}
    assert sorted(caught.recipients[0] for caught in relay.mails) == sorted(PEOPLE[:1000])


@pytest.mark.relay(auth=(), close_after=1, closes_silently=True)
async def test_a_relay_that_closes_after_each_mail(service: Service, relay: Relay) -> None:
    """Every mail is accepted, with one dial for each; a mail is sent twice only before the limit is known."""
    people = PEOPLE[:300]
    await _send(service, people)
    await service.wait_for_log("message-limit-learned", limit=1)
    assert {caught.recipients[0] for caught in relay.mails} == set(people)
    learned = len(relay.mails)
    connections = relay.connections
    await _send(service, PEOPLE[300:600])
    assert len(relay.mails) == learned + 300
    assert relay.connections <= connections + 310
    assert not service.logged("relay-down")


@pytest.mark.relay(auth=(), most_open=3)
@pytest.mark.service(EMAIL_MAX_MESSAGES=100, EMAIL_RETRY_SECONDS=0.05)
async def test_a_relay_that_has_enough_of_us(service: Service, relay: Relay) -> None:
    """Mails go on when the relay allows fewer connections than WORKERS and rejects every one beyond.

    The relay is not flooded with dials either. There is one when a connection closes, one by each other worker when
    that succeeded, and otherwise the delays grow.
    """
    await _send(service)
    _each_once(relay)
    assert relay.connections <= 20 + 4 * MAILS // 100


@pytest.mark.relay(auth=())
async def test_a_relay_that_closes_when_idle(service: Service, relay: Relay) -> None:
    """A relay that closes its idle connections between two bursts costs no mail."""
    burst = MAILS // 10
    for first in range(0, MAILS, burst):
        await _send(service, PEOPLE[first : first + burst])
        await relay.wait_for_idle(5)
        assert relay.drop_connections("421 4.4.2 idle too long", used=True)
    _each_once(relay)


@pytest.mark.relay(auth=(), idle_close=1.1, idle_words="421 4.4.2 idle too long")
@pytest.mark.service(WORKERS=2, LOG_LEVEL="debug")
async def test_a_relay_that_closes_what_is_idle_soon(service: Service) -> None:
    """A relay that closes connections idle for over a second is not down, and is not dialled over and over."""
    await service.wait_for_log("idle-time-learned")
    before = [line["event"] for line in service.log[: service.log.index(service.logged("idle-time-learned")[0])]]
    assert before.count("connection-opened") <= 2 * 3  # two closes show the time: three rounds of two connections
    await _send(service, PEOPLE[:1])
    assert not service.logged("relay-down")


@pytest.mark.relay(auth=())
@pytest.mark.service(EMAIL_MAX_AGE=0.3, EMAIL_MAX_MESSAGES=100_000)
async def test_connections_that_age(service: Service, relay: Relay) -> None:
    """Connections that are replaced for their age while full lose no mail: the next one is open before."""
    await _send(service)
    _each_once(relay)
    assert relay.connections > 10
    assert relay.max_open > 5


@pytest.mark.relay(auth=())
@pytest.mark.service(MAIL_MAX_RECIPIENTS=250)
async def test_a_mail_for_more_than_a_hundred(service: Service, relay: Relay) -> None:
    """A mail for 230 goes in transactions of at most a hundred, with one Message-ID; each recipient has it once."""
    people = [f"p{n}@example.org" for n in range(230)]
    relay.faults = replace(relay.faults, refuse_recipients={people[3]: "550 5.1.1 no", people[150]: "550 5.1.1 no"})
    mail = (await service.mail.SendMail(mail_pb2.SendMailRequest(bcc=people, text="for many"))).mail
    assert mail.state == mail_pb2.Mail.STATE_PARTIAL
    assert mail.attempts == 1
    assert [result.code for result in mail.recipients].count(250) == 228
    assert [mail.recipients[n].code for n in (3, 150)] == [550, 550]
    assert [len(caught.recipients) for caught in relay.mails] == [99, 99, 30]
    assert sorted(r for caught in relay.mails for r in caught.recipients) == sorted(
        set(people) - {people[3], people[150]}
    )
    assert {parsed(caught.content)["Message-ID"] for caught in relay.mails} == {mail.message_id}


@pytest.mark.relay(auth=())
@pytest.mark.service(WORKERS=3)
async def test_a_few_mails_spread(service: Service, relay: Relay) -> None:
    """Three mails at once take one of three idle connections each: none waits behind another."""
    await relay.wait_for_ready(3)
    relay.faults = replace(relay.faults, delay=0.3)
    await asyncio.gather(
        *(service.mail.SendMail(mail_pb2.SendMailRequest(to=[f"p{n}@example.org"], text="t")) for n in range(3))
    )
    assert sorted(caught.connection for caught in relay.mails) == [1, 2, 3]


@pytest.mark.relay(auth=())
@pytest.mark.service(WORKERS=2)
@pytest.mark.parametrize("size", [10, 5 << 20])
async def test_a_mail_that_takes_long_holds_up_nobody(service: Service, relay: Relay, size: int) -> None:
    """While the relay judges one mail, or does not read a large one, urgent ones go over the other connection."""
    await relay.wait_for_ready(2)
    relay.faults = replace(relay.faults, silent_at="MAIL" if size > 10 else "BDAT", times=1)
    slow = mail_pb2.SendMailRequest(to=["slow@example.org"], text="x" * size, wait_for=mail_pb2.WAIT_FOR_QUEUE)
    await service.mail.SendMail(slow)
    # The relay is at it, so that the fault is used up and strikes none of the others.
    await relay.wait_for_command(*(("MAIL", 1) if size > 10 else ("BDAT", 3)))
    await relay.wait_for_quiet(0.3)  # longer than the service gives a mail before it takes the relay for slow
    urgent = [
        mail_pb2.SendMailRequest(to=[f"p{n}@example.org"], text="t", priority=mail_pb2.PRIORITY_URGENT)
        for n in range(10)
    ]
    async with asyncio.timeout(10):
        answers = await asyncio.gather(*map(service.mail.SendMail, urgent))
    assert {answer.mail.state for answer in answers} == {mail_pb2.Mail.STATE_RELAYED}
    assert len({caught.connection for caught in relay.mails if caught.recipients != ("slow@example.org",)}) == 1
    relay.cut_connections()
