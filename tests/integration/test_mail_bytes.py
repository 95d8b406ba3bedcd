"""Odd mails through the whole service: what arrives at the relay, and what is refused before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from calls import bad_field, parsed, text_of
from otpmail.v1 import mail_pb2

if TYPE_CHECKING:
    from relay import Relay
    from service import Service

ADA = "ada@example.org"
RELAYED, FAILED = mail_pb2.Mail.STATE_RELAYED, mail_pb2.Mail.STATE_FAILED
UNSUBSCRIBE = "<https://example.org/u/dG9rZW4=?list=3>"
FORWARDED = "Subject: M\r\nContent-Transfer-Encoding: 8bit\r\n\r\nMärz\r\n.\r\n".encode()


async def _send(service: Service, **fields: object) -> mail_pb2.Mail:
    request = mail_pb2.SendMailRequest(**{"to": [ADA], "subject": "s", "text": "t", **fields})  # type: ignore[arg-type]
    return (await service.mail.SendMail(request)).mail


def _header(name: str, value: str) -> list[mail_pb2.Header]:
    return [mail_pb2.Header(name=name, value=value)]


def _forwarded() -> list[mail_pb2.Attachment]:
    return [mail_pb2.Attachment(content_type="message/rfc822", content=FORWARDED)]


async def test_one_click_unsubscribe_arrives_as_it_was_given(service: Service, relay: Relay) -> None:
    """A List-Unsubscribe with `=?` in its URL is on the wire letter by letter (RFC 2047, 5; RFC 8058)."""
    await _send(service, headers=_header("List-Unsubscribe", f"  {UNSUBSCRIBE} "))
    assert f"\r\nList-Unsubscribe: {UNSUBSCRIBE}\r\n".encode() in relay.mails[-1].content


async def test_what_can_not_be_written_is_refused(service: Service, relay: Relay, subtests: pytest.Subtests) -> None:
    """A value that no reader would get back, or that could go elsewhere, is INVALID_ARGUMENT with its field."""
    for fields, field in (
        ({"headers": _header("References", "<ä@example.org>")}, "headers['References']"),
        ({"headers": _header("X-SMTPAPI", "x" * 998)}, "headers['X-SMTPAPI']"),
        ({"text": "a\0b"}, "text"),
        ({"to": ['"eve@evil.example"@example.org']}, "to[0]"),
        ({"to": ["=?utf-8?q?eve=40evil.example=3E?=@example.org"]}, "to[0]"),
        ({"to": ["bob@example.org, Ada <ada@example.org>"]}, "to[0]"),
        ({"attachments": [mail_pb2.Attachment(content_type="text/plain; charset")]}, "attachments[0].content_type"),
        (
            {"attachments": [mail_pb2.Attachment(content_type="message/rfc822", content=b"x" * 999)]},
            "attachments[0].content",
        ),
    ):
        with subtests.test(fields=fields, field=field):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await _send(service, **fields)
            assert bad_field(caught.value) == field
            assert not relay.mails


async def test_control_characters_in_a_body(service: Service, relay: Relay) -> None:
    """A vertical tab and what a word processor wrote as U+0092 arrive, encoded."""
    text = "one\x0btwo it\x92s\x1b[31m\n"
    assert (await _send(service, text=text)).state == RELAYED
    assert text_of(relay.mails[-1].content) == text
    assert b"\x0b" not in relay.mails[-1].content


async def test_a_mail_as_a_file(service: Service, relay: Relay) -> None:
    """A mail that is not ASCII goes as 8bit, as the parameters of MAIL say, and arrives octet for octet."""
    assert (await _send(service, attachments=_forwarded())).state == RELAYED
    caught = relay.mails[-1]
    assert caught.parameters["BODY"] == "8BITMIME"
    assert FORWARDED in caught.content
    assert [part.get_content_type() for part in parsed(caught.content).iter_parts()] == ["text/plain", "message/rfc822"]


@pytest.mark.relay(eightbitmime=False)
async def test_a_mail_as_a_file_without_8bitmime(service: Service, relay: Relay) -> None:
    """A relay without 8BITMIME can't take it, which the result says; as octets it takes the same file."""
    mail = await _send(service, attachments=_forwarded())
    assert (mail.state, mail.recipients[0].code, mail.recipients[0].enhanced_code) == (FAILED, 554, "5.6.3")
    assert "8BITMIME" in mail.recipients[0].reply
    as_octets = mail_pb2.Attachment(filename="a.eml", content=FORWARDED)
    assert (await _send(service, attachments=[as_octets])).state == RELAYED
    assert relay.mails[-1].content.isascii()


async def test_a_name_with_quotes_in_it(service: Service, relay: Relay) -> None:
    """The mail goes to the address in the brackets, and the name keeps its quotes."""
    await _send(service, to=['John "Jack" Doe <h@example.org>'])
    caught = relay.mails[-1]
    (address,) = parsed(caught.content)["To"].addresses
    assert (caught.recipients, address.display_name) == (("h@example.org",), 'John "Jack" Doe')


async def test_a_long_local_part(service: Service, relay: Relay) -> None:
    """A local part over 64 octets is the relay's to refuse (RFC 5321, 4.5.3.1)."""
    address = f"{'a' * 200}@example.org"
    assert (await _send(service, to=[address])).state == RELAYED
    assert relay.mails[-1].recipients == (address,)
