"""Replies of relays that a client must read rightly: limits on recipients, codes few relays use, refusals of RSET."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

import grpc
import pytest

from calls import refused_before_deadline
from otpmail.original import mail_pb2 as original_pb2
from otpmail.v1 import mail_pb2, otp_pb2

if TYPE_CHECKING:
    from relay import Relay
    from service import Service

ADA = "ada@example.org"
RELAYED, FAILED = mail_pb2.Mail.STATE_RELAYED, mail_pb2.Mail.STATE_FAILED
_NOT_FQDN = "504 5.5.2 <box>: Helo command rejected: need fully-qualified hostname"

_MODES = [
    pytest.param(id="bdat"),
    pytest.param(marks=pytest.mark.relay(chunking=False), id="data"),
    pytest.param(marks=pytest.mark.relay(chunking=False, pipelining=False), id="plain"),
]
in_every_mode = pytest.mark.parametrize((), _MODES)


async def _send(service: Service, *to: str, seconds: int = 0) -> mail_pb2.Mail:
    request = mail_pb2.SendMailRequest(to=to or (ADA,), subject="s", text="t")
    if seconds:
        request.ttl.seconds = seconds
    return (await service.mail.SendMail(request)).mail


def _people(count: int) -> list[str]:
    return [f"p{number}@example.org" for number in range(count)]


def _recipients(relay: Relay) -> list[str]:
    return [address for mail in relay.mails for address in mail.recipients]


# Recipients (RFC 5321, 4.5.3.1.10).


@pytest.mark.parametrize("full", ["452 4.5.3 Error: too many recipients", "552 too many recipients"])
@pytest.mark.relay(most_recipients=10)
@in_every_mode
async def test_a_mail_for_more_than_the_relay_takes_at_once(service: Service, relay: Relay, full: str) -> None:
    """The rest goes at once in further transactions: each recipient has one copy, and one attempt is counted."""
    relay.faults = replace(relay.faults, full=full)
    begun = monotonic()
    mail = await _send(service, *_people(60))
    assert monotonic() - begun < 15  # a deferral would take 20 s
    assert (mail.state, mail.attempts) == (RELAYED, 1)
    assert sorted(_recipients(relay)) == sorted(_people(60))
    assert {len(caught.recipients) for caught in relay.mails} == {10}
    asked = sum(command.line.startswith("RCPT") for command in relay.commands)
    relay.mails.clear()
    assert (await _send(service, *_people(60))).state == RELAYED
    assert len(relay.mails) == 6
    assert sum(command.line.startswith("RCPT") for command in relay.commands) - asked == 60  # the limit is remembered
    await service.wait_for_log("recipient-limit-learned", limit=10)


@pytest.mark.relay(most_at_content=16)
async def test_a_relay_that_counts_recipients_at_the_content(service: Service, relay: Relay) -> None:
    """A content that is refused for its number of recipients goes to fewer at once, and nobody has two."""
    mail = await _send(service, *_people(60))
    assert (mail.state, mail.attempts) == (RELAYED, 1)
    assert sorted(_recipients(relay)) == sorted(_people(60))


@pytest.mark.relay(most_recipients=2, refuse_recipients={"p3@example.org": "550 5.1.1 no such user"})
async def test_a_refused_recipient_among_many(service: Service, relay: Relay) -> None:
    """A recipient refused for another reason is refused, and the others have the mail."""
    mail = await _send(service, *_people(6))
    assert (mail.state, mail.attempts) == (mail_pb2.Mail.STATE_PARTIAL, 1)
    assert [result.code for result in mail.recipients] == [250, 250, 250, 550, 250, 250]
    assert len(_recipients(relay)) == 5


@pytest.mark.relay(announces=("LIMITS RCPTMAX=20 RCPTDOMAINMAX=2",))
async def test_announced_limits(service: Service, relay: Relay) -> None:
    """A transaction has no more recipients, nor domains, than the relay announces (RFC 9422), and none is refused."""
    people = [f"p{number}@d{number % 3}.example" for number in range(60)]
    mail = await _send(service, *people)
    assert (mail.state, mail.attempts) == (RELAYED, 1)
    assert sorted(_recipients(relay)) == sorted(people)
    for caught in relay.mails:
        assert len(caught.recipients) <= 20
        assert len({address.partition("@")[2] for address in caught.recipients}) <= 2


# The first digit (RFC 5321, 4.2.1), and RSET.


@pytest.mark.parametrize("code", ["251", "252", "200", "299"])
@in_every_mode
async def test_any_positive_reply_is_yes(service: Service, relay: Relay, code: str) -> None:
    """A mail is sent once, whatever 2yz the relay says to MAIL, RCPT and the content."""
    relay.faults = replace(relay.faults, yes=code)
    mail = await _send(service)
    assert (mail.state, mail.attempts, mail.recipients[0].code) == (RELAYED, 1, int(code))
    assert len(relay.mails) == 1


@pytest.mark.parametrize("refusal", ["502 5.5.1 no RSET", "500 what", "454 4.7.0 not now", "550 no"])
@pytest.mark.service(WORKERS=1)
@in_every_mode
async def test_a_relay_that_refuses_rset(service: Service, relay: Relay, refusal: str) -> None:
    """The mail is relayed, once; those behind it go one at a time, with no RSET."""
    relay.faults = replace(relay.faults, refuse_rset=refusal)
    mail = await _send(service)
    assert (mail.state, mail.attempts) == (RELAYED, 1)
    relay.commands.clear()
    mails = await asyncio.gather(*(_send(service) for _ in range(20)))
    assert {(mail.state, mail.attempts) for mail in mails} == {(RELAYED, 1)}
    assert len(relay.mails) == 21
    assert not any(command.line == "RSET" for command in relay.commands)
    assert not any(command.line.startswith("BDAT") for command in relay.commands)


@pytest.mark.parametrize("refusal", ["550 no", "451 4.3.0 later"])
@pytest.mark.service(WORKERS=1)
@in_every_mode
async def test_mails_in_flight_while_a_relay_begins_to_refuse_rset(
    service: Service, relay: Relay, refusal: str
) -> None:
    """Each mail that the relay took is relayed by its first attempt, and none is sent twice."""
    people = [*[ADA] * 5, "no@example.org"] * 3
    relay.faults = replace(relay.faults, refuse_recipients={"no@example.org": "550 5.1.1 no such user"}, delay=0.05)
    assert (await _send(service)).state == RELAYED
    relay.faults = replace(relay.faults, refuse_rset=refusal)
    mails = await asyncio.gather(*(_send(service, address) for address in people))
    assert [(mail.state, mail.attempts) for mail in mails] == [(RELAYED if to == ADA else FAILED, 1) for to in people]
    assert len(relay.mails) == 1 + people.count(ADA)


@pytest.mark.relay(refuse_rset="502 5.5.1 no RSET", refuse_recipients={"no@example.org": "550 5.1.1 no such user"})
@pytest.mark.service(WORKERS=1)
@in_every_mode
async def test_refused_mails_at_a_relay_that_refuses_rset(service: Service, relay: Relay) -> None:
    """A refusal is final, and the mails around it are relayed once: a new connection stands in for RSET."""
    people = [ADA, "no@example.org"] * 5
    mails = await asyncio.gather(*(_send(service, address) for address in people))
    assert [mail.state for mail in mails] == [RELAYED, FAILED] * 5
    assert _recipients(relay) == [ADA] * 5


# The name in EHLO.


@pytest.mark.relay(refuse_recipients={ADA: _NOT_FQDN}, times=1)
async def test_a_reply_that_names_helo_is_the_services_fault(service: Service, relay: Relay) -> None:
    """The mail is retried though the reply is a 5yz, the code stays live, and the log names the setting."""
    sent = await service.otp.SendCode(otp_pb2.SendCodeRequest(email=ADA))
    assert sent.mail.state == RELAYED
    assert sent.mail.attempts == 2
    line = await service.wait_for_log("helo-refused", level="error")
    assert "EMAIL_HELO" in str(line["message"])
    assert _NOT_FQDN in str(line["message"])
    assert len(relay.mails) == 1


@pytest.mark.relay(refuse_recipients={ADA: _NOT_FQDN})
async def test_a_mail_that_is_refused_for_helo_until_its_end(service: Service) -> None:
    """A mail refused for HELO to its end fails with that reply; package `mail` says that it may be tried again."""
    mail = await _send(service, seconds=1)
    assert (mail.state, mail.recipients[0].code) == (FAILED, 504)
    request = original_pb2.SendEmailRequest(to=ADA, subject="s", body="t")
    error = await refused_before_deadline(lambda: service.original_mail.SendMail(request, timeout=1))
    assert error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
    assert "Helo command rejected" in (error.details() or "")


# Why.


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"cut_before_reply": "RCPT"}, "closed the connection"),
        ({"silent_at": "RCPT"}, "no answer within"),
        ({"closing_at": "RCPT"}, "421 4.3.2 shutting down"),
    ],
)
@pytest.mark.relay(chunking=False)
@pytest.mark.service(EMAIL_COMMAND_TIMEOUT=0.3, EMAIL_RETRY_SECONDS=0.1)
async def test_the_words_of_a_lost_connection(
    service: Service, relay: Relay, fault: dict[str, str], words: str
) -> None:
    """Each recipient's result says what happened to the connection, in both contracts."""
    relay.faults = replace(relay.faults, **fault)  # type: ignore[arg-type]
    mail = await _send(service, ADA, "bob@example.org", seconds=1)
    assert mail.state == FAILED
    assert [words in result.reply for result in mail.recipients] == [True, True]
    request = original_pb2.SendEmailRequest(to=ADA, subject="s", body="t")
    error = await refused_before_deadline(lambda: service.original_mail.SendMail(request, timeout=1.5))
    assert words in (error.details() or "")


