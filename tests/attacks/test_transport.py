"""Somebody on the way to the relay takes STARTTLS away, or adds words before TLS: no mail and no password leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from otpmail.v1 import mail_pb2
from relay import Certificates, Faults, Relay
from service import Service, relay_settings

if TYPE_CHECKING:
    from pathlib import Path

ATTACKS: dict[str, dict[str, Any]] = {
    "STARTTLS is not announced": {"starttls_stripped": True},
    "an answer to EHLO stands behind that to STARTTLS": {
        "refuse_starttls": "220 go on\r\n250-relay.test\r\n250 AUTH PLAIN LOGIN\r\n"
    },
    "the certificate has expired": {"certificate": "expired"},
}


@pytest.mark.parametrize("attack", list(ATTACKS))
async def test_no_word_before_tls_counts(certificates: Certificates, tmp_path: Path, attack: str) -> None:
    """The relay is down for the service: neither AUTH nor MAIL reaches it, over whatever connection."""
    async with Relay(Faults(security="starttls", **ATTACKS[attack]), certificates=certificates) as relay:
        settings = relay_settings(relay, certificates, tmp_path / "token")
        async with Service(**settings, EMAIL_RETRY_SECONDS=0.05, EMAIL_TIMEOUT=1) as service:
            await service.wait_for_log("relay-down")
            await relay.wait_for_connections(2)
        verbs = {command.line.partition(" ")[0] for command in relay.commands}
        assert verbs <= {"EHLO", "HELO", "STARTTLS", "QUIT"}
        assert relay.mails == []


@pytest.mark.relay(security="starttls", extra_at="STARTTLS", final_reply="550 5.7.1 not wanted")
@pytest.mark.service(EMAIL_RETRY_SECONDS=0.05, EMAIL_TIMEOUT=5)
async def test_a_reply_before_tls_is_not_one_of_later(service: Service, relay: Relay) -> None:
    """A reply that stands behind that to STARTTLS is not taken for the reply to a command within TLS."""
    sent = await service.mail.SendMail(mail_pb2.SendMailRequest(to=["ada@example.org"], text="hi"))
    assert sent.mail.state == mail_pb2.Mail.STATE_FAILED
    assert [(result.code, result.enhanced_code) for result in sent.mail.recipients] == [(550, "5.7.1")]
    assert relay.mails == []
