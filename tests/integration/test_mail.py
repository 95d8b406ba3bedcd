"""otpmail.v1.MailService through the whole service."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
import pytest

from calls import bad_field, parsed, reason, retry_seconds, text_of
from otpmail.v1 import mail_pb2
from relay import Faults

if TYPE_CHECKING:
    from relay import Relay
    from service import Service

ADA, GRACE, EVE = "ada@example.org", "grace@example.org", "eve@example.org"
RELAYED, PARTIAL, FAILED = mail_pb2.Mail.STATE_RELAYED, mail_pb2.Mail.STATE_PARTIAL, mail_pb2.Mail.STATE_FAILED
QUEUED, SENDING, CANCELLED = mail_pb2.Mail.STATE_QUEUED, mail_pb2.Mail.STATE_SENDING, mail_pb2.Mail.STATE_CANCELLED


def _request(**fields: object) -> mail_pb2.SendMailRequest:
    return mail_pb2.SendMailRequest(**{"to": [ADA], "subject": "s", "text": "t", **fields})  # type: ignore[arg-type]


def _headers(*pairs: tuple[str, str]) -> list[mail_pb2.Header]:
    return [mail_pb2.Header(name=name, value=value) for name, value in pairs]


async def _send(service: Service, **fields: object) -> mail_pb2.Mail:
    return (await service.mail.SendMail(_request(**fields))).mail


async def _error(service: Service, **fields: object) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _send(service, **fields)
    return caught.value


async def test_everything_a_mail_can_have(service: Service, relay: Relay) -> None:
    """Text, HTML, names, cc, bcc, reply-to, own headers, inline and attached files all arrive unchanged."""
    mail = await _send(
        service,
        to=["Ada Lovelace <ada@example.org>", '"Größe, Jürgen" <grace@example.org>'],
        cc=["Cc Person <cc@example.org>"],
        bcc=[EVE],
        subject="Prüfung: 日本語 " + "lang " * 30,
        text="Zeile eins\n.\n..zwei\nünïcödé\n",
        html='<p>Bild: <img src="cid:logo"></p>',
        reply_to=["Support <help@example.org>"],
        headers=_headers(("X-Campaign", "März"), ("List-Unsubscribe", "<https://example.org/u>")),
        attachments=[
            mail_pb2.Attachment(filename="logo.png", content_type="image/png", content=b"\x89PNG", content_id="logo"),
            mail_pb2.Attachment(filename="Überblick.pdf", content_type="application/pdf", content=bytes(range(256))),
        ],
    )
    assert mail.state == RELAYED
    assert [result.address for result in mail.recipients] == [ADA, GRACE, "cc@example.org", EVE]
    (caught,) = relay.mails
    assert caught.sender == "codes@example.org"
    assert caught.recipients == (ADA, GRACE, "cc@example.org", EVE)
    assert EVE.encode() not in caught.content
    message = parsed(caught.content)
    assert str(message["To"]) == 'Ada Lovelace <ada@example.org>, "Größe, Jürgen" <grace@example.org>'
    assert str(message["Cc"]) == "Cc Person <cc@example.org>"
    assert message["Bcc"] is None
    assert message["Reply-To"] == "Support <help@example.org>"
    assert message["Subject"] == ("Prüfung: 日本語 " + "lang " * 30)
    assert message["X-Campaign"] == "März"
    assert message["List-Unsubscribe"] == "<https://example.org/u>"
    assert message["Message-ID"] == mail.message_id
    assert message["Date"] is not None
    assert text_of(caught.content) == "Zeile eins\n.\n..zwei\nünïcödé\n"
    html = message.get_body(("html",))
    assert html is not None
    assert "cid:logo" in html.get_content()
    contents = {part.get_filename(): part.get_content() for part in message.walk() if part.get_filename()}
    assert contents == {"logo.png": b"\x89PNG", "Überblick.pdf": bytes(range(256))}


async def test_an_internationalised_address(service: Service, relay: Relay) -> None:
    """A local part that is not ASCII goes out with SMTPUTF8, its domain in A-labels."""
    assert (await _send(service, to=["jürgen@bücher.example"])).state == RELAYED
    (caught,) = relay.mails
    assert caught.recipients == ("jürgen@xn--bcher-kva.example",)
    assert "SMTPUTF8" in caught.parameters


@pytest.mark.relay(smtputf8=False)
async def test_a_relay_without_smtputf8(service: Service, relay: Relay) -> None:
    """Without SMTPUTF8 a local part that is not ASCII is rejected with the reason; other recipients get the mail."""
    mail = await _send(service, to=["jürgen@example.org"])
    assert mail.state == FAILED
    assert (mail.recipients[0].code, mail.recipients[0].enhanced_code) == (550, "5.6.7")
    assert "SMTPUTF8" in mail.recipients[0].reply
    assert (await _send(service, to=["info@bücher.example"])).state == RELAYED
    assert [caught.recipients for caught in relay.mails] == [("info@xn--bcher-kva.example",)]


@pytest.mark.relay(smtputf8=False)
async def test_a_recipient_who_needs_smtputf8_is_refused_alone(service: Service, relay: Relay) -> None:
    """The others get the mail at once, with a header in ASCII that still shows the one who was refused."""
    mail = await _send(service, to=[ADA, "Jürgen <jürgen@example.org>"], cc=[GRACE], bcc=["ü@example.org", EVE])
    assert mail.state == PARTIAL
    codes = [(result.address, result.code, result.enhanced_code[:1]) for result in mail.recipients]
    refused = [(address, 550, "5") for address in ("jürgen@example.org", "ü@example.org")]
    assert sorted(codes) == sorted([*[(address, 250, "2") for address in (ADA, GRACE, EVE)], *refused])
    (caught,) = relay.mails
    assert caught.recipients == (ADA, GRACE, EVE)
    assert caught.content.isascii()
    assert [address.addr_spec for address in parsed(caught.content)["To"].addresses] == [ADA]
    assert "jürgen@example.org" in [group.display_name for group in parsed(caught.content)["To"].groups][1]
    assert mail.attempts == 1


async def test_two_spellings_of_a_domain_are_one_recipient(service: Service, relay: Relay) -> None:
    """A domain has no case, so one copy goes out, under the first spelling."""
    mail = await _send(service, to=["A@Example.org"], bcc=["A@example.org", "foo..bar@docomo.ne.jp", '"x y"@x.org'])
    addresses = ("A@Example.org", '"foo..bar"@docomo.ne.jp', '"x y"@x.org')
    assert tuple(result.address for result in mail.recipients) == addresses
    assert [caught.recipients for caught in relay.mails] == [addresses]


@pytest.mark.relay(refuse_recipients={EVE: "550 5.1.1 no such user"})
async def test_one_refused_recipient_does_not_fail_the_others(service: Service, relay: Relay) -> None:
    """Recipients are reported one by one: PARTIAL, and the mail reached the others once."""
    mail = await _send(service, to=[ADA, EVE, GRACE])
    assert mail.state == PARTIAL
    assert [(result.address, result.code) for result in mail.recipients] == [(ADA, 250), (EVE, 550), (GRACE, 250)]
    assert [caught.recipients for caught in relay.mails] == [(ADA, GRACE)]


@pytest.mark.relay(refuse_recipients={EVE: "451 4.2.1 later"}, times=1)
async def test_a_deferred_recipient_is_tried_again_alone(service: Service, relay: Relay) -> None:
    """Deferred recipients are retried with the same Message-ID; accepted ones get no second copy."""
    mail = await _send(service, to=[ADA, EVE])
    assert mail.state == RELAYED
    assert mail.attempts == 2
    assert [caught.recipients for caught in relay.mails] == [(ADA,), (EVE,)]
    assert {parsed(caught.content)["Message-ID"] for caught in relay.mails} == {mail.message_id}


@pytest.mark.relay(final_reply="451 4.3.0 later")
async def test_time_runs_out(service: Service, relay: Relay) -> None:
    """A mail that is deferred until its ttl is over is FAILED, with the relay's last reply; nothing was sent."""
    mail = await _send(service, ttl={"seconds": 1})
    assert mail.state == FAILED
    assert (mail.recipients[0].code, mail.recipients[0].reply) == (451, "later")
    assert relay.mails == []


