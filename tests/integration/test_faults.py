"""Faults of the relay and of the connections to it, and how the service deals with them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import grpc
import pytest
from grpc_health.v1 import health_pb2

from calls import parsed, reason, retry_seconds
from commands import otpmail
from otpmail.v1 import mail_pb2
from relay import Certificates, Faults, Relay, Security
from service import Service, relay_settings

if TYPE_CHECKING:
    from pathlib import Path

ADA = "ada@example.org"
NOT_SERVING, SERVING = health_pb2.HealthCheckResponse.NOT_SERVING, health_pb2.HealthCheckResponse.SERVING

# A relay is asked how it reads a refused chunk before its first mail, so a fault at the content is set after that.
_CONTENT_POINTS = [pytest.param("BDAT"), pytest.param(".", marks=pytest.mark.relay(chunking=False))]


def _in_both_modes(test: Any) -> Any:
    """Run a test of what happens at the content, on a service with one connection, by BDAT and by DATA."""
    return pytest.mark.parametrize("point", _CONTENT_POINTS, ids=["BDAT", "DATA"])(pytest.mark.service(WORKERS=1)(test))


async def _send(service: Service, to: str = ADA, **fields: Any) -> mail_pb2.Mail:
    request = mail_pb2.SendMailRequest(to=[to], subject="s", text="t", **fields)
    return (await service.mail.SendMail(request)).mail


@pytest.mark.relay(security="tls")
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2", "OAUTHBEARER"])
async def test_every_way_to_sign_in(mechanism: str, certificates: Certificates, tmp_path: Path) -> None:
    """PLAIN, LOGIN, CRAM-MD5, XOAUTH2 and OAUTHBEARER each sign in, over TLS and over STARTTLS."""
    for security in ("tls", "starttls"):
        async with Relay(Faults(security=security, auth=(mechanism,)), certificates=certificates) as relay:
            settings = relay_settings(relay, certificates, tmp_path / "token")
            async with Service(WORKERS=1, **settings) as service:
                await service.wait_until_serving()
                assert (await _send(service)).state == mail_pb2.Mail.STATE_RELAYED
            assert relay.mails[0].username == "user"


@pytest.mark.parametrize("wanted", [pytest.param(s, marks=pytest.mark.relay(security=s)) for s in get_args(Security)])
async def test_every_kind_of_security(wanted: str, service: Service, relay: Relay) -> None:
    """Plain (to loopback), STARTTLS and TLS from the first byte each carry mail."""
    assert (await _send(service)).state == mail_pb2.Mail.STATE_RELAYED
    assert any(command.line == "STARTTLS" for command in relay.commands) is (wanted == "starttls")


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ({"security": "tls", "certificate": "wrong_name"}, "certificate"),
        ({"security": "starttls", "certificate": "wrong_name"}, "certificate"),
        ({"security": "tls", "tls_1_1": True}, ""),
        ({"security": "starttls", "starttls_stripped": True}, "STARTTLS"),
        ({"security": "starttls", "refuse_starttls": "454 4.7.0 not now"}, "454"),
        ({"security": "tls", "refuse_auth": "535 5.7.8 bad credentials"}, "535"),
        ({"greeting": "554 5.3.2 not for you"}, "554"),
        ({"greeting": "421 4.7.0 too many connections"}, "421"),
        ({"cut_before_reply": "EHLO"}, ""),
        ({"silent_at": "CONNECT"}, "no greeting after 2 s"),
    ],
)
async def test_a_relay_that_cannot_be_used(
    faults: dict[str, Any], words: str, certificates: Certificates, tmp_path: Path
) -> None:
    """A relay that cannot be used gets no mail and no password; the log says why once, and health is NOT_SERVING."""
    async with Relay(Faults(**faults), certificates=certificates) as relay:
        settings = relay_settings(relay, certificates, tmp_path / "token")
        async with Service(**settings, EMAIL_TIMEOUT=2, EMAIL_RETRY_SECONDS=0.05) as service:
            down = await service.wait_for_log("relay-down")
            assert words in str(down["error"])
            assert float(str(down["retry_after"])) > 0
            refused = "refuse_auth" in faults  # then the relay is not tried again so soon
            await relay.wait_for_connections(1 if refused else 2)
            await service.wait_for_health(NOT_SERVING)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await _send(service)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert reason(caught.value) == "RELAY_DOWN"
            assert retry_seconds(caught.value) >= 1
            assert len(service.logged("relay-down")) == 1
        assert relay.mails == []
        if faults.get("starttls_stripped"):
            assert not any(command.line.startswith("AUTH") for command in relay.commands)


@pytest.mark.relay(security="tls", auth=())
@pytest.mark.service(EMAIL="user", APP_PASSWORD="secret", wait=False)
async def test_a_relay_that_offers_no_sign_in(service: Service) -> None:
    """A relay without AUTH is not used when credentials are set: it may not be the relay that was meant."""
    down = await service.wait_for_log("relay-down")
    assert "offers no sign-in on this connection" in str(down["error"])


async def test_a_refused_sign_in_is_not_hammered(certificates: Certificates, tmp_path: Path) -> None:
    """After a rejected sign-in the next dial is at least 45 seconds later, regardless of EMAIL_RETRY_SECONDS."""
    async with Relay(Faults(refuse_auth="535 5.7.8 no")) as relay:
        settings = relay_settings(relay, certificates, tmp_path / "token")
        async with Service(**settings, EMAIL_RETRY_SECONDS=0.01, WORKERS=2) as service:
            down = await service.wait_for_log("relay-down")
            assert "the relay refused to sign user in: 535 5.7.8 no" in str(down["error"])
            with pytest.raises(grpc.aio.AioRpcError, match="the relay refuses the sign-in of this service"):
                await _send(service)
            assert float(str(down["retry_after"])) >= 45
            assert relay.connections == 1


async def test_callers_are_not_told_who_signs_in(certificates: Certificates, tmp_path: Path) -> None:
    """Neither an error, nor a mail that expires, nor the health names the account of the service or its relay."""
    secret = ("operator", "127.0.0.1", "535", "credentials")
    refusal = "535 5.7.8 operator@example.org not accepted at 127.0.0.1"
    async with Relay(Faults(refuse_auth=refusal)) as relay:
        settings = relay_settings(relay, certificates, tmp_path / "token") | {"EMAIL": "operator@example.org"}
        async with Service(**settings) as service:
            await service.wait_for_log("relay-down")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await _send(service)
            assert caught.value.details() == "the relay refuses the sign-in of this service"
            assert not any(word in repr(caught.value.trailing_metadata()) for word in secret)
            expired = await _send(service, wait_for=mail_pb2.WAIT_FOR_QUEUE, ttl={"seconds": 1})
            async for mail in service.mail.WatchMail(mail_pb2.WatchMailRequest(id=expired.id)):
                last = mail
            assert not any(word in str(last.recipients) for word in secret)
            ran = await otpmail("health", server=service.address)
            assert ran.out == "NOT_SERVING: no relay is up: the relay refuses the sign-in of this service\n"
            lines = [line for line in service.output if "refused to sign" in line]
            assert lines
            assert not any("operator@" in line for line in lines)


async def test_a_relay_that_is_down_at_the_start(certificates: Certificates, tmp_path: Path) -> None:
    """The service starts without its relay, logs that once, accepts guaranteed mails, and recovers by itself."""
    async with Relay() as relay:
        settings = relay_settings(relay, certificates, tmp_path / "token")
        await relay.close()
        await _starts_without_its_relay(relay, settings)


async def _starts_without_its_relay(relay: Relay, settings: dict[str, Any]) -> None:
    async with Service(**settings, EMAIL_RETRY_SECONDS=0.05, EMAIL_RETRY_MAX_SECONDS=0.2) as service:
        await service.wait_for_log("relay-down")
        await service.wait_for_health(NOT_SERVING)
        guaranteed = await _send(service, wait_for=mail_pb2.WAIT_FOR_QUEUE)
        await relay.start()  # on the port it had
        await service.wait_until_serving()
        await relay.wait_for_mails(1)
        states = [m.state async for m in service.mail.WatchMail(mail_pb2.WatchMailRequest(id=guaranteed.id))]
        assert states[-1] == mail_pb2.Mail.STATE_RELAYED
        assert len(service.logged("relay-down")) == 1
        await relay.close()
        await service.wait_for_log("relay-down", count=2)
        await service.wait_for_health(NOT_SERVING)
        await relay.start()
        await service.wait_until_serving()


@pytest.mark.relay(refuse_sender="451 4.7.1 greylisted", times=2)
async def test_451_is_tried_again(service: Service, relay: Relay) -> None:
    """A deferred mail is retried and settles relayed; the caller gets the final state only."""
    mail = await _send(service)
    assert (mail.state, mail.attempts) == (mail_pb2.Mail.STATE_RELAYED, 3)
    assert len(relay.mails) == 1


@pytest.mark.relay(refuse_sender="550 5.7.1 sender not allowed")
async def test_5xx_settles_at_once(service: Service, relay: Relay) -> None:
    """A mail rejected with 5xx is not retried, and its connection stays in use."""
    await relay.wait_for_ready(5)
    mail = await _send(service)
    assert (mail.state, mail.attempts) == (mail_pb2.Mail.STATE_FAILED, 1)
    assert (mail.recipients[0].code, mail.recipients[0].reply) == (550, "sender not allowed")
    relay.faults = Faults()
    assert (await _send(service)).state == mail_pb2.Mail.STATE_RELAYED
    await relay.wait_for_open(5)  # each worker's; the last may have been opening still
    assert relay.connections == 5


@pytest.mark.parametrize(("point", "chunking"), [("MAIL", True), ("RCPT", True), ("RCPT", False), ("DATA", False)])
@pytest.mark.parametrize("kind", ["cut_before_reply", "cut_after_reply"])
async def test_a_connection_lost_before_the_content(
    kind: Literal["cut_before_reply", "cut_after_reply"],
    point: str,
    chunking: bool,  # noqa: FBT001
    certificates: Certificates,
    tmp_path: Path,
) -> None:
    """A mail whose connection is lost before its content was read is sent again at once, and arrives once."""
    faults: dict[str, Any] = {kind: point, "times": 1, "chunking": chunking}
    async with Relay(Faults(**faults)) as relay:
        async with Service(**relay_settings(relay, certificates, tmp_path / "token"), WORKERS=2) as service:
            await service.wait_until_serving()
            mail = await _send(service)
            assert mail.state == mail_pb2.Mail.STATE_RELAYED
        assert len(relay.mails) == 1


@_in_both_modes
async def test_a_lost_final_reply(service: Service, relay: Relay, point: str) -> None:
    """A mail whose final reply is lost is sent again with the same Message-ID."""
    relay.faults = replace(relay.faults, cut_before_reply=point, times=1)
    mail = await _send(service)
    assert (mail.state, mail.attempts) == (mail_pb2.Mail.STATE_RELAYED, 2)
    assert len(relay.mails) == 2
    assert {parsed(caught.content)["Message-ID"] for caught in relay.mails} == {mail.message_id}


@_in_both_modes
@pytest.mark.service(EMAIL_ON_UNCERTAIN="fail")
async def test_a_lost_final_reply_and_no_second_copy(service: Service, relay: Relay, point: str) -> None:
    """EMAIL_ON_UNCERTAIN=fail settles a mail whose final reply is lost as UNCERTAIN, without a second copy."""
    relay.faults = replace(relay.faults, cut_before_reply=point, times=1)
    assert (await _send(service)).state == mail_pb2.Mail.STATE_UNCERTAIN
    assert len(relay.mails) == 1


@_in_both_modes
async def test_a_cut_after_the_final_reply(service: Service, relay: Relay, point: str) -> None:
    """A connection lost after the final reply changes nothing: the mail is relayed once, and so is the next."""
    relay.faults = replace(relay.faults, cut_after_reply=point, times=1)
    for _ in range(2):
        assert (await _send(service)).state == mail_pb2.Mail.STATE_RELAYED
    assert len(relay.mails) == 2


@_in_both_modes
@pytest.mark.service(EMAIL_FINAL_TIMEOUT=0.3)
async def test_a_silent_relay(service: Service, relay: Relay, point: str) -> None:
    """A connection without a reply in time is closed, and the mail goes over another one."""
    relay.faults = replace(relay.faults, silent_at=point, times=1)
    assert (await _send(service)).state == mail_pb2.Mail.STATE_RELAYED
    await relay.wait_for_connections(2)


@pytest.mark.parametrize(
    "holds", [pytest.param(holds, marks=pytest.mark.relay(holds_replies=holds)) for holds in (False, True)]
)
@pytest.mark.relay(judging=1.2)
@pytest.mark.service(WORKERS=1, EMAIL_TIMEOUT=1, EMAIL_FINAL_TIMEOUT=60)
async def test_a_relay_that_judges_a_content_for_long(service: Service, relay: Relay, holds: bool) -> None:  # noqa: FBT001
    """A relay that judges a content for longer than EMAIL_TIMEOUT gets each mail once, held replies or not."""
    people = [f"p{n}@example.org" for n in range(3)]
    mails = await asyncio.gather(*(_send(service, to=person) for person in people))
    assert [(mail.state, mail.attempts) for mail in mails] == [(mail_pb2.Mail.STATE_RELAYED, 1)] * 3
    assert sorted(caught.recipients[0] for caught in relay.mails) == people
    assert relay.faults.holds_replies is holds


@pytest.mark.relay(delay=0.05)
async def test_a_slow_relay(service: Service, relay: Relay) -> None:
    """A slow relay gets ten mails at once over five connections."""
    mails = await asyncio.gather(*(_send(service) for _ in range(10)))
    assert {mail.state for mail in mails} == {mail_pb2.Mail.STATE_RELAYED}
    assert len(relay.mails) == 10


@pytest.mark.relay(refuse_sender="421 4.3.2 shutting down", times=1)
async def test_421_is_not_taken_and_goes_again(service: Service, relay: Relay) -> None:
    """A mail answered 421 was not taken: it is sent again over another connection and arrives once."""
    assert (await _send(service)).state == mail_pb2.Mail.STATE_RELAYED
    assert len(relay.mails) == 1


@pytest.mark.relay(close_after=3)
@pytest.mark.parametrize(
    "known", [pytest.param(True, marks=pytest.mark.service(EMAIL_MAX_MESSAGES=3)), False], ids=["known", "unknown"]
)
@pytest.mark.service(WORKERS=2, LOG_LEVEL="debug")
async def test_a_relay_that_closes_after_a_few_mails(service: Service, relay: Relay, known: bool) -> None:  # noqa: FBT001
    """A relay that says 421 after each third mail gets every mail, once each if EMAIL_MAX_MESSAGES is 3 too.

    Otherwise the relay closes with mails unread. That resets the connection, and replies may be lost. Only then a mail
    is sent a second time, with the same Message-ID.
    """
    mails = await asyncio.gather(*(_send(service, to=f"p{n}@example.org") for n in range(40)))
    assert {mail.state for mail in mails} == {mail_pb2.Mail.STATE_RELAYED}
    assert {caught.recipients[0] for caught in relay.mails} == {f"p{n}@example.org" for n in range(40)}
    if len(relay.mails) > len(mails):
        assert not known
        assert await service.stop() == 0  # its log is whole then
        assert any("connection lost" in str(closed["message"]) for closed in service.logged("connection-closed"))
        assert len({parsed(caught.content)["Message-ID"] for caught in relay.mails}) == len(mails)


@pytest.mark.service(WORKERS=3, LOG_LEVEL="debug")
async def test_connections_dropped_while_idle(service: Service, relay: Relay) -> None:
    """A 421 while idle is noticed at once: new connections are open before the next mail."""
    await service.wait_for_log("connection-opened", count=3)
    await relay.wait_for_ready(3)
    assert relay.drop_connections("421 4.4.2 idle too long") == 3
    await relay.wait_for_connections(6)
    assert (await _send(service)).state == mail_pb2.Mail.STATE_RELAYED
    assert len(relay.mails) == 1


@pytest.mark.service(WORKERS=1, EMAIL_MAX_MESSAGES=2)
async def test_recycling_by_count(service: Service, relay: Relay) -> None:
    """After EMAIL_MAX_MESSAGES mails a connection is replaced, with a QUIT, and no mail is lost."""
    for _ in range(5):
        assert (await _send(service)).state == mail_pb2.Mail.STATE_RELAYED
    await relay.wait_for_connections(3)
    await relay.wait_for_command("QUIT", 2)
    assert max(sum(m.connection == c for m in relay.mails) for c in range(1, 4)) <= 2


@pytest.mark.service(WORKERS=1, EMAIL_IDLE_SECONDS=0.1)
async def test_recycling_by_idleness(service: Service, relay: Relay) -> None:
    """A connection idle for EMAIL_IDLE_SECONDS is replaced; the new one is open before the old one closes."""
    await relay.wait_for_connections(3)
    await relay.wait_for_command("QUIT")
    commands = [(command.connection, command.line) for command in relay.commands]
    assert commands.index((2, "RSET")) < commands.index((1, "QUIT"))  # RSET is the last command of a new connection
    assert (await _send(service)).state == mail_pb2.Mail.STATE_RELAYED


@pytest.mark.relay(delay=0.05)
@pytest.mark.service(WORKERS=1, EMAIL_IDLE_SECONDS=0.5)
async def test_idleness_counts_from_the_last_answer(service: Service, relay: Relay) -> None:
    """A connection that has carried mail is replaced too once it is idle for EMAIL_IDLE_SECONDS."""
    assert (await _send(service)).state == mail_pb2.Mail.STATE_RELAYED
    await relay.wait_for_connections(relay.connections + 1)
    assert not service.logged("relay-down")


@pytest.mark.service(WORKERS=1, EMAIL_MAX_AGE=0.1, LOG_LEVEL="debug")
async def test_recycling_by_age(service: Service, relay: Relay) -> None:
    """A connection older than EMAIL_MAX_AGE is replaced, and mails go on."""
    await relay.wait_for_connections(3)
    assert (await _send(service)).state == mail_pb2.Mail.STATE_RELAYED
    await service.wait_for_log("connection-closed")


@pytest.mark.relay(cut_after_reply="AUTH")
@pytest.mark.service(EMAIL_RETRY_SECONDS=0.05, EMAIL_RETRY_MAX_SECONDS=1, wait=False)
async def test_a_relay_that_hangs_up_after_signing_in(service: Service, relay: Relay) -> None:
    """A relay that closes after each sign-in counts as down and is dialled less and less often."""
    await service.wait_for_log("relay-down")
    await service.wait_for_log("dial-failed", count=10)
    waits = [float(str(failed["retry_after"])) for failed in service.logged("dial-failed")]
    assert max(waits[-5:]) > 4 * min(waits)
    assert len(service.logged("relay-down")) <= 2  # the first close is not yet a pattern
    relay.faults = Faults()
    assert (await _send(service, wait_for=mail_pb2.WAIT_FOR_QUEUE)).state == mail_pb2.Mail.STATE_QUEUED
    await relay.wait_for_mails(1)


@pytest.mark.relay(final_reply="250 2.0.0 taken\r\n250 2.0.0 one too many", times=1)
@pytest.mark.service(WORKERS=1)
async def test_one_reply_too_many(service: Service, relay: Relay) -> None:
    """An extra reply ends the connection, and is never taken for the next mail's.

    If it is seen before the mail is settled, the mail is sent again with the same Message-ID, and `attempts` counts it.
    """
    mail = await _send(service)
    assert mail.state == mail_pb2.Mail.STATE_RELAYED
    copies = len(relay.mails)
    assert copies == mail.attempts
    assert {parsed(caught.content)["Message-ID"] for caught in relay.mails} == {mail.message_id}
    relay.faults = Faults(final_reply="554 5.7.1 not this one")
    mail = await _send(service)
    assert (mail.state, mail.recipients[0].code) == (mail_pb2.Mail.STATE_FAILED, 554)
    assert relay.connections == 2
    assert len(relay.mails) == copies


@pytest.mark.relay(chunking=False, refuse_data="250 2.0.0 as you like", times=1)
async def test_a_wrong_positive_reply(service: Service, relay: Relay) -> None:
    """A positive reply that does not fit its command settles nothing: the mail goes over another connection."""
    assert (await _send(service)).state == mail_pb2.Mail.STATE_RELAYED
    assert len(relay.mails) == 1


@_in_both_modes
async def test_a_relay_that_hangs_up_after_refusing(service: Service, relay: Relay, point: str) -> None:
    """The relay's rejection of a mail stands, even when it then closes the connection."""
    last = "DATA" if point == "." else "BDAT"
    relay.faults = replace(relay.faults, refuse_recipients={ADA: "550 5.1.1 no such user"}, cut_before_reply=last)
    mail = await _send(service)
    assert (mail.state, mail.attempts, mail.recipients[0].code) == (mail_pb2.Mail.STATE_FAILED, 1, 550)
    assert sum(command.line.startswith("MAIL") for command in relay.commands) == 1


