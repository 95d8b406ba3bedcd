"""Suppressed addresses, through a real service and a relay that refuses them: codes, mails, streams, reports."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from calls import bad_field
from commands import otpmail
from guaranteed import redis_settings, sqlite_settings
from integration.callers import as_caller, table, write
from otpmail.original import mail_pb2 as original_pb2
from otpmail.v1 import address_pb2, mail_pb2, otp_pb2
from relay import Faults
from service import Service, relay_settings

if TYPE_CHECKING:
    from pathlib import Path

    from redis_server import RedisServer
    from relay import Certificates, Relay

ADA, BOB, EVE = "ada@example.org", "bob@example.org", "eve@example.org"
REPLY = "550 5.1.1 <ada@example.org>: Recipient address rejected: User unknown"
GONE = Faults(refuse_recipients={ADA: REPLY})
FAILED, PARTIAL, RELAYED = mail_pb2.Mail.STATE_FAILED, mail_pb2.Mail.STATE_PARTIAL, mail_pb2.Mail.STATE_RELAYED
DAY = 86_400
Outcome = address_pb2.ReportDeliveryRequest.Outcome
pytestmark = pytest.mark.service(OTP_RETURN_CODE="true", OTP_RESEND_SECONDS=0)


async def _send_code(service: Service, email: str = ADA, **fields: Any) -> otp_pb2.SendCodeResponse:
    return await service.otp.SendCode(otp_pb2.SendCodeRequest(email=email, **fields))


async def _send(service: Service, *to: str, **fields: Any) -> mail_pb2.Mail:
    given: dict[str, Any] = {"to": to or (ADA,), "subject": "s", "text": "t"}
    return (await service.mail.SendMail(mail_pb2.SendMailRequest(**given | fields))).mail


async def _known(service: Service, email: str = ADA) -> mail_pb2.Suppression | None:
    answer = await service.address_service.GetAddress(address_pb2.GetAddressRequest(email=email))
    return answer.suppression if answer.HasField("suppression") else None


async def _report(service: Service, outcome: Outcome.ValueType, email: str = ADA, **fields: str) -> None:
    request = address_pb2.ReportDeliveryRequest(email=email, outcome=outcome, **fields)
    await service.address_service.ReportDelivery(request)


async def _release(service: Service, email: str = ADA) -> None:
    request = address_pb2.ReleaseAddressRequest(email=email, suppression=True)
    await service.address_service.ReleaseAddress(request)


async def _suppress(service: Service, relay: Relay) -> None:
    """Have the relay refuse an address, and then no more."""
    relay.faults = GONE
    assert (await _send(service)).state == FAILED
    relay.faults = Faults()


def _asked(relay: Relay) -> int:
    return len([command for command in relay.commands if command.line == f"RCPT TO:<{ADA}>"])


async def _is_left_out(service: Service, relay: Relay) -> None:
    """Send a code to a suppressed address, which no relay sees, and look at the answer."""
    asked = _asked(relay)
    answer = await _send_code(service)
    [result] = answer.mail.recipients
    assert (answer.mail.state, result.address, result.code) == (FAILED, ADA, 0)
    assert result.suppression.reason == REPLY
    assert result.suppression.scope == mail_pb2.Suppression.SCOPE_ALL
    assert result.suppression.until.seconds - result.suppression.since.seconds == DAY
    assert (answer.challenge_id, answer.otp_code, answer.code_length) == ("", "", 0)
    assert answer.next_send_time == result.suppression.until
    assert _asked(relay) == asked
    assert await _known(service) == result.suppression


@pytest.fixture
def settings(relay: Relay, certificates: Certificates, tmp_path: Path) -> dict[str, Any]:
    """Return the settings of a service that returns codes, and sends one after the other."""
    given = relay_settings(relay, certificates, tmp_path / "token")
    return given | {"OTP_RETURN_CODE": "true", "OTP_RESEND_SECONDS": 0}


async def _suppress_and_stop(settings: dict[str, Any], relay: Relay) -> None:
    """Run a service that has an address suppressed, and look at what it answers."""
    async with Service(**settings) as service:
        await service.wait_until_serving()
        code = (await _send_code(service)).otp_code
        await _suppress(service, relay)
        await _is_left_out(service, relay)
        first = await _send(service, request_id="r1", wait_for=mail_pb2.WAIT_FOR_QUEUE)
        assert first.state == FAILED
        again = await _send(service, request_id="r1", wait_for=mail_pb2.WAIT_FOR_QUEUE)
        assert (again.id, again.recipients) == (first.id, first.recipients)
        guaranteed = await _send_code(service, wait_for=mail_pb2.WAIT_FOR_QUEUE, request_id="r2")
        assert guaranteed.mail.state == FAILED
        assert (await service.mail.GetMail(mail_pb2.GetMailRequest(request_id="r2"))) == guaranteed.mail
        # The code that was mailed before is as good as ever.
        checked = await service.otp.ValidateCode(otp_pb2.ValidateCodeRequest(email=ADA, code=code))
        assert checked.result == otp_pb2.ValidateCodeResponse.RESULT_VALID
        assert await service.stop() == 0


async def test_an_address_is_suppressed(settings: dict[str, Any], relay: Relay) -> None:
    """An address that the relay has refused gets no further mail, by any method; in memory until the process ends."""
    await _suppress_and_stop(settings, relay)
    async with Service(**settings) as service:
        assert await _known(service) is None


async def test_a_file_keeps_suppressions(settings: dict[str, Any], relay: Relay, tmp_path: Path) -> None:
    """A suppressed address is so in the next process with the file, until it is released."""
    settings |= sqlite_settings(tmp_path / "store.db")
    await _suppress_and_stop(settings, relay)
    async with Service(**settings) as service:
        await service.wait_until_serving()
        await _is_left_out(service, relay)
        await _release(service)
        assert await _known(service) is None
        assert (await _send_code(service)).mail.state == RELAYED
        await service.kill()
    async with Service(**settings) as service:
        assert await _known(service) is None
    content = (tmp_path / "store.db").read_bytes()
    assert ADA.encode() not in content
    assert b"User unknown" not in content


async def test_replicas_share_suppressions(settings: dict[str, Any], relay: Relay, redis_server: RedisServer) -> None:
    """A suppressed address is so in all replicas, also in one that starts later, and so is its release."""
    settings |= redis_settings(redis_server)
    await _suppress_and_stop(settings, relay)
    async with Service(**settings) as one, Service(**settings) as two:
        for service in (one, two):
            await service.wait_until_serving()
            await _is_left_out(service, relay)
        await _release(one)
        assert await _known(two) is None
        await _report(two, Outcome.OUTCOME_BOUNCED, BOB, detail=REPLY)
        assert await _known(one, BOB) is not None
        async with asyncio.timeout(20):  # each learns of it from the server, a moment later
            while (await _send(two)).state == FAILED:
                pass
            while (await _send(one, BOB)).state == RELAYED:
                pass


async def test_one_recipient_is_left_out(service: Service, relay: Relay) -> None:
    """Only the suppressed recipient of a mail is left out, in to, cc and bcc, and its caller learns of it."""
    await _suppress(service, relay)
    mails = [
        await _send(service, ADA, BOB),
        await _send(service, BOB, cc=[ADA]),
        await _send(service, BOB, bcc=[ADA, EVE]),
    ]
    for mail in mails:
        assert mail.state == PARTIAL
        by_address = {result.address: result for result in mail.recipients}
        assert by_address[ADA].suppression.reason == REPLY
        assert by_address[BOB].code == 250
        assert not by_address[BOB].HasField("suppression")
    assert [mail.recipients for mail in relay.mails] == [(BOB,), (BOB,), (BOB, EVE)]
    kept = await service.mail.GetMail(mail_pb2.GetMailRequest(id=mails[0].id))
    assert kept == mails[0]
    await service.wait_for_log("recipient-suppressed", count=len(mails))
    lines = service.logged("recipient-suppressed")
    assert [(line["mail"], line["address"]) for line in lines] == [(mail.id, "a***@example.org") for mail in mails]


async def test_mails_of_a_stream(service: Service, relay: Relay) -> None:
    """The results of a stream name suppressed recipients, of guaranteed mails and of others."""
    await _suppress(service, relay)
    mails = [
        mail_pb2.SendMailRequest(to=to, subject="s", text="t", request_id=f"r{number}", wait_for=wait)
        for number, (to, wait) in enumerate(
            (to, wait) for to in ([ADA], [ADA, BOB]) for wait in (mail_pb2.WAIT_FOR_RELAY, mail_pb2.WAIT_FOR_QUEUE)
        )
    ]
    states: dict[str, mail_pb2.Mail] = {}
    call = service.mail.SendMails()
    await call.write(mail_pb2.SendMailsRequest(mails=mails))
    await call.done_writing()
    async for response in call:
        states |= {result.request_id: result.mail for result in response.results}
    assert [states[f"r{number}"].state for number in (0, 1, 2)] == [FAILED, FAILED, PARTIAL]
    for mail in states.values():
        assert mail.recipients[0].suppression.reason == REPLY
    await relay.wait_for_mails(2)
    assert {mail.recipients for mail in relay.mails} == {(BOB,)}


async def test_a_retry(service: Service, relay: Relay) -> None:
    """A mail that is retried leaves its suppressed recipient out again, and reaches it once that is released.

    A retry asks the relay again about a recipient whom it has refused.
    """
    relay.faults = GONE
    refused = await _send(service, request_id="r1")
    relay.faults = Faults()
    await service.mail.RetryMail(mail_pb2.RetryMailRequest(id=refused.id))
    await relay.wait_for_mails(1)
    settled = [mail async for mail in service.mail.WatchMail(mail_pb2.WatchMailRequest(id=refused.id))]
    assert settled[-1].state == RELAYED
    assert await _known(service) is None
    await _suppress(service, relay)
    mail = await _send(service, ADA, BOB)
    again = await service.mail.RetryMail(mail_pb2.RetryMailRequest(id=mail.id))
    assert again.state == PARTIAL
    assert again.recipients == mail.recipients
    await _release(service)
    await service.mail.RetryMail(mail_pb2.RetryMailRequest(id=mail.id))
    await relay.wait_for_mails(3)
    assert [mail.recipients for mail in relay.mails] == [(ADA,), (BOB,), (ADA,)]
    await _suppress(service, relay)
    code = await _send_code(service)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.mail.RetryMail(mail_pb2.RetryMailRequest(id=code.mail.id))
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION


async def test_refusals_that_do_not_suppress(service: Service, relay: Relay, subtests: pytest.Subtests) -> None:
    """A refusal that is not of the address as such suppresses nobody: the next mail is sent."""
    for name, faults in {
        "no enhanced code": Faults(refuse_recipients={ADA: "550 No such user"}),
        "policy": Faults(refuse_recipients={ADA: "550 5.7.1 rejected by policy"}),
        "route": Faults(refuse_recipients={ADA: "550 5.4.1 no route"}),
        "full": Faults(refuse_recipients={ADA: "552 5.2.2 mailbox full"}),
        "sender": Faults(refuse_sender="550 5.1.1 unknown"),
        "content": Faults(final_reply=lambda _: "550 5.7.1 spam"),
    }.items():
        with subtests.test(name):
            relay.faults = faults
            assert (await _send(service)).state == FAILED
            assert await _known(service) is None
            relay.faults = Faults()
            assert (await _send(service)).state == RELAYED


async def test_refusals_of_content(service: Service, relay: Relay) -> None:
    """A refusal of content as if of an address suppresses the one recipient of a mail, and none of several."""
    relay.faults = Faults(final_reply=lambda _: "550 5.1.1 unknown user")
    assert (await _send(service, ADA, BOB)).state == FAILED
    assert [await _known(service, email) for email in (ADA, BOB)] == [None, None]
    assert (await _send(service, BOB)).state == FAILED
    assert await _known(service, ADA) is None
    assert await _known(service, BOB) is not None


async def test_reports(service: Service, relay: Relay) -> None:
    """A report of a bounce suppresses all mail, one of a complaint bulk alone, one of a delivery ends the first."""
    await _report(service, Outcome.OUTCOME_BOUNCED, detail="550 5.1.1 gone", mail_id="0" * 32)
    known = await _known(service, " ADA@Example.ORG ")
    assert known is not None
    assert (known.reason, known.scope) == ("550 5.1.1 gone", mail_pb2.Suppression.SCOPE_ALL)
    assert (await _send_code(service)).mail.state == FAILED
    await _report(service, Outcome.OUTCOME_COMPLAINED)
    await _report(service, Outcome.OUTCOME_DELIVERED)
    known = await _known(service)
    assert known is not None
    assert known.scope == mail_pb2.Suppression.SCOPE_BULK
    assert (await _send_code(service)).mail.state == RELAYED
    assert (await _send(service)).state == RELAYED
    bulk = await _send(service, priority=mail_pb2.PRIORITY_BULK)
    assert bulk.state == FAILED
    assert bulk.recipients[0].suppression == known
    assert len(relay.mails) == 2
    await service.address_service.ForgetAddress(address_pb2.ForgetAddressRequest(email=ADA))
    assert await _known(service) is None


async def _ask_in_other_spellings(settings: dict[str, Any], relay: Relay, *, is_kept: bool) -> None:
    """Have the relay refuse other spellings than the owner's, who gets a code, in this process or the next."""
    stranger = ADA.upper()
    relay.faults = Faults(refuse_recipients={stranger: REPLY, stranger.title(): REPLY})
    asked = len([command for command in relay.commands if command.line.startswith("RCPT")])
    async with Service(**settings) as service:
        await service.wait_until_serving()
        for spelling in (stranger, stranger.title()):
            for _ in range(2):
                assert (await _send_code(service, spelling)).mail.state == FAILED
            assert await _known(service, spelling) is not None
            assert await _known(service) is None
        for spelling in (stranger, stranger.title()) * 2:
            [result] = (await _send_code(service, spelling)).mail.recipients
            assert result.suppression.reason == REPLY
        assert len([command for command in relay.commands if command.line.startswith("RCPT")]) == asked + 2
        if not is_kept:
            assert (await _send_code(service)).mail.state == RELAYED
            return
        assert await service.stop() == 0
    async with Service(**settings) as service:
        await service.wait_until_serving()
        assert await _known(service, stranger) is not None
        assert await _known(service, stranger.title()) is not None
        assert (await _send_code(service)).mail.state == RELAYED
        assert await _known(service, stranger.title()) is None


