"""Several relays, and a rate: EMAIL_RELAYS and EMAIL_RATE on the service as a process."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest

from calls import parsed, send_to
from otpmail.v1 import mail_pb2
from relay import Faults, Relay
from service import Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ADA = "ada@example.org"
MAILS = int(os.environ.get("OTPMAIL_MAILS") or "10000")


async def _send(service: Service, to: str = ADA, **fields: Any) -> mail_pb2.Mail:
    return (await service.mail.SendMail(mail_pb2.SendMailRequest(to=[to], text=f"for {to}", **fields))).mail


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Relay, Relay]]:
    """Start two relays: the one that is wanted, and the one that stands in."""
    faults = Faults(auth=())
    async with Relay(faults) as first, Relay(faults) as second:
        yield first, second


def _settings(first: Relay, second: Relay, **more: Any) -> dict[str, Any]:
    relays = " ".join(f"smtp+plain://127.0.0.1:{relay.port}" for relay in (first, second))
    return {"EMAIL_RELAYS": relays, "EMAIL_FROM": "codes@example.org", "EMAIL_RETRY_SECONDS": 0.05, **more}


async def test_the_first_relay_is_used_while_it_is_there(pair: tuple[Relay, Relay]) -> None:
    """While the first relay is up, no mail goes to a later one."""
    first, second = pair
    async with Service(**_settings(first, second)) as service:
        await service.wait_until_serving()
        for _ in range(10):
            assert (await _send(service)).state == mail_pb2.Mail.STATE_RELAYED
    assert (len(first.mails), second.connections) == (10, 0)


async def test_failover_and_return(pair: tuple[Relay, Relay]) -> None:
    """Mails go through the second relay while the first is down, and through the first again once it is up."""
    first, second = pair
    async with Service(**_settings(first, second, WORKERS=3)) as service:
        await service.wait_until_serving()
        assert (await _send(service)).state == mail_pb2.Mail.STATE_RELAYED
        await first.close()
        assert (await _send(service)).state == mail_pb2.Mail.STATE_RELAYED
        assert (len(first.mails), len(second.mails)) == (1, 1)
        await first.start()
        await first.wait_for_open(3)
        await second.wait_for_open(0)
        assert (await _send(service)).state == mail_pb2.Mail.STATE_RELAYED
        assert (len(first.mails), len(second.mails)) == (2, 1)
        # The second one was left on purpose: the log says neither that it is down nor that no mail can be sent.
        assert str((await service.wait_for_log("relay-left"))["relay"]).endswith(f":{second.port}")
        assert not any(str(down["relay"]).endswith(f":{second.port}") for down in service.logged("relay-down"))
        await service.wait_until_serving()


async def test_a_first_relay_that_says_nothing_holds_up_no_mail(pair: tuple[Relay, Relay]) -> None:
    """While the first relay is dialled, connections to the second are replaced by connections to the second."""
    first, second = pair
    await first.close()
    async with Service(**_settings(first, second, WORKERS=1, EMAIL_MAX_MESSAGES=5)) as service:
        await service.wait_until_serving()
        first.faults = Faults(auth=(), silent_at="CONNECT")
        await first.start()
        await first.wait_for_connections(1)
        async with asyncio.timeout(20):  # less than EMAIL_TIMEOUT
            for _ in range(20):
                assert (await _send(service)).state == mail_pb2.Mail.STATE_RELAYED
        first.cut_connections()
    assert len(second.mails) == 20


async def test_a_first_relay_that_is_down_from_the_start(pair: tuple[Relay, Relay]) -> None:
    """The service is ready through the second relay, and says of the first why it is not used."""
    first, second = pair
    await first.close()
    async with Service(**_settings(first, second)) as service:
        await service.wait_until_serving()
        assert (await _send(service)).state == mail_pb2.Mail.STATE_RELAYED
        assert str(first.port) in str((await service.wait_for_log("relay-down"))["message"])
    assert len(second.mails) == 1


@pytest.mark.parametrize("workers", [1, 3])
async def test_a_first_relay_that_refuses_all_as_too_fast(pair: tuple[Relay, Relay], workers: int) -> None:
    """Mails go through the second relay while the first refuses each, and through the first once it takes one."""
    first, second = pair
    first.faults = Faults(auth=(), refuse_sender="450 4.7.1 Error: too much mail from 127.0.0.1")
    async with Service(**_settings(first, second, WORKERS=workers)) as service:
        await service.wait_until_serving()
        async with asyncio.timeout(30):
            mails = await asyncio.gather(*(_send(service, f"p{n}@example.org") for n in range(20)))
        assert {(mail.state, mail.attempts) for mail in mails} == {(mail_pb2.Mail.STATE_RELAYED, 1)}
        assert len(second.mails) == 20
        assert not service.logged("relay-down")
        await service.wait_until_serving()
        first.faults = Faults(auth=())
        async with asyncio.timeout(30):
            while not first.mails:
                await _send(service)
        await second.wait_for_open(0)
        await first.wait_for_open(workers)


async def test_failing_over_in_the_middle_loses_nothing(pair: tuple[Relay, Relay]) -> None:
    """Ten thousand mails all arrive while relays go down and come up, twice only where a reply was lost.

    A second copy has the same Message-ID, and the caller's answer counts the attempt.
    """
    first, second = pair
    people = [f"p{n}@example.org" for n in range(MAILS)]
    async with Service(**_settings(first, second)) as service:
        await service.wait_until_serving()
        sending = asyncio.create_task(send_to(service, people))
        await first.wait_for_mails(MAILS // 10)
        await first.close()
        await second.wait_for_mails(MAILS // 10)
        await first.start()
        await first.wait_for_mails(MAILS // 5)
        told = await sending
    assert {mail.state for mail in told.values()} == {mail_pb2.Mail.STATE_RELAYED}
    copies: dict[str, list[str]] = {person: [] for person in people}
    for caught in (*first.mails, *second.mails):
        (person,) = caught.recipients
        assert f"for {person}.".encode() in caught.content
        copies[person].append(str(parsed(caught.content)["Message-ID"]))
    assert all(1 <= len(ids) <= told[person].attempts for person, ids in copies.items())
    assert all(set(ids) == {told[person].message_id} for person, ids in copies.items())
    assert sum(len(ids) - 1 for ids in copies.values()) <= 5 * 16  # five windows of 16


@pytest.mark.relay(auth=())
@pytest.mark.service(EMAIL_RATE=50, WORKERS=3)
async def test_rate(service: Service, relay: Relay) -> None:
    """EMAIL_RATE bounds the mails that the relay is sent each second; none is lost."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    mails = await asyncio.gather(*(_send(service, f"p{n}@example.org") for n in range(30)))
    assert loop.time() - began > 0.9 * (30 - 1 - 50 * 0.05) / 50
    assert {mail.state for mail in mails} == {mail_pb2.Mail.STATE_RELAYED}
    assert len(relay.mails) == 30


@pytest.mark.parametrize("point", ["MAIL", "CONNECT", "AUTH", "RSET"])
async def test_a_relay_that_ends_each_connection_holds_up_no_mail(point: str) -> None:
    """Each mail goes on at once to the relay that takes it, and none waits for a retry."""
    bad = Faults(cut_before_reply=point) if point != "MAIL" else Faults(closing_at=point)
    async with Relay(bad) as first, Relay(bad) as second, Relay(Faults()) as third:
        relays = " ".join(f"smtp+plain://user:secret@127.0.0.1:{relay.port}" for relay in (first, second, third))
        settings: dict[str, Any] = {"EMAIL_RELAYS": relays, "EMAIL": None, "APP_PASSWORD": None}
        async with Service(**settings) as service:
            await service.wait_until_serving()
            async with asyncio.timeout(8):
                for n in range(3):
                    mail = await _send(service, f"p{n}@example.org")
                    assert mail.state == mail_pb2.Mail.STATE_RELAYED
            assert not service.logged("mail-deferred")
    assert len(third.mails) == 3