@pytest.mark.relay(silent_at="MAIL")
@pytest.mark.service(EMAIL_WINDOW=1)
async def test_get_watch_and_cancel(service: Service, relay: Relay) -> None:
    """A guaranteed mail can be looked up, watched, and cancelled while it is queued, but not once it is sent."""
    first = [await _send(service, wait_for=mail_pb2.WAIT_FOR_QUEUE) for _ in range(5)]  # one for each connection
    for mail in first:
        await _until(service, mail.id, SENDING)
    waiting = await _send(service, wait_for=mail_pb2.WAIT_FOR_QUEUE)
    assert waiting.state == QUEUED
    assert (await service.mail.GetMail(mail_pb2.GetMailRequest(id=waiting.id))).state == QUEUED
    watch = service.mail.WatchMail(mail_pb2.WatchMailRequest(id=waiting.id))
    states = [(await anext(aiter(watch))).state]
    for _ in range(2):  # cancelling twice is no error
        assert (await service.mail.CancelMail(mail_pb2.CancelMailRequest(id=waiting.id))).state == CANCELLED
    states += [mail.state async for mail in watch]
    assert states == [QUEUED, CANCELLED]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.mail.CancelMail(mail_pb2.CancelMailRequest(id=first[0].id))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert relay.mails == []


