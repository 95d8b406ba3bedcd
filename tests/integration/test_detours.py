"""Mails that the first relay can't take, by what it announces: another relay that can is used for these."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from otpmail.v1 import mail_pb2
from relay import Faults, Relay
from service import Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

RELAYED, FAILED = mail_pb2.Mail.STATE_RELAYED, mail_pb2.Mail.STATE_FAILED
ADA, GREEK = "ada@example.org", "άννα@example.org"


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Relay, Relay]]:
    """Start a relay without SMTPUTF8 that takes small mails only, and one that takes all."""
    async with Relay(Faults(auth=(), smtputf8=False, size=5000)) as first, Relay(Faults(auth=())) as second:
        yield first, second


def _service(*relays: Relay, **settings: Any) -> Service:
    urls = " ".join(f"smtp+plain://127.0.0.1:{relay.port}" for relay in relays)
    return Service(EMAIL_RELAYS=urls, EMAIL_FROM="codes@example.org", WORKERS=2, EMAIL_RETRY_SECONDS=0.05, **settings)


async def _send(service: Service, *to: str, **fields: Any) -> mail_pb2.Mail:
    request = mail_pb2.SendMailRequest(to=to or (ADA,), **({"text": "t"} | fields))
    return (await service.mail.SendMail(request)).mail


async def test_mails_that_the_first_relay_cannot_take(pair: tuple[Relay, Relay]) -> None:
    """A mail that needs SMTPUTF8, or is too large, goes over the second relay, and all others over the first."""
    first, second = pair
    async with _service(first, second) as service:
        await service.wait_until_serving()
        sending = (
            _send(service, reply_to=[GREEK]),
            _send(service, GREEK),
            _send(service, ADA, GREEK),
            _send(service, text="x" * 6000),
            *(_send(service) for _ in range(5)),
        )
        mails = await asyncio.gather(*sending)
        assert {(mail.state, mail.attempts) for mail in mails} == {(RELAYED, 1)}
        assert (len(first.mails), len(second.mails)) == (5, 4)
        assert sorted(len(mail.recipients) for mail in second.mails) == [1, 1, 1, 2]
        assert second.connections <= 2
        assert not service.logged("relay-down")
    await second.wait_for_open(0)


async def test_a_connection_for_such_mails_is_kept(pair: tuple[Relay, Relay]) -> None:
    """Mails that come one by one, or many at once, go over a connection of each worker, many in flight at a time."""
    first, second = pair
    async with _service(first, second) as service:
        await service.wait_until_serving()
        for _ in range(10):
            assert (await _send(service, GREEK)).state == RELAYED
        second.faults = Faults(auth=(), delay=0.02)
        for _ in range(5):
            mails = await asyncio.gather(*[_send(service, GREEK) for _ in range(40)])
            assert {mail.state for mail in mails} == {RELAYED}
        assert second.connections <= 2
        # This connection ends as any other: the next mail has a new one.
        await second.close()
        await second.start()
        assert (await _send(service, GREEK)).state == RELAYED


async def test_an_idle_connection_for_such_mails_is_closed(pair: tuple[Relay, Relay]) -> None:
    """A connection for such mails is closed once it has been idle for EMAIL_IDLE_SECONDS."""
    first, second = pair
    async with _service(first, second, EMAIL_IDLE_SECONDS=1) as service:
        await service.wait_until_serving()
        assert (await _send(service, GREEK)).state == RELAYED
        await second.wait_for_open(0)
        assert (await _send(service, GREEK)).state == RELAYED
        assert second.connections == 2


async def test_a_relay_for_such_mails_that_is_down(pair: tuple[Relay, Relay]) -> None:
    """A mail for another relay is deferred while that can't be reached, and the others go on over the first."""
    first, second = pair
    await second.close()
    async with _service(first, second) as service:
        await service.wait_until_serving()
        waiting = asyncio.create_task(_send(service, reply_to=[GREEK]))
        deferred = await service.wait_for_log("mail-deferred")
        assert "reply_to is an internationalised address" in str(deferred["message"])
        assert (await _send(service)).state == RELAYED
        await second.start()
        assert (await waiting).state == RELAYED
    assert (len(first.mails), len(second.mails)) == (1, 1)


@pytest.mark.parametrize(
    ("fields", "named"),
    [({"reply_to": [GREEK]}, "reply_to is"), ({"text": "x" * 6000}, "the relay takes 5000")],
)
async def test_mails_that_no_relay_can_take(pair: tuple[Relay, Relay], fields: dict[str, Any], named: str) -> None:
    """A mail that no relay can take fails at once, and its result names the field that is the reason, or the limit."""
    first, second = pair
    second.faults = first.faults
    async with _service(first, second) as service:
        await service.wait_until_serving()
        for _ in range(2):
            mail = await _send(service, **fields)
            assert (mail.state, mail.attempts) == (FAILED, 1)
            assert named in mail.recipients[0].reply
        assert second.connections == 1, "what it announces is known then"
        assert not first.mails + second.mails
