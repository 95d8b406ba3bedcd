"""A real Postfix and a real Exim that take few recipients at once, or do not like a name in EHLO."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

import pytest

from integration.conftest import require
from integration.exim import Exim
from integration.postfix import Postfix
from integration.servers import DOMAIN
from otpmail.v1 import mail_pb2
from service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.servers import CertificateFiles, MailServer
    from relay import Certificates

_LIMITED: dict[str, tuple[type[MailServer], dict[str, str]]] = {
    "postfix": (Postfix, {"smtpd_recipient_limit": "10"}),
    "exim": (Exim, {"recipients_max": "10"}),
    "exim-552": (Exim, {"recipients_max": "10", "recipients_max_reject": "true"}),
}


@pytest.fixture(params=_LIMITED)
def limited(request: pytest.FixtureRequest, certificate_files: CertificateFiles) -> Iterator[MailServer]:
    """Start a server that takes ten recipients in a transaction."""
    kind, settings = _LIMITED[request.param]
    require(kind)
    with kind(certificate_files.cert_file, certificate_files.key_file, settings) as server:
        yield server


@pytest.fixture
def strict_about_names(certificate_files: CertificateFiles) -> Iterator[Postfix]:
    """Start a Postfix that refuses a name without a dot."""
    require(Postfix)
    settings = {"smtpd_helo_required": "yes", "smtpd_helo_restrictions": "reject_non_fqdn_helo_hostname"}
    with Postfix(certificate_files.cert_file, certificate_files.key_file, settings) as server:
        yield server


async def test_sixty_recipients_at_a_server_that_takes_ten(limited: MailServer, certificates: Certificates) -> None:
    """All of them have the mail at once, one copy each, by one attempt; the next mail keeps to the limit."""
    people = [f"limited{number}@{DOMAIN}" for number in range(60)]
    async with Service(**limited.settings(certificates.ca_file)) as service:
        await service.wait_until_serving()
        request = mail_pb2.SendMailRequest(to=people, subject="s", text="t")
        begun = monotonic()
        mail = (await service.mail.SendMail(request)).mail
        took = monotonic() - begun
        assert (mail.state, mail.attempts) == (mail_pb2.Mail.STATE_RELAYED, 1)
        assert took < 15  # a deferral would take 20 s
        await service.wait_for_log("recipient-limit-learned", limit=10)
        assert (await service.mail.SendMail(request)).mail.state == mail_pb2.Mail.STATE_RELAYED
        for address in people:
            assert len(await limited.mails(address, 2)) == 2


async def test_a_server_that_refuses_the_name_in_ehlo(strict_about_names: Postfix, certificates: Certificates) -> None:
    """The mail is deferred with the server's words, and the log names EMAIL_HELO."""
    async with Service(**strict_about_names.settings(certificates.ca_file), EMAIL_HELO="box") as service:
        await service.wait_until_serving()
        request = mail_pb2.SendMailRequest(to=[f"named@{DOMAIN}"], subject="s", text="t", ttl={"seconds": 1})  # type: ignore[arg-type]
        mail = (await service.mail.SendMail(request)).mail
        assert mail.state == mail_pb2.Mail.STATE_FAILED
        assert mail.recipients[0].reply == "<box>: Helo command rejected: need fully-qualified hostname"
        line = await service.wait_for_log("helo-refused", level="error")
        assert "EMAIL_HELO" in str(line["message"])


@pytest.mark.parametrize(("name", "code"), [("box", 1), (None, 0)])
async def test_a_check_of_the_name_in_ehlo(
    strict_about_names: Postfix, certificates: Certificates, name: str | None, code: int
) -> None:
    """`otpmail check` says that EMAIL_HELO is to be set; a name that follows from the machine or sender is taken."""
    service = Service(command="check", **strict_about_names.settings(certificates.ca_file), EMAIL_HELO=name)
    try:
        await service.spawn()
        assert await service.wait_exited() == code
    finally:
        await service.close()
    said = "the relay refuses the name box in EHLO; set EMAIL_HELO to a name of this machine that DNS knows"
    assert any(said in line for line in service.output) is (code == 1)