async def test_a_spelling_that_the_relay_refuses(settings: dict[str, Any], relay: Relay, tmp_path: Path) -> None:
    """A relay that knows ada@ and no ADA@ has no stranger keep back the codes of ada@, which end what was known."""
    await _ask_in_other_spellings(settings, relay, is_kept=False)
    await _ask_in_other_spellings(settings | sqlite_settings(tmp_path / "store.db"), relay, is_kept=True)


async def test_a_spelling_on_a_server(settings: dict[str, Any], relay: Relay, redis_server: RedisServer) -> None:
    """That is so on a server, too."""
    await _ask_in_other_spellings(settings | redis_settings(redis_server), relay, is_kept=True)


async def test_wrong_reports(service: Service) -> None:
    """A report without an outcome, of a text that is no address, or with a wrong detail names the field."""
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("outcome", {"outcome": Outcome.OUTCOME_UNSPECIFIED}),
        ("outcome", {"outcome": 9}),
        ("email", {"email": "ada"}),
        ("detail", {"detail": "x" * 1001}),
        ("detail", {"detail": "a\nb"}),
        ("mail_id", {"mail_id": "x" * 1000}),
    ]
    for field, given in wrong:
        fields: dict[str, Any] = {"email": ADA, "outcome": Outcome.OUTCOME_BOUNCED}
        request = address_pb2.ReportDeliveryRequest(**fields | given)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.address_service.ReportDelivery(request)
        assert bad_field(caught.value) == field
    assert await _known(service) is None


