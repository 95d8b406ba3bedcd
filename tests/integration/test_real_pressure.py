"""A real Postfix that limits connections and mails (anvil(8)): the service finds both limits by itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from integration.conftest import require
from integration.postfix import Postfix
from integration.servers import DOMAIN, PASSWORD, USER
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


async def _send(service: Service, count: int) -> Sequence[mail_pb2.Mail]:
    requests = [mail_pb2.SendMailRequest(to=[f"p{n}@{DOMAIN}"], text="t") for n in range(count)]
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
            mails = await _send(service, 30)
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
            mails = await _send(service, 20)
            assert {(mail.state, mail.attempts) for mail in mails} == {(mail_pb2.Mail.STATE_RELAYED, 1)}
            assert len(service.logged("rate-lowered")) >= 1
            assert not service.logged("mail-deferred")
