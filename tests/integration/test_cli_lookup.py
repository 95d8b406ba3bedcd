"""The commands that ask a running service about mails and codes."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

import pytest

from commands import otpmail

if TYPE_CHECKING:
    from relay import Relay
    from service import Service

_LATER = pytest.mark.relay(refuse_recipients={"later@example.org": "451 4.3.0 later"})


async def _send(service: Service, to: str, *more: str) -> str:
    sent = await otpmail("mail", "send", "--to", to, "--text", "Hi", "--json", *more, server=service.address)
    return str(json.loads(sent.out)["mail"]["id"])


async def test_get_prints_the_state_of_a_mail(service: Service) -> None:
    """`mail get` finds a mail by its id and by its request id, and says when what happened to it."""
    mail_id = await _send(service, "ada@example.org", "--request-id", "r1")
    for arguments in ((mail_id,), ("--request-id", "r1")):
        got = await otpmail("mail", "get", *arguments, server=service.address)
        first, result, times = got.out.splitlines()
        assert (got.code, first) == (0, f"mail {mail_id}: relayed")
        assert result.startswith("  ada@example.org: 250 ")
        assert times.startswith("  accepted 20")
        assert "UTC, 1 attempt, settled 20" in times
    as_json = await otpmail("mail", "get", mail_id, "--json", server=service.address)
    assert json.loads(as_json.out)["state"] == "STATE_RELAYED"


async def test_a_mail_that_is_not_there(service: Service) -> None:
    """A mail that the service does not know is an error in one line, and so is a command that names none or two."""
    for arguments, said in (
        (("get", "nothing"), "there is no such mail"),
        (("watch", "nothing"), "there is no such mail"),
        (("cancel", "--request-id", "nothing"), "there is no such mail"),
        (("get",), "ID: give the id of the mail, or its request id by --request-id"),
        (("watch", "a", "--request-id", "b"), "ID: give the id"),
    ):
        ran = await otpmail("mail", *arguments, server=service.address)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.startswith(said)
        assert ran.err.count("\n") == 1


@_LATER
async def test_watch_follows_a_mail_and_cancel_ends_it(service: Service, relay: Relay) -> None:
    """`mail watch` prints each state as it comes, and ends with 1 where the mail was not relayed."""
    mail_id = await _send(service, "later@example.org", "--queue")
    await service.wait_for_log("mail-deferred", mail=mail_id)
    command = (sys.executable, "-m", "otpmail", "mail", "watch", mail_id, "--json", "--server", service.address)
    watching = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert watching.stdout is not None
    async with asyncio.timeout(30):
        first = json.loads(await watching.stdout.readline())
    got = await otpmail("mail", "get", mail_id, server=service.address)
    assert "next attempt 20" in got.out
    for _ in range(2):
        cancelled = await otpmail("mail", "cancel", mail_id, server=service.address)
        assert (cancelled.code, cancelled.out.splitlines()[0]) == (0, f"mail {mail_id}: cancelled")
    out, _ = await watching.communicate()
    states = [first["state"], *(json.loads(line)["state"] for line in out.splitlines())]
    assert (watching.returncode, states[0], states[-1]) == (1, "STATE_QUEUED", "STATE_CANCELLED")
    assert not relay.mails
    again = await otpmail("mail", "watch", mail_id, server=service.address)
    assert again.out.splitlines()[0] == f"mail {mail_id}: cancelled"


async def test_a_relayed_mail_can_not_be_cancelled(service: Service) -> None:
    """`mail cancel` ends with 3 and the service's words where the relay has the mail."""
    mail_id = await _send(service, "ada@example.org")
    ran = await otpmail("mail", "cancel", mail_id, server=service.address)
    assert (ran.code, ran.err.strip()) == (3, "FAILED_PRECONDITION: the mail has settled: RELAYED")
    assert (await otpmail("mail", "watch", mail_id, server=service.address)).code == 0


@pytest.mark.service(OTP_RETURN_CODE=True)
async def test_a_code_that_is_sent_once(service: Service, relay: Relay) -> None:
    """`code send` with the same --request-id again mails nothing, and prints the same mail and code."""
    command = ("code", "send", "ada@example.org", "--request-id", "r1", "--json")
    first, again = [json.loads((await otpmail(*command, server=service.address)).out) for _ in range(2)]
    assert (again["mail"]["id"], again["otp_code"]) == (first["mail"]["id"], first["otp_code"])
    assert first["mail"]["request_id"] == "r1"
    assert len(relay.mails) == 1
    got = await otpmail("mail", "get", "--request-id", "r1", server=service.address)
    assert got.out.startswith(f"mail {first['mail']['id']}: relayed\n")


@pytest.mark.service(OTP_RETURN_CODE=True)
async def test_a_revoked_code_is_not_valid(service: Service) -> None:
    """`code revoke` ends the live code of the purpose that it names, and a second time does nothing."""
    sent = await otpmail("code", "send", "ada@example.org", "--json", server=service.address)
    code = json.loads(sent.out)["otp_code"]
    other = await otpmail("code", "revoke", "ada@example.org", "--purpose", "other", server=service.address)
    assert other.code == 0
    left = "codes for other purposes are left alone"
    assert other.out.strip() == f"no code for ada@example.org and the purpose other is valid now; {left}"
    for _ in range(2):
        revoked = await otpmail("code", "revoke", "ada@example.org", server=service.address)
        said = f"no code for ada@example.org and the purpose login is valid now; {left}"
        assert (revoked.code, revoked.out.strip()) == (0, said)
    checked = await otpmail("code", "validate", "ada@example.org", code, server=service.address)
    assert (checked.code, checked.out.strip()) == (1, "no live code")


async def test_a_list_of_no_mails_says_so(service: Service) -> None:
    """`mail list` without a result is a line on standard error, and nothing with --json; both end with 0."""
    for options, said in (((), "no such mails\n"), (("--json",), "")):
        ran = await otpmail("mail", "list", "--state", "failed", *options, server=service.address)
        assert (ran.code, ran.out, ran.err) == (0, "", said)


@_LATER
async def test_list_prints_mails_newest_first(service: Service) -> None:
    """`mail list` prints the mails that are asked for, newest first, up to the limit; a wrong state is named."""
    first = await _send(service, "ada@example.org", "--request-id", "r1")
    second = await _send(service, "later@example.org", "--queue")
    third = await _send(service, "ada@example.org")

    async def listed(*arguments: str) -> list[str]:
        ran = await otpmail("mail", "list", "--json", *arguments, server=service.address)
        assert ran.code == 0
        return [json.loads(line)["id"] for line in ran.out.splitlines()]

    assert await listed() == [third, second, first]
    assert await listed("--limit", "2") == [third, second]
    assert await listed("--state", "relayed") == [third, first]
    assert await listed("--to", "Ada@example.org") == [third, first]
    assert await listed("--request-id", "r1") == [first]
    assert await listed("--to", "later@example.org", "--state", "relayed") == []
    shown = await otpmail("mail", "list", server=service.address)
    assert [line.split()[:2] for line in shown.out.splitlines()] == [
        [third, "relayed"],
        [second, "queued"],
        [first, "relayed"],
    ]
    wrong = await otpmail("mail", "list", "--state", "sent", server=service.address)
    assert (wrong.code, wrong.err[:30]) == (2, "--state: 'sent' is not one of ")