async def test_the_original_contract(service: Service, relay: Relay) -> None:
    """A suppressed address is FAILED with OK for a code of the original's contract, and refused for its mail."""
    await _suppress(service, relay)
    answer = await service.original_otp.SendCode(original_pb2.SendCodeRequest(email=ADA))
    assert (answer.status, answer.otpCode) == (original_pb2.FAILED, "")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.original_mail.SendMail(original_pb2.SendEmailRequest(to=ADA, subject="s", body="b"))
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert not relay.mails


@pytest.mark.service(SUPPRESSIONS_MAX=1)
async def test_a_full_table(service: Service, relay: Relay) -> None:
    """Where there is no room, the relay is asked again, a report is refused, and the log says so."""
    await _suppress(service, relay)
    relay.faults = Faults(refuse_recipients={BOB: REPLY})
    for _ in range(2):
        mail = await _send(service, BOB)
        assert (mail.state, mail.recipients[0].code) == (FAILED, 550)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _report(service, Outcome.OUTCOME_BOUNCED, EVE)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await service.wait_for_log("suppressions-full"))["count"] == 1
    assert await _known(service) is not None


@pytest.mark.parametrize("store", ["memory", "sqlite", "redis"])
async def test_a_flood_of_one_caller(
    settings: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest, store: str
) -> None:
    """A caller that has filled the table loses some of it to others, who are never refused, and the log says so."""
    write(tmp_path / "callers.toml", table("flood") + table("shop"))
    settings |= {"CALLERS_FILE": tmp_path / "callers.toml", "SUPPRESSIONS_MAX": 20}
    if store == "redis":
        settings |= redis_settings(request.getfixturevalue("redis"))
    elif store == "sqlite":
        settings |= sqlite_settings(tmp_path / "store.db")
    for start in range(1 if store == "memory" else 2):
        async with Service(**settings) as service:
            await service.wait_until_serving()
            ends = [await _reported(service, "flood", number) for number in range(25)]
            assert grpc.StatusCode.RESOURCE_EXHAUSTED in ends
            assert [await _reported(service, "shop", number) for number in range(8)] == [grpc.StatusCode.OK] * 8
            known = [await _is_known(service, "shop", number) for number in range(8)]
            assert known == [True] * 8
            assert sum([await _is_known(service, "flood", number) for number in range(25)]) == 12
            if start == 0:
                line = await service.wait_for_log("suppressions-evicted", timeout=30)
                assert (line["caller"], line["other"]) == ("shop", "flood")
            assert await service.stop() == 0


