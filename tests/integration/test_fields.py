"""The fields of SendMail that the relay or the reader of a mail sees: a request goes in, and a mail comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from calls import bad_field, parsed
from otpmail.v1 import mail_pb2

if TYPE_CHECKING:
    from email.message import EmailMessage

    from relay import Relay
    from service import Service

ADA = "ada@example.org"
RELAYED = mail_pb2.Mail.STATE_RELAYED
ALLOWED = "@shop.example, boss@example.org"


def _request(**fields: object) -> mail_pb2.SendMailRequest:
    return mail_pb2.SendMailRequest(**{"to": [ADA], "subject": "s", "text": "t", **fields})  # type: ignore[arg-type]


async def _send(service: Service, **fields: object) -> mail_pb2.Mail:
    mail = (await service.mail.SendMail(_request(**fields))).mail
    assert mail.state == RELAYED
    return mail


async def _arrives(service: Service, relay: Relay, **fields: object) -> EmailMessage:
    """Send a mail, and return it as its reader gets it."""
    await _send(service, **fields)
    return parsed(relay.mails[-1].content)


async def _status(service: Service, **fields: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _send(service, **fields)
    return caught.value.code(), caught.value.details() or ""


async def test_several_reply_to(service: Service, relay: Relay) -> None:
    """All mailboxes for replies stand in one Reply-To field, in their order (RFC 5322, 3.6.2)."""
    mail = await _arrives(service, relay, reply_to=["Support <help@example.org>", "sales@example.org"])
    assert mail.get_all("Reply-To") == ["Support <help@example.org>, sales@example.org"]


async def test_headers_in_their_order(service: Service, relay: Relay) -> None:
    """Headers arrive in the order of the request, and one whose name comes twice arrives twice."""
    given = [("X-Trace", "1"), ("X-Other", "a"), ("x-trace", "2"), ("X-Trace", "1")]
    headers = [mail_pb2.Header(name=name, value=value) for name, value in given]
    mail = await _arrives(service, relay, headers=headers)
    assert [(name, value) for name, value in mail.items() if name.lower().startswith("x-")] == given


@pytest.mark.service(EMAIL_FROM_ALLOWED=ALLOWED)
async def test_where_bounces_go(service: Service, relay: Relay, subtests: pytest.Subtests) -> None:
    """The return path is the envelope's sender and stands in no header; without one, bounces go to the author."""
    for return_path, sender in (
        ("", "news@shop.example"),
        ("bounces+ada=example.org@shop.example", "bounces+ada=example.org@shop.example"),
        ("<bounces@shop.example>", "bounces@shop.example"),
        (" <> ", ""),
        ("<>", ""),
    ):
        with subtests.test(return_path=return_path, sender=sender):
            mail = await _arrives(service, relay, return_path=return_path, **{"from": "News <news@shop.example>"})
            assert relay.mails[-1].sender == sender
            assert (mail["From"], mail["Return-Path"]) == ("News <news@shop.example>", None)


@pytest.mark.relay(final_reply="451 4.3.0 later", times=1)
async def test_bounces_go_nowhere_at_a_second_attempt(service: Service, relay: Relay) -> None:
    """A deferred mail keeps the null return path, which needs no permission."""
    await _send(service, return_path="<>")
    assert [mail.sender for mail in relay.mails] == [""]


@pytest.mark.service(EMAIL_FROM_ALLOWED=ALLOWED)
async def test_one_who_sends_for_the_author(service: Service, relay: Relay) -> None:
    """The Sender field has the mailbox that sends for the author, and is left out where that is the author."""
    mail = await _arrives(service, relay, sender="Assistant <a@shop.example>", **{"from": "boss@example.org"})
    assert (mail["From"], mail["Sender"]) == ("boss@example.org", "Assistant <a@shop.example>")
    assert relay.mails[-1].sender == "boss@example.org"
    mail = await _arrives(service, relay, sender="Boss <boss@example.org>", **{"from": "boss@example.org"})
    assert mail["Sender"] is None


