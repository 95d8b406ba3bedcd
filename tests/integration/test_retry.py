"""Mails that failed are sent again as the same mails, by RetryMail and `otpmail mail retry`, on each store."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from commands import otpmail
from guaranteed import redis_settings, request, send, sqlite_settings
from otpmail.v1 import mail_pb2, otp_pb2
from relay import Faults
from service import Service, relay_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from relay import Certificates, Relay

Mail = mail_pb2.Mail
BOTH = ["ada@example.org", "bob@example.org"]


@pytest.fixture(params=["memory", "sqlite", "redis"])
def state(request: pytest.FixtureRequest, relay: Relay, certificates: Certificates, tmp_path: Path) -> dict[str, Any]:
    """Return the settings of a service on each store in turn."""
    settings = relay_settings(relay, certificates, tmp_path / "token")
    if request.param == "sqlite":
        settings |= sqlite_settings(tmp_path / "store.db")
    if request.param == "redis":
        settings |= redis_settings(request.getfixturevalue("redis"))
    return settings


@pytest.fixture
async def running(state: dict[str, Any]) -> AsyncIterator[Service]:
    """A service on each store in turn."""
    async with Service(**state) as service:
        await service.wait_until_serving()
        yield service
        assert await service.stop() == 0


async def _settled(service: Service, mail_id: str) -> Mail:
    async with asyncio.timeout(30):
        return [mail async for mail in service.mail.WatchMail(mail_pb2.WatchMailRequest(id=mail_id))][-1]


async def _retry(service: Service, mail_id: str) -> Mail:
    return await service.mail.RetryMail(mail_pb2.RetryMailRequest(id=mail_id))


async def _refused(service: Service, mail_id: str) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _retry(service, mail_id)
    return caught.value.code(), caught.value.details() or ""


@pytest.mark.parametrize("wait_for", [mail_pb2.WAIT_FOR_QUEUE, mail_pb2.WAIT_FOR_RELAY])
@pytest.mark.parametrize("request_id", ["", "r1"])
@pytest.mark.relay(final_reply="554 5.7.1 no")
async def test_a_failed_mail_is_sent_again(running: Service, relay: Relay, wait_for: int, request_id: str) -> None:
    """A mail that failed goes again with its id and octets, and a repeated request id finds it from then on."""
    fields: dict[str, Any] = {"wait_for": wait_for, "request_id": request_id, "labels": {"a": "b"}}
    sent = await send(running, "ada", **fields)
    failed = await _settled(running, sent.id)
    assert (failed.state, failed.attempts) == (Mail.STATE_FAILED, 1)
    relay.faults = Faults()
    again = await _retry(running, sent.id)
    assert (again.id, again.state, again.HasField("settle_time")) == (sent.id, Mail.STATE_QUEUED, False)
    relayed = await _settled(running, sent.id)
    assert (relayed.state, relayed.attempts, relayed.recipients[0].code) == (Mail.STATE_RELAYED, 2, 250)
    same = ("message_id", "create_time", "labels", "request_id")
    assert [getattr(relayed, name) for name in same] == [getattr(sent, name) for name in same]
    assert relay.mails[0].content.count(sent.message_id.encode()) == 1
    if request_id:
        assert (await running.mail.SendMail(request("ada", **fields))).mail == relayed
    assert len(relay.mails) == 1
    listed = await running.mail.ListMails(mail_pb2.ListMailsRequest())
    assert list(listed.mails) == [relayed]


@pytest.mark.relay(refuse_recipients={"bob@example.org": "550 5.1.1 no such user"})
async def test_a_partial_mail_goes_to_the_others_alone(running: Service, relay: Relay) -> None:
    """A retried PARTIAL mail never goes to a recipient for whom the relay has accepted it."""
    sent = await send(running, "ada", to=BOTH)
    assert (await _settled(running, sent.id)).state == Mail.STATE_PARTIAL
    await _retry(running, sent.id)
    assert (await _settled(running, sent.id)).state == Mail.STATE_PARTIAL
    relay.faults = Faults()
    await _retry(running, sent.id)
    relayed = await _settled(running, sent.id)
    assert (relayed.state, [result.code for result in relayed.recipients]) == (Mail.STATE_RELAYED, [250, 250])
    first, second = relay.mails
    assert (first.recipients, second.recipients) == (("ada@example.org",), ("bob@example.org",))
    assert first.content == second.content


@pytest.mark.relay(final_reply="451 4.3.0 later")
async def test_an_expired_mail_is_sent_again(running: Service, relay: Relay) -> None:
    """A mail whose time passed gets MAIL_TTL from its retry on."""
    sent = await send(running, "ada", ttl={"seconds": 1}, request_id="r1")
    assert (await _settled(running, sent.id)).state in {Mail.STATE_EXPIRED, Mail.STATE_FAILED}
    relay.faults = Faults()
    await _retry(running, sent.id)
    assert (await _settled(running, sent.id)).state == Mail.STATE_RELAYED


@pytest.mark.relay(chunking=False, cut_before_reply=".", times=1)
async def test_an_uncertain_mail_is_sent_again(state: dict[str, Any], relay: Relay) -> None:
    """An UNCERTAIN mail is sent once more where its caller says so, as a second copy of the same octets."""
    async with Service(**state, EMAIL_ON_UNCERTAIN="fail") as service:
        sent = await send(service, "ada")
        assert (await _settled(service, sent.id)).state == Mail.STATE_UNCERTAIN
        await _retry(service, sent.id)
        assert (await _settled(service, sent.id)).state == Mail.STATE_RELAYED
        assert await service.stop() == 0
    first, second = relay.mails
    assert first.content == second.content


@pytest.mark.relay(refuse_recipients={"bad@example.org": "550 5.1.1 no"})
async def test_what_can_not_be_retried(running: Service, relay: Relay) -> None:
    """A mail that was relayed or is open, the mail of a code, and an unknown one are refused, each with its reason."""
    relayed = await _settled(running, (await send(running, "ada")).id)
    cause = grpc.StatusCode.FAILED_PRECONDITION
    words = "the mail has settled: RELAYED; a retry is for EXPIRED, FAILED, PARTIAL, UNCERTAIN"
    assert await _refused(running, relayed.id) == (cause, words)
    code = (await running.otp.SendCode(otp_pb2.SendCodeRequest(email="bad@example.org", request_id="c1"))).mail
    assert code.state == Mail.STATE_FAILED
    words = "the mail can't be retried: it is the mail of a code, whose content is not kept"
    status, said = await _refused(running, code.id)
    assert (status, said.partition(":")[0], words in said) == (cause, "the mail can't be retried", True)
    assert await _refused(running, "nope") == (
        grpc.StatusCode.NOT_FOUND,
        "there is no such mail, or it settled too long ago",
    )
    assert await _refused(running, "") == (grpc.StatusCode.INVALID_ARGUMENT, "id: is empty")
    relay.faults = Faults(final_reply="451 4.3.0 later")
    waiting = await send(running, "ada")
    await running.wait_for_log("mail-deferred", mail=waiting.id)
    assert await _refused(running, waiting.id) == (cause, "the mail has not settled: QUEUED")
    await running.mail.CancelMail(mail_pb2.CancelMailRequest(id=waiting.id))


@pytest.mark.relay(final_reply="554 5.7.1 no")
async def test_many_retries_at_once_send_one_mail(running: Service, relay: Relay) -> None:
    """Of many calls at once one sends the mail again, and the others are refused."""
    sent = await send(running, "ada")
    await _settled(running, sent.id)
    relay.faults = Faults()
    results = await asyncio.gather(*(_retry(running, sent.id) for _ in range(20)), return_exceptions=True)
    assert [type(result) for result in results].count(Mail) == 1
    assert (await _settled(running, sent.id)).state == Mail.STATE_RELAYED
    assert len(relay.mails) == 1


@pytest.mark.relay(final_reply="554 5.7.1 no")
async def test_a_failed_mail_is_retried_after_a_kill(relay: Relay, certificates: Certificates, tmp_path: Path) -> None:
    """On SQLite a mail that failed in a process that was killed is sent again, also if the next one is killed too."""
    state = relay_settings(relay, certificates, tmp_path / "token") | sqlite_settings(tmp_path / "store.db")
    async with Service(**state) as service:
        sent = await send(service, "ada", request_id="r1")
        assert (await _settled(service, sent.id)).state == Mail.STATE_FAILED
        await send(service, "bob", request_id="r2")  # whose commit holds the settlement of the first
        await service.kill()
    async with Service(**state | {"EMAIL_PORT": 1}) as service:
        assert (await _retry(service, sent.id)).state == Mail.STATE_QUEUED
        await service.kill()
    relay.faults = Faults()
    async with Service(**state) as service:
        assert (await _settled(service, sent.id)).state == Mail.STATE_RELAYED
        assert await service.stop() == 0
    assert [mail.content.count(sent.message_id.encode()) for mail in relay.mails if "ada" in mail.recipients[0]] == [1]


@pytest.mark.relay(refuse_recipients={f"{name}@example.org": "550 5.1.1 no" for name in ("ada", "bob", "eve")})
async def test_the_command(running: Service, relay: Relay) -> None:
    """`mail retry` retries the mails of ids, or all in a state, and says of each that it can't why."""
    ids = {name: (await _settled(running, (await send(running, name)).id)).id for name in ("ada", "bob")}
    code = (await running.otp.SendCode(otp_pb2.SendCodeRequest(email="eve@example.org"))).mail
    relay.faults = Faults()
    one = await otpmail("mail", "retry", "--state", "failed", "--to", "ada@example.org", server=running.address)
    assert (one.code, one.out.splitlines()[0]) == (0, f"mail {ids['ada']}: queued")
    rest = await otpmail("mail", "retry", "--state", "failed", server=running.address)
    assert (rest.code, rest.out.splitlines()[0]) == (1, f"mail {ids['bob']}: queued")
    assert rest.err.startswith(
        f"mail {code.id}: FAILED_PRECONDITION: the mail can't be retried: it is the mail of a code"
    )
    assert rest.err.count("\n") == 1
    for mail_id in ids.values():
        assert (await _settled(running, mail_id)).state == Mail.STATE_RELAYED
    both = await otpmail("mail", "retry", *ids.values(), "--json", server=running.address)
    assert (both.code, both.err.count("the mail has settled: RELAYED")) == (1, 2)
    errors = [json.loads(line)["error"] for line in both.out.splitlines()]
    assert [(error["code"], error["id"]) for error in errors] == [("FAILED_PRECONDITION", one) for one in ids.values()]
    assert all("the mail has settled: RELAYED" in error["message"] for error in errors)
    none = await otpmail("mail", "retry", "--state", "partial", server=running.address)
    assert (none.code, none.out, none.err) == (0, "", "no such mails\n")
    wrong = await otpmail("mail", "retry", "--state", "failed", "--to", "ada", server=running.address)
    assert (wrong.code, wrong.out, wrong.err.partition(":")[0]) == (2, "", "recipient")


@pytest.mark.parametrize("arguments", [(), ("m1", "--state", "failed"), ("m1", "--to", "ada@example.org")])
async def test_a_command_that_names_none_or_two(arguments: tuple[str, ...]) -> None:
    """`mail retry` needs either ids or a state, and ends with 2 otherwise."""
    ran = await otpmail("mail", "retry", *arguments)
    assert (ran.code, ran.out, ran.err.partition(":")[0]) == (2, "", "ID")