async def _reported(service: Service, caller: str, number: int) -> grpc.StatusCode:
    outcome = Outcome.OUTCOME_BOUNCED
    asked = address_pb2.ReportDeliveryRequest(email=f"{number}@example.org", outcome=outcome)
    try:
        await service.address_service.ReportDelivery(asked, metadata=as_caller(caller))
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def _is_known(service: Service, caller: str, number: int) -> bool:
    asked = address_pb2.GetAddressRequest(email=f"{number}@example.org")
    answer = await service.address_service.GetAddress(asked, metadata=as_caller(caller))
    return bool(answer.HasField("suppression"))


async def test_by_the_command_line(service: Service, relay: Relay) -> None:
    """`otpmail address` shows and lifts a suppression, and `report` tells of a delivery."""
    await _suppress(service, relay)
    shown = await otpmail("address", "show", ADA, server=service.address)
    assert shown.out.startswith("suppressed until 20")
    assert REPLY in shown.out
    as_json = await otpmail("address", "show", ADA, "--json", server=service.address)
    assert json.loads(as_json.out)["suppression"]["scope"] == "SCOPE_ALL"
    released = await otpmail("address", "release", ADA, server=service.address)
    assert released.code == 0
    assert await _known(service) is None
    reported = await otpmail("address", "report", ADA, "complained", "--detail", "spam", server=service.address)
    assert reported.code == 0
    known = await _known(service)
    assert known is not None
    assert (known.reason, known.scope) == ("spam", mail_pb2.Suppression.SCOPE_BULK)
    wrong = await otpmail("address", "report", ADA, "lost", server=service.address)
    assert wrong.code == 2


