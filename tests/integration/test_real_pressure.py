"""A real Postfix that limits connections and mails (anvil(8)), or is under stress: the service copes by itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from integration.conftest import require
from integration.postfix import Postfix
from integration.servers import DOMAIN, PASSWORD, UNKNOWN, USER
from otpmail.v1 import mail_pb2
from service import Service

if TYPE_CHECKING:
    from collections.abc import Sequence

    from integration.servers import CertificateFiles


def _service(server: Postfix, files: CertificateFiles) -> Service:
    return Service(
        EMAIL_HOST="localhost",
        EMAIL_PORT=server.tls_port,
        EMAIL_SECURITY="tls",
        EMAIL_CA_FILE=files.ca_file,
        EMAIL=USER,
        APP_PASSWORD=PASSWORD,
        EMAIL_FROM=f"codes@{DOMAIN}",
    )


def _people(count: int) -> list[str]:
    return [f"p{n}@{DOMAIN}" for n in range(count)]


async def _send(service: Service, people: Sequence[str]) -> list[mail_pb2.Mail]:
    requests = [mail_pb2.SendMailRequest(to=[address], text="t") for address in people]
    return [answer.mail for answer in await asyncio.gather(*map(service.mail.SendMail, requests))]


async def test_postfix_takes_two_connections(certificate_files: CertificateFiles) -> None:
    """With smtpd_client_connection_count_limit=2 all mails go by their first attempt over two connections."""
    require(Postfix)
    limits = {"smtpd_client_connection_count_limit": "2", "smtpd_client_event_limit_exceptions": ""}
    with Postfix(certificate_files.cert_file, certificate_files.key_file, limits) as server:
        async with _service(server, certificate_files) as service:
            await service.wait_until_serving()
            learned = await service.wait_for_log("connection-limit-learned")
            assert learned["limit"] == 2
            mails = await _send(service, _people(30))
            assert {(mail.state, mail.attempts) for mail in mails} == {(mail_pb2.Mail.STATE_RELAYED, 1)}
            assert not service.logged("relay-down")


async def test_postfix_takes_ten_mails_in_five_seconds(certificate_files: CertificateFiles) -> None:
    """With smtpd_client_message_rate_limit the mails wait for a lower rate, and none counts a second attempt."""
    require(Postfix)
    limits = {
        "smtpd_client_message_rate_limit": "10",
        "anvil_rate_time_unit": "5s",
        "smtpd_client_event_limit_exceptions": "",
    }
    with Postfix(certificate_files.cert_file, certificate_files.key_file, limits) as server:
        async with _service(server, certificate_files) as service:
            await service.wait_until_serving()
            mails = await _send(service, _people(20))
            assert {(mail.state, mail.attempts) for mail in mails} == {(mail_pb2.Mail.STATE_RELAYED, 1)}
            await service.wait_for_log("rate-lowered")
            assert not service.logged("mail-deferred")


async def test_postfix_under_stress(certificate_files: CertificateFiles) -> None:
    """A rejected recipient costs a session of a Postfix under stress; neither that nor an idle close defers a mail."""
    require(Postfix)
    # Stress by itself selects smtpd_hard_error_limit=1, and a timeout of 10 s, which is longer than a test should take.
    stress = {"stress": "yes", "smtpd_timeout": "3s"}
    people = _people(20)
    people.insert(10, UNKNOWN)
    with Postfix(certificate_files.cert_file, certificate_files.key_file, stress) as server:
        async with _service(server, certificate_files) as service:
            await service.wait_until_serving()
            mails = await _send(service, people)
            refused = mails.pop(10)
            assert (refused.state, refused.recipients[0].code) == (mail_pb2.Mail.STATE_FAILED, 550)
            await service.wait_for_log("idle-time-learned")
            mails += await _send(service, people[:1])
            assert {(mail.state, mail.attempts) for mail in mails} == {(mail_pb2.Mail.STATE_RELAYED, 1)}
            assert not service.logged("mail-deferred")
            assert not service.logged("relay-down")
            assert server.log().count("too many errors after BDAT") == 1  # the first dial's probe
            assert server.log().count("too many errors after RCPT") == 1
            assert server.log().count(": connect from") <= 20  # four for each of five workers
