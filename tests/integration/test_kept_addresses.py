"""All that is kept of an address, through a real service: shown, lifted and erased, by gRPC and by the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import grpc
import pytest

from calls import bad_field, quota_setting
from commands import otpmail
from guaranteed import redis_settings, sqlite_settings
from otpmail.v1 import address_pb2, mail_pb2, otp_pb2
from relay import Faults
from service import Service, relay_settings

if TYPE_CHECKING:
    from pathlib import Path

    from relay import Certificates, Relay

ADA, BOB = "ada@example.org", "bob@example.org"
pytestmark = pytest.mark.service(OTP_RETURN_CODE="true", OTP_SENDS_PER_HOUR=2, OTP_RESEND_SECONDS=0)


async def _send(service: Service, email: str = ADA) -> str:
    return (await service.otp.SendCode(otp_pb2.SendCodeRequest(email=email))).otp_code


async def _budgets(service: Service, email: str = ADA) -> dict[str, tuple[int, int]]:
    answer = await service.address_service.GetAddress(address_pb2.GetAddressRequest(email=email))
    assert all(budget.reset_time.seconds > 0 for budget in answer.budgets)
    return {budget.name: (budget.spent, budget.limit) for budget in answer.budgets}


async def test_an_address_is_released(service: Service) -> None:
    """An address that has had all its mails of an hour gets the next one once it is released, however it is spelt."""
    assert await _budgets(service) == {}
    for _ in range(2):
        await _send(service)
    assert await _budgets(service, " ADA@Example.ORG ") == {
        "OTP_SENDS_PER_HOUR": (2, 2),
        "OTP_SENDS_PER_DAY": (2, 30),
    }
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _send(service)
    assert quota_setting(caught.value) == "OTP_SENDS_PER_HOUR"
    with pytest.raises(grpc.aio.AioRpcError) as caught:  # it does not say what to lift
        await service.address_service.ReleaseAddress(address_pb2.ReleaseAddressRequest(email=ADA))
    assert bad_field(caught.value) == "suppression"
    assert await _budgets(service) != {}
    await service.address_service.ReleaseAddress(address_pb2.ReleaseAddressRequest(email=ADA, budgets=True))
    assert await _budgets(service) == {}
    await _send(service)


async def test_an_address_with_a_tag_is_released(service: Service) -> None:
    """The mails of a mailbox are shown for its addresses with tags, and are lifted through each of them."""
    tags = ("ada+1@example.org", "ada+2@example.org")
    for email in tags:
        await _send(service, email)
    shown = {"OTP_SENDS_PER_HOUR": (2, 2), "OTP_SENDS_PER_DAY": (2, 30)}
    assert [await _budgets(service, email) for email in (ADA, *tags)] == [shown] * 3
    await service.address_service.ReleaseAddress(address_pb2.ReleaseAddressRequest(email=tags[0], budgets=True))
    assert await _budgets(service) == {}
    await _send(service, tags[0])


@pytest.mark.parametrize("store", ["sqlite", "redis"])
async def test_a_mail_of_a_forgotten_person_that_comes_back(
    relay: Relay, certificates: Certificates, tmp_path: Path, request: pytest.FixtureRequest, store: str
) -> None:
    """A mail that was open when its person was forgotten, and is sent by a later process, settles without them."""
    settings = relay_settings(relay, certificates, tmp_path / "token")
    settings |= (
        sqlite_settings(tmp_path / "store.db")
        if store == "sqlite"
        else redis_settings(request.getfixturevalue("redis"))
    )
    relay.faults = Faults(refuse_recipients={ADA: "451 4.3.0 later", BOB: "451 4.3.0 later"})
    mail = mail_pb2.SendMailRequest(
        to=[ADA, BOB], subject="s", text="t", wait_for=mail_pb2.WAIT_FOR_QUEUE, labels={"order": "1"}
    )
    async with Service(**settings) as service:
        await service.wait_until_serving()
        mail_id = (await service.mail.SendMail(mail)).mail.id
        await service.wait_for_log("mail-deferred", timeout=30)
        await service.address_service.ForgetAddress(address_pb2.ForgetAddressRequest(email=ADA))
        await service.kill()
    relay.faults = Faults()
    async with Service(**settings) as service:
        await service.wait_until_serving()
        async for known in service.mail.WatchMail(mail_pb2.WatchMailRequest(id=mail_id), timeout=60):
            last = known
        assert last.state == mail_pb2.Mail.STATE_RELAYED
        kept = await service.mail.GetMail(mail_pb2.GetMailRequest(id=mail_id))
        assert [one.address for one in kept.recipients] == [BOB]
        assert not kept.labels
    assert len(relay.mails) == 1


async def test_an_address_is_forgotten(service: Service) -> None:
    """A forgotten address has no live code, and has spent nothing."""
    code = await _send(service)
    await service.address_service.ForgetAddress(address_pb2.ForgetAddressRequest(email=ADA))
    assert await _budgets(service) == {}
    answer = await service.otp.ValidateCode(otp_pb2.ValidateCodeRequest(email=ADA, code=code))
    assert answer.result == otp_pb2.ValidateCodeResponse.RESULT_NO_LIVE_CODE


async def test_an_address_is_forgotten_in_mails(service: Service) -> None:
    """A settled mail of a forgotten address has neither recipient nor labels, and the log says who has asked for it."""
    request = mail_pb2.SendMailRequest(to=[ADA], text="Hello", request_id="r1", labels={"user": "4711"})
    sent = await service.mail.SendMail(request)
    assert [one.address for one in sent.mail.recipients] == [ADA]
    await service.address_service.ForgetAddress(address_pb2.ForgetAddressRequest(email=ADA))
    found = await service.mail.GetMail(mail_pb2.GetMailRequest(id=sent.mail.id))
    assert (found.state, list(found.recipients), dict(found.labels)) == (mail_pb2.Mail.STATE_RELAYED, [], {})
    again = await service.mail.SendMail(request)
    assert (again.mail.id, list(again.mail.recipients)) == (sent.mail.id, [])
    line = await service.wait_for_log("address-forgotten")
    assert (line["caller"], line["address"], line["mails"]) == ("anonymous", "a***@example.org", 1)
    await service.address_service.ReleaseAddress(address_pb2.ReleaseAddressRequest(email=ADA, budgets=True))
    assert (await service.wait_for_log("address-released"))["lifted"] == []


async def test_a_text_that_is_no_address(service: Service) -> None:
    """A text that is no address is refused by each method, by the name of the field."""
    stub = service.address_service
    for call in (
        stub.GetAddress(address_pb2.GetAddressRequest(email="ada")),
        stub.ReleaseAddress(address_pb2.ReleaseAddressRequest(email="", budgets=True)),
        stub.ForgetAddress(address_pb2.ForgetAddressRequest(email="ada@")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert bad_field(caught.value) == "email"


async def test_an_address_by_the_command_line(service: Service) -> None:
    """`otpmail address` shows what is spent, lifts it, and erases what is kept."""
    nothing = await otpmail("address", "show", ADA, server=service.address)
    assert (nothing.code, nothing.out.strip()) == (0, f"{ADA} has spent nothing of its limits")
    code = await _send(service)
    shown = await otpmail("address", "show", ADA, server=service.address)
    assert shown.out.splitlines()[0].startswith("OTP_SENDS_PER_HOUR: 1 of 2 spent, less from 20")
    as_json = await otpmail("address", "show", ADA, "--json", server=service.address)
    assert json.loads(as_json.out)["budgets"][0]["limit"] == 2
    released = await otpmail("address", "release", ADA, server=service.address)
    assert (released.code, released.out.strip()) == (
        0,
        f"{ADA} is not suppressed, and has spent nothing of its limits now",
    )
    forgotten = await otpmail("address", "forget", ADA, server=service.address)
    assert (forgotten.code, forgotten.out.strip()) == (0, f"nothing of {ADA} is kept now")
    checked = await otpmail("code", "validate", ADA, code, server=service.address)
    assert (checked.code, checked.out.strip()) == (1, "no live code")
    wrong = await otpmail("address", "show", "ada", server=service.address)
    assert wrong.code == 2
    assert "email" in wrong.err


async def test_a_session_and_a_device_by_the_command_line(service: Service) -> None:
    """`code send`, `validate` and `revoke` take a session, and a device token that a valid check has printed."""
    sent = await otpmail("code", "send", ADA, "--session", "s-1", "--json", server=service.address)
    code = json.loads(sent.out)["otp_code"]
    other = await otpmail("code", "validate", ADA, code, "--session", "s-2", server=service.address)
    assert other.out.strip() == "no live code"
    right = await otpmail("code", "validate", ADA, code, "--session", "s-1", "--json", server=service.address)
    token = json.loads(right.out)["device_token"]
    for _ in range(2):
        sent = await otpmail("code", "send", ADA, "--device-token", token, "--json", server=service.address)
        assert sent.code == 0
    assert await _budgets(service) == {"OTP_SENDS_PER_HOUR": (1, 2), "OTP_SENDS_PER_DAY": (1, 30)}
    await otpmail("code", "revoke", ADA, "--session", "s-3", server=service.address)
    code = json.loads(sent.out)["otp_code"]
    right = await otpmail("code", "validate", ADA, code, "--device-token", token, server=service.address)
    assert (right.code, right.out.strip()) == (0, "valid")


async def test_a_wrong_client_ip_by_the_command_line(service: Service) -> None:
    """`code send --client-ip` of a text that is no IP address is a wrong argument, which the error names."""
    ran = await otpmail("code", "send", ADA, "--client-ip", "nowhere", server=service.address)
    assert ran.code == 2
    assert "client_ip" in ran.err
