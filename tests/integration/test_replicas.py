"""Two replicas of the service on one Redis server: each answers for the mails of the other."""

from __future__ import annotations

import asyncio
import base64
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from guaranteed import names, request, send
from otpmail.v1 import mail_pb2
from relay import Faults
from service import Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from relay import Relay

LATER = "451 4.3.0 later"
RELAYED = mail_pb2.Mail.STATE_RELAYED


async def test_a_mail_is_taken_up_after_a_restart(state: dict[str, Any], relay: Relay) -> None:
    """A guaranteed mail that a stop left is sent by the next process, with the same Message-ID."""
    relay.faults = Faults(final_reply=LATER)
    async with Service(**state, DRAIN_SECONDS=0.1) as service:
        await service.wait_until_serving()
        mail = await send(service, "ada")
        await service.wait_for_log("mail-deferred")
        assert await service.stop() == 0
        assert service.logged("stopped")[0]["kept"] == 1
    relay.faults = Faults()
    async with Service(**state) as service:
        await relay.wait_for_mails(1)
        got = await service.mail.GetMail(mail_pb2.GetMailRequest(id=mail.id))
        assert (got.message_id, got.state) == (mail.message_id, RELAYED)
        assert await service.stop() == 0
    assert names(relay.mails) == ["ada"]


@pytest.fixture
async def replicas(state: dict[str, Any]) -> AsyncIterator[tuple[Service, Service]]:
    """Start two replicas."""
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(Service(**state)) for _ in range(2)]
        for replica in (first, second):
            await replica.wait_until_serving()
        yield first, second


async def test_a_mail_is_known_on_the_other_replica(replicas: tuple[Service, Service], relay: Relay) -> None:
    """GetMail and ListMails of each replica have the open and settled mails of the other, by id and request id."""
    first, second = replicas
    relay.faults = Faults(final_reply=LATER)
    mail = await send(first, "ada", request_id="r1")
    await first.wait_for_log("mail-deferred")
    for asked in (mail_pb2.GetMailRequest(id=mail.id), mail_pb2.GetMailRequest(request_id="r1")):
        got = await second.mail.GetMail(asked)
        assert (got.id, got.message_id, got.state) == (mail.id, mail.message_id, mail_pb2.Mail.STATE_QUEUED)
    assert [one.id for one in await _listed(second, recipient="ada@example.org")] == [mail.id]
    assert [one.id for one in await _listed(second, request_id="r1")] == [mail.id]
    assert await _listed(second, recipient="bob@example.org") == []
    relay.faults = Faults()
    await relay.wait_for_mails(1)
    assert [one.state async for one in second.mail.WatchMail(mail_pb2.WatchMailRequest(id=mail.id))][-1] == RELAYED
    found = await _listed(second, state=RELAYED)
    assert [(one.id, one.request_id) for one in found] == [(mail.id, "r1")]
    assert (await second.mail.GetMail(mail_pb2.GetMailRequest(id=mail.id))).state == RELAYED


async def test_a_mail_is_watched_on_the_other_replica(replicas: tuple[Service, Service], relay: Relay) -> None:
    """WatchMail of one replica shows what the owner of a mail knows alone, as that the relay has it."""
    first, second = replicas
    relay.faults = Faults(delay=30)
    mail = await send(first, "ada")
    states: list[int] = []
    async for one in second.mail.WatchMail(mail_pb2.WatchMailRequest(id=mail.id)):
        states.append(one.state)
        if one.state == mail_pb2.Mail.STATE_SENDING:
            break
    assert states == [mail_pb2.Mail.STATE_QUEUED, mail_pb2.Mail.STATE_SENDING]


async def test_a_mail_is_cancelled_on_the_other_replica(replicas: tuple[Service, Service], relay: Relay) -> None:
    """CancelMail of one replica cancels a waiting mail of the other, and is refused for one that the relay has."""
    first, second = replicas
    relay.faults = Faults(final_reply=LATER)
    mail = await send(first, "ada")
    await first.wait_for_log("mail-deferred")
    cancelled = await second.mail.CancelMail(mail_pb2.CancelMailRequest(id=mail.id))
    assert (cancelled.id, cancelled.state) == (mail.id, mail_pb2.Mail.STATE_CANCELLED)
    assert (await first.mail.GetMail(mail_pb2.GetMailRequest(id=mail.id))).state == mail_pb2.Mail.STATE_CANCELLED
    relay.faults = Faults(delay=60)
    sending = await send(first, "bob")
    await relay.wait_for_command("RCPT TO:<bob")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await second.mail.CancelMail(mail_pb2.CancelMailRequest(id=sending.id))
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION


async def test_a_request_id_on_both_replicas_is_one_mail(replicas: tuple[Service, Service], relay: Relay) -> None:
    """Calls with one request id on two replicas get one mail, whatever they wait for; another content is refused."""
    first, second = replicas
    relay.faults = Faults(delay=0.5)
    asked = request("ada", wait_for=mail_pb2.WAIT_FOR_RELAY, request_id="r1")
    answers = await asyncio.gather(*[replica.mail.SendMail(asked) for replica in (first, second) * 5])
    assert {(one.mail.id, one.mail.state) for one in answers} == {(answers[0].mail.id, RELAYED)}
    kept = [(await replica.mail.SendMail(request("bob", request_id="r2"))).mail.id for replica in (first, second) * 2]
    assert len(set(kept)) == 1
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await second.mail.SendMail(request("eve", request_id="r2"))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    await relay.wait_for_mails(2)
    assert sorted(names(relay.mails)) == ["ada", "bob"]


async def _listed(service: Service, **fields: Any) -> list[mail_pb2.Mail]:
    return list((await service.mail.ListMails(mail_pb2.ListMailsRequest(**fields))).mails)


async def test_replicas_with_wholly_different_keys(state: dict[str, Any]) -> None:
    """Replicas without a key in common each log one warning, which names OTP_KEYS."""
    other = f"k2:{base64.b64encode(bytes(32)).decode()}"
    async with Service(**state) as first, Service(**state | {"OTP_KEYS": other}) as second:
        for replica in (first, second):
            line = await replica.wait_for_log("keys-differ")
            assert (line["level"], str(line["message"])[:8]) == ("warning", "OTP_KEYS")
        both = Service(**state | {"OTP_KEYS": f"{state['OTP_KEYS']},{other}"})
        async with both:
            await both.wait_until_serving()
            assert await both.stop() == 0
        assert not both.logged("keys-differ")
        for replica in (first, second):
            assert await replica.stop() == 0
            assert len(replica.logged("keys-differ")) == 1
