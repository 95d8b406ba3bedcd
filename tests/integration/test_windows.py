"""Many mails in flight to a real Postfix and a real Exim, by BDAT and by DATA, and bodies that try to end early."""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING, Any

import pytest

from calls import parsed, text_of
from integration.servers import DOMAIN, MailServer
from otpmail.v1 import mail_pb2
from service import Service

if TYPE_CHECKING:
    from relay import Certificates

MAILS = int(os.environ.get("OTPMAIL_MAILS") or "300")
RELAYED = mail_pb2.Mail.STATE_RELAYED
# The servers write these when a client does not keep to the protocol.
_COMPLAINTS = re.compile(
    r"synchroni[sz]ation|protocol|too many|improper command|warning:|lost connection|unexpected disconnection|syntax",
    re.IGNORECASE,
)
# Postfix warns so of a clock that differs between kernel and file system, which no client can cause.
_CLOCK = re.compile(r"file system clock is|resetting file time stamps")
_FORGED = "MAIL FROM:<eve@evil.example>{e}RCPT TO:<{victim}>{e}DATA{e}Subject: forged{e}{e}forged{e}.{e}"


@pytest.mark.parametrize("window", [1, 16])
@pytest.mark.parametrize(("mode", "shown"), [("auto", "bdat"), ("data", "data")])
async def test_many_in_flight(
    server: MailServer, certificates: Certificates, mode: str, shown: str, window: int
) -> None:
    """Each mail reaches its own recipient once and unchanged, and the server logs no complaint."""
    people = [f"w{shown}{window}n{n}@{DOMAIN}" for n in range(MAILS)]
    logged = len(server.log())
    # No connection is replaced: one that is being dialled when the service stops is cut, of which Postfix complains.
    more: dict[str, Any] = {"EMAIL_MODE": mode, "EMAIL_WINDOW": window, "EMAIL_MAX_MESSAGES": 2 * MAILS}
    async with Service(**server.settings(certificates.ca_file), **more) as service:
        await service.wait_until_serving()
        assert (await service.wait_for_log("relay-up"))["mode"] == shown
        answers = await asyncio.gather(
            *(service.mail.SendMail(mail_pb2.SendMailRequest(to=[to], subject=to, text=f"for {to}")) for to in people)
        )
        assert await service.stop() == 0  # killed, it would not say QUIT
    assert {answer.mail.state for answer in answers} == {RELAYED}
    for person, answer in zip(people, answers, strict=True):
        (delivered,) = await server.mails(person, 1)
        assert text_of(delivered) == f"for {person}\n"
        assert parsed(delivered)["Message-ID"] == answer.mail.message_id
    lines = server.log()[logged:].splitlines()
    assert [line for line in lines if _COMPLAINTS.search(line) and not _CLOCK.search(line)] == []


@pytest.mark.parametrize("mode", ["auto", "data"])
async def test_bodies_that_try_to_end_early(server: MailServer, certificates: Certificates, mode: str) -> None:
    """Any text around a dot in a body arrives whole, in one mail, with no second one behind it."""
    victim = f"victim-{mode}@{DOMAIN}"
    ends = [a + "." + b for a in ("\n", "\r", "\r\n", "\n\r") for b in ("\n", "\r", "\r\n", "\r\r\n")]
    bodies = [f"before{end}{_FORGED.format(e=e, victim=victim)}after" for end in ends for e in ("\r\n", "\n")]
    bodies += [".", "..", ".\n.\n.", "\n.\n", "a\n.", ".\r\n", "\r\n.\r\n\r\n.\r\n"]
    people = [f"dots-{mode}-{n}@{DOMAIN}" for n in range(len(bodies))]
    async with Service(**server.settings(certificates.ca_file), EMAIL_MODE=mode) as service:
        await service.wait_until_serving()
        answers = await asyncio.gather(
            *(
                service.mail.SendMail(mail_pb2.SendMailRequest(to=[person], text=body))
                for person, body in zip(people, bodies, strict=True)
            )
        )
        last = (await service.mail.SendMail(mail_pb2.SendMailRequest(to=[victim], text="the only one"))).mail
    assert {answer.mail.state for answer in answers} == {RELAYED}
    assert last.state == RELAYED
    for person, body in zip(people, bodies, strict=True):
        (delivered,) = await server.mails(person, 1)
        lines = re.split(r"\r\n|\r|\n", body)
        assert text_of(delivered) == "\n".join(lines[:-1] if lines[-1] == "" else lines) + "\n"
    (delivered,) = await server.mails(victim, 1)
    assert text_of(delivered) == "the only one\n"