@pytest.mark.service(OTP_SENDS_PER_HOUR=3)
async def test_strangers_suppress_nobody(service: Service, relay: Relay) -> None:
    """Codes that are asked for, refused by limits, wrong or deferred by the relay suppress nobody."""
    for _ in range(3):
        await _send_code(service)
    with pytest.raises(grpc.aio.AioRpcError):
        await _send_code(service)
    for _ in range(12):
        await service.otp.ValidateCode(otp_pb2.ValidateCodeRequest(email=ADA, code="000000"))
    relay.faults = Faults(refuse_recipients={BOB: "451 5.1.1 not now"})
    await _send_code(service, BOB, wait_for=mail_pb2.WAIT_FOR_QUEUE)
    await service.wait_for_log("mail-deferred")
    assert [await _known(service, email) for email in (ADA, BOB)] == [None, None]


async def test_callers_have_suppressions_of_their_own(settings: dict[str, Any], relay: Relay, tmp_path: Path) -> None:
    """One caller may send to addresses that another's mails or reports have suppressed, and sees nothing of that."""
    write(file := tmp_path / "callers.toml", table("shop") + table("news"))
    async with Service(**settings, CALLERS_FILE=file) as service:
        await service.wait_until_serving()
        request = address_pb2.ReportDeliveryRequest(email=ADA, outcome=Outcome.OUTCOME_BOUNCED)
        await service.address_service.ReportDelivery(request, metadata=as_caller("news"))
        states = {}
        for caller in ("shop", "news"):
            code = otp_pb2.SendCodeRequest(email=ADA)
            states[caller] = (await service.otp.SendCode(code, metadata=as_caller(caller))).mail.state
            shown = address_pb2.GetAddressRequest(email=ADA)
            answer = await service.address_service.GetAddress(shown, metadata=as_caller(caller))
            assert answer.HasField("suppression") is (caller == "news")
        assert states == {"shop": RELAYED, "news": FAILED}
    assert len(relay.mails) == 1