async def _until(service: Service, mail_id: str, state: mail_pb2.Mail.State.ValueType) -> mail_pb2.Mail:
    async for mail in service.mail.WatchMail(mail_pb2.WatchMailRequest(id=mail_id)):
        if mail.state == state:
            return mail
    message = f"the mail settled without being {mail_pb2.Mail.State.Name(state)}"
    raise AssertionError(message)


async def test_a_settled_mail_is_remembered(service: Service) -> None:
    """A settled mail can be looked up and watched, which ends at once; it cannot be cancelled."""
    mail = await _send(service)
    assert await service.mail.GetMail(mail_pb2.GetMailRequest(id=mail.id)) == mail
    assert [seen async for seen in service.mail.WatchMail(mail_pb2.WatchMailRequest(id=mail.id))] == [mail]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.mail.CancelMail(mail_pb2.CancelMailRequest(id=mail.id))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_an_unknown_mail(service: Service) -> None:
    """An unknown id is NOT_FOUND, by every method."""
    for call in (
        service.mail.GetMail(mail_pb2.GetMailRequest(id="nope")),
        service.mail.CancelMail(mail_pb2.CancelMailRequest(id="nope")),
        anext(aiter(service.mail.WatchMail(mail_pb2.WatchMailRequest(id="nope")))),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_an_id_that_is_too_long(service: Service) -> None:
    """An id over 64 characters is INVALID_ARGUMENT and named, by every method."""
    for call in (
        service.mail.GetMail(mail_pb2.GetMailRequest(id="x" * 65)),
        service.mail.CancelMail(mail_pb2.CancelMailRequest(id="x" * 65)),
        anext(aiter(service.mail.WatchMail(mail_pb2.WatchMailRequest(id="x" * 65)))),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert bad_field(caught.value) == "id"


async def test_request_id(service: Service, relay: Relay) -> None:
    """Ten calls with one request id, at once and later, are one mail."""
    calls = [_send(service, request_id="order-7", wait_for=mail_pb2.WAIT_FOR_RELAY) for _ in range(9)]
    mails = [
        *await asyncio.gather(*calls),
        await _send(service, request_id="order-7", wait_for=mail_pb2.WAIT_FOR_RELAY),
    ]
    assert len({mail.id for mail in mails}) == 1
    assert len(relay.mails) == 1
    assert bad_field(await _error(service, request_id="order-7", text="another")) == "request_id"


async def test_a_burst_of_calls(service: Service, relay: Relay) -> None:
    """Two thousand calls at once on one channel are all answered: past some number gRPC would drop some by chance."""
    mails = await asyncio.gather(*(_send(service) for _ in range(2000)))
    assert {mail.state for mail in mails} == {RELAYED}
    assert len(relay.mails) == 2000


@pytest.mark.relay(silent_at="MAIL")
@pytest.mark.service(QUEUE_SIZE=7, WORKERS=2)
async def test_a_full_queue(service: Service, relay: Relay) -> None:
    """A mail beyond QUEUE_SIZE is RESOURCE_EXHAUSTED with RetryInfo, until a queued one has settled."""
    waiting = [await _send(service, wait_for=mail_pb2.WAIT_FOR_QUEUE) for _ in range(7)]
    error = await _error(service, wait_for=mail_pb2.WAIT_FOR_QUEUE, request_id="again")
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert reason(error) == "QUEUE_FULL"
    assert retry_seconds(error) > 0
    relay.faults = Faults(security="plain")
    relay.cut_connections()
    for mail in waiting:
        await _until(service, mail.id, RELAYED)
    assert (await _send(service, request_id="again")).state == RELAYED


@pytest.mark.relay(silent_at="MAIL")
@pytest.mark.service(WORKERS=1, EMAIL_WINDOW=1)
async def test_a_call_that_ends_takes_its_waiting_mail_along(service: Service, relay: Relay) -> None:
    """A cancelled or expired call cancels its mail, if that is still queued and not guaranteed."""
    blocking = await _send(service, wait_for=mail_pb2.WAIT_FOR_QUEUE)
    await _until(service, blocking.id, SENDING)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.mail.SendMail(_request(to=[EVE]), timeout=0.1)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    guaranteed = await _send(service, to=[GRACE], wait_for=mail_pb2.WAIT_FOR_QUEUE)
    relay.faults = Faults(security="plain")
    relay.cut_connections()
    await _until(service, guaranteed.id, RELAYED)
    assert EVE not in {address for mail in relay.mails for address in mail.recipients}


@pytest.mark.relay(silent_at="MAIL")
@pytest.mark.service(WORKERS=1, EMAIL_WINDOW=1)
async def test_urgent_before_normal_before_bulk(service: Service, relay: Relay) -> None:
    """Queued mails leave by priority, and in order within each."""
    blocking = await _send(service, wait_for=mail_pb2.WAIT_FOR_QUEUE, subject="first")
    await _until(service, blocking.id, SENDING)
    for name in ("BULK", "NORMAL", "URGENT", "NORMAL", "URGENT"):
        priority = mail_pb2.Priority.Value(f"PRIORITY_{name}")
        await _send(service, priority=priority, subject=name, wait_for=mail_pb2.WAIT_FOR_QUEUE)
    relay.faults = Faults(security="plain")
    relay.cut_connections()
    await relay.wait_for_mails(6)
    subjects = [parsed(mail.content)["Subject"] for mail in relay.mails if parsed(mail.content)["Subject"] != "first"]
    assert subjects == ["URGENT", "URGENT", "NORMAL", "NORMAL", "BULK"]


@pytest.mark.service(EMAIL_FROM_ALLOWED="@shop.example, boss@example.org")
async def test_from(service: Service, relay: Relay) -> None:
    """A sender is EMAIL_FROM or in EMAIL_FROM_ALLOWED; any other is PERMISSION_DENIED."""
    await _send(service, **{"from": "Shop <news@shop.example>"})
    await _send(service, **{"from": "boss@example.org"})
    assert [mail.sender for mail in relay.mails] == ["news@shop.example", "boss@example.org"]
    error = await _error(service, **{"from": "eve@example.org"})
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert len(relay.mails) == 2


async def test_bad_fields_are_named(service: Service, relay: Relay, subtests: pytest.Subtests) -> None:
    """A field out of bounds, or with an injected header, recipient or command, is INVALID_ARGUMENT and named."""
    for fields, named in (
        ({"to": []}, "to"),
        ({"to": [ADA] * 60, "cc": [EVE] * 41}, "to"),
        ({"to": [ADA, "x y@example.org"]}, "to[1]"),
        ({"cc": ["Eve <eve@example.org>\r\nX: y"]}, "cc[0]"),
        ({"bcc": ["@"]}, "bcc[0]"),
        ({"subject": "x" * 999}, "subject"),
        ({"subject": "a\nBcc: eve@example.org"}, "subject"),
        ({"text": "a\0b"}, "text"),
        ({"html": "a\0b"}, "html"),
        ({"from": "nobody"}, "from"),
        ({"reply_to": ["a@b.c\r\nBcc: eve@example.org"]}, "reply_to[0]"),
        ({"headers": _headers(("Bcc", EVE))}, "headers['Bcc']"),
        ({"headers": _headers(("X-A\r\nBcc", "x"))}, "headers['X-A\\r\\nBcc']"),
        ({"headers": _headers(("X-A", "x\r\nBcc: eve@example.org"))}, "headers['X-A']"),
        ({"headers": _headers(("Content-Type", "text/html"))}, "headers['Content-Type']"),
        ({"headers": _headers(*[("X-A", "x")] * 51)}, "headers"),
        ({"return_path": "Bounces <bounces@example.org>"}, "return_path"),
        ({"return_path": "a@b.c\r\nRCPT TO:<eve@example.org>"}, "return_path"),
        ({"return_path": "<"}, "return_path"),
        ({"sender": "a@b.c\r\nBcc: eve@example.org"}, "sender"),
        ({"message_id": "<a@b.c>\r\nBcc: eve@example.org"}, "message_id"),
        ({"message_id": "<>"}, "message_id"),
        ({"message_id": " "}, "message_id"),
        ({"message_id": "<a@b.c"}, "message_id"),
        ({"attachments": [{"filename": "a\r\nb"}]}, "attachments[0].filename"),
        ({"attachments": [{"content_type": "text"}]}, "attachments[0].content_type"),
        ({"attachments": [{"content_id": "a>b"}]}, "attachments[0].content_id"),
        ({"priority": 17}, "priority"),
        ({"wait_for": 17}, "wait_for"),
        ({"ttl": {"seconds": -1}}, "ttl"),
        ({"request_id": "a\nb"}, "request_id"),
    ):
        with subtests.test(fields=fields, named=named):
            error = await _error(service, **fields)
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert bad_field(error) == named
            assert reason(error) == "INVALID_ARGUMENT"
            assert relay.mails == []


@pytest.mark.service(MAIL_MAX_BYTES=20_000)
async def test_a_mail_that_is_too_large(service: Service, relay: Relay) -> None:
    """A mail over MAIL_MAX_BYTES, by its text or as a whole, is INVALID_ARGUMENT; one below passes."""
    assert bad_field(await _error(service, text="x" * 20_001)) == "text"
    assert bad_field(await _error(service, text="ü" * 15_000)) == "text"
    assert (await _send(service, text="x" * 15_000)).state == RELAYED
    assert len(relay.mails) == 1


async def test_a_large_mail_arrives_whole(service: Service, relay: Relay) -> None:
    """A mail near the limit of 10 MiB arrives to the byte."""
    content = bytes(range(256)) * 4 * 1024 * 6
    attachment = mail_pb2.Attachment(filename="a.bin", content=content)
    assert (await _send(service, attachments=[attachment])).state == RELAYED
    (part,) = parsed(relay.mails[0].content).iter_attachments()
    assert part.get_content() == content