@pytest.mark.service(EMAIL_FROM_ALLOWED=ALLOWED)
async def test_who_may_not_send(service: Service, relay: Relay, subtests: pytest.Subtests) -> None:
    """EMAIL_FROM_ALLOWED covers author, sender and return path: another address is PERMISSION_DENIED, and named."""
    for field in ("from", "sender", "return_path"):
        with subtests.test(field=field):
            sent = len(relay.mails)
            await _send(service, **{field: "anybody@shop.example"})
            await _send(service, **{field: "codes@example.org"})
            assert await _status(service, **{field: "eve@example.org"}) == (
                grpc.StatusCode.PERMISSION_DENIED,
                f"{field}: eve@example.org may not be used: EMAIL_FROM_ALLOWED does not hold it",
            )
            request = _request(request_id=f"{field}-1")
            setattr(request, field, "eve@example.org")
            batch = mail_pb2.SendMailsRequest(mails=[request, _request(request_id=f"{field}-2", return_path="<>")])
            results = [one async for answer in service.mail.SendMails(iter([batch])) for one in answer.results]
            codes = {result.request_id: result.code for result in results}
            assert codes == {f"{field}-1": grpc.StatusCode.PERMISSION_DENIED.value[0], f"{field}-2": 0}
            assert len(relay.mails) - sent == 3


async def test_a_message_id_of_the_caller(service: Service, relay: Relay, subtests: pytest.Subtests) -> None:
    """A message id with or without angle brackets is the mail's, with them, in the header and in the answer."""
    for given in ("<order-1.a=b@shop.example>", "order-1.a=b@shop.example", "<1@[192.0.2.1]>"):
        with subtests.test(given=given):
            sent = await _send(service, message_id=given)
            expected = given if given.startswith("<") else f"<{given}>"
            assert f"\r\nMessage-ID: {expected}\r\n".encode() in relay.mails[-1].content
            assert (sent.message_id, (await service.mail.GetMail(mail_pb2.GetMailRequest(id=sent.id))).message_id) == (
                expected,
                expected,
            )


async def test_a_message_id_of_the_service(service: Service, relay: Relay) -> None:
    """Without a message id the service makes one, of its own domain."""
    sent = await _send(service)
    assert sent.message_id == f"<{sent.id}@example.org>"
    assert parsed(relay.mails[-1].content)["Message-ID"] == sent.message_id


async def test_each_field_is_part_of_the_request(service: Service, relay: Relay) -> None:
    """A repeated request id with another value of any field is refused; with the same ones nothing is sent again."""
    fields: dict[str, object] = {
        "reply_to": ["a@example.org", "b@example.org"],
        "headers": [mail_pb2.Header(name="X-A", value="1"), mail_pb2.Header(name="X-A", value="2")],
        "return_path": "<>",
        "sender": "codes@example.org",
        "message_id": "1@example.org",
    }
    first = await service.mail.SendMail(_request(request_id="r1", **fields))
    assert await service.mail.SendMail(_request(request_id="r1", **fields)) == first
    others: dict[str, object] = {
        "reply_to": ["b@example.org", "a@example.org"],
        "headers": [mail_pb2.Header(name="X-A", value="2"), mail_pb2.Header(name="X-A", value="1")],
        "return_path": "",
        "sender": "",
        "message_id": "2@example.org",
    }
    for field, value in others.items():
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.mail.SendMail(_request(request_id="r1", **{**fields, field: value}))
        assert bad_field(caught.value) == "request_id"
    assert len(relay.mails) == 1


async def test_an_invitation(service: Service, relay: Relay) -> None:
    """A calendar file as an alternative stands beside text and HTML, with the parameters of its type."""
    calendar = mail_pb2.Attachment(
        content_type="text/calendar; method=REQUEST; charset=utf-8",
        content=b"BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n",
        alternative=True,
    )
    notes = mail_pb2.Attachment(filename="n.txt", content_type="text/plain; charset=utf-8", content="ü".encode())
    mail = await _arrives(service, relay, html="<p>Hello", attachments=[calendar, notes])
    types = [part.get_content_type() for part in mail.walk()]
    assert types == [
        *("multipart/mixed", "multipart/alternative", "text/plain", "text/html", "text/calendar", "text/plain"),
    ]
    invitation, attached = [part for part in mail.walk() if not part.is_multipart()][2:]
    assert (invitation.get_param("method"), invitation.get_content_charset()) == ("REQUEST", "utf-8")
    assert (attached.get_filename(), attached.get_content().strip()) == ("n.txt", "ü")


@pytest.mark.relay(smtputf8=False)
@pytest.mark.service(EMAIL_FROM_ALLOWED="@bücher.example")
async def test_a_return_path_in_other_letters(service: Service, relay: Relay) -> None:
    """The domain of a return path goes in A-labels, which any relay takes."""
    await _send(service, return_path="bounces@bücher.example")
    assert relay.mails[-1].sender == "bounces@xn--bcher-kva.example"