@pytest.mark.relay(refuse_auth="535 5.7.8 bad credentials")
@pytest.mark.service(wait=False)
async def test_a_refused_sign_in_is_told_as_that(service: Service) -> None:
    """Callers and results have that the sign-in is refused. Only the log has the words of the relay."""
    await service.wait_for_log("relay-down")
    words = "the relay refuses the sign-in of this service"
    for send in (
        lambda: service.mail.SendMail(mail_pb2.SendMailRequest(to=[ADA], subject="s", text="t")),
        lambda: service.original_mail.SendMail(original_pb2.SendEmailRequest(to=ADA, subject="s", body="t")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await send()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert caught.value.details() == words
    wait_for = mail_pb2.WAIT_FOR_QUEUE
    request = mail_pb2.SendMailRequest(to=[ADA, "bob@example.org"], subject="s", text="t", wait_for=wait_for)
    request.ttl.seconds = 1
    accepted = (await service.mail.SendMail(request)).mail
    *_, mail = [mail async for mail in service.mail.WatchMail(mail_pb2.WatchMailRequest(id=accepted.id))]
    assert mail.state == mail_pb2.Mail.STATE_EXPIRED
    assert all(words in result.reply and "535" not in result.reply for result in mail.recipients)
    assert "535 5.7.8 bad credentials" in str(service.logged("relay-down")[0]["message"])


# Reports of failures (RFC 3461).


@pytest.mark.relay(dsn=True)
@in_every_mode
async def test_reports_name_the_mail_and_hold_no_body(service: Service, relay: Relay) -> None:
    """Where the relay announces DSN, MAIL has the mail's id, and asks for headers only: a body may hold a code."""
    mail = await _send(service)
    assert mail.state == RELAYED
    assert relay.mails[0].parameters["ENVID"] == mail.id
    assert relay.mails[0].parameters["RET"] == "HDRS"


# Time (RFC 5321, 4.5.3.2).


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA"])
@pytest.mark.relay(chunking=False)
@pytest.mark.service(WORKERS=1, EMAIL_TIMEOUT=0.5)
async def test_a_relay_that_looks_things_up_has_the_time(service: Service, relay: Relay, command: str) -> None:
    """A command may take several times EMAIL_TIMEOUT, and the mail goes once."""
    relay.faults = replace(relay.faults, slow={command: 1.0})
    mail = await _send(service)
    assert (mail.state, mail.attempts, len(relay.mails)) == (RELAYED, 1, 1)