@pytest.mark.relay(security="tls", auth=("XOAUTH2",))
@pytest.mark.service(EMAIL_AUTH=None, EMAIL_TOKEN_FILE=None, APP_PASSWORD="secret", wait=False)
async def test_a_relay_that_takes_no_password(service: Service) -> None:
    """A relay with no mechanism that we have credentials for is down; the service goes on."""
    down = await service.wait_for_log("relay-down")
    assert "XOAUTH2" in str(down["error"])
    await service.wait_for_health(NOT_SERVING)


@pytest.mark.service(WORKERS=2, EMAIL_RETRY_SECONDS=0.01)
async def test_a_password_that_is_changed_meanwhile(service: Service, relay: Relay) -> None:
    """When a sign-in is rejected after connections had worked, the workers do not all try one after the other."""
    await relay.wait_for_ready(2)
    for _ in range(2):
        assert (await _send(service)).state == mail_pb2.Mail.STATE_RELAYED
    relay.faults = Faults(refuse_auth="535 5.7.8 changed")
    relay.cut_connections()
    down = await service.wait_for_log("relay-down")
    assert "535" in str(down["error"])
    assert float(str(down["retry_after"])) >= 40  # a minute less a quarter by chance, less the time until it is down
    assert relay.connections <= 4  # each worker may have dialled before the first answer came


@pytest.mark.relay(silent_at="MAIL")
@pytest.mark.service(WORKERS=1, EMAIL_WINDOW=1)
async def test_a_retry_after_a_deadline(service: Service, relay: Relay) -> None:
    """A call whose deadline passed before its mail left may be repeated with its request id, and the mail is sent."""
    blocking = await _send(service, wait_for=mail_pb2.WAIT_FOR_QUEUE)
    await relay.wait_for_command("MAIL")
    request = mail_pb2.SendMailRequest(to=[ADA], text="t", request_id="r-1")
    with pytest.raises(grpc.aio.AioRpcError):
        await service.mail.SendMail(request, timeout=0.1)
    relay.faults = Faults()
    relay.cut_connections()
    mail = (await service.mail.SendMail(request)).mail
    assert mail.state == mail_pb2.Mail.STATE_RELAYED
    assert mail.id != blocking.id
    assert len(relay.mails) == 2


@pytest.mark.relay(chunking=False, refuse_data="354 go ahead\r\n250 2.0.0 one too many", times=1)
async def test_one_reply_too_many_in_a_transaction(service: Service, relay: Relay) -> None:
    """An extra reply behind DATA's is not taken for the content's: the mail goes over another connection."""
    assert (await _send(service)).state == mail_pb2.Mail.STATE_RELAYED
    assert len(relay.mails) == 1
