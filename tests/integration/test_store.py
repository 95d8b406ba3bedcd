"""A durable store over stops and kills: the next process sends what was promised. `tests/faults` has the rest."""

from __future__ import annotations

import asyncio
import base64
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest

from calls import parsed
from earlier import FILES, unpack
from guaranteed import Callers, names, send, sqlite_settings
from otpmail.v1 import mail_pb2, otp_pb2
from relay import Faults
from service import Service, relay_settings

if TYPE_CHECKING:
    from pathlib import Path

    from relay import Certificates, Relay


@pytest.fixture
def state(relay: Relay, certificates: Certificates, tmp_path: Path) -> dict[str, Any]:
    """Return the settings of a service with its store in a file of the test."""
    return relay_settings(relay, certificates, tmp_path / "token") | sqlite_settings(tmp_path / "store.db")


async def test_a_stop_keeps_guaranteed_mails(state: dict[str, Any], relay: Relay) -> None:
    """A stop keeps guaranteed mails and says how many; the next start sends them, urgent first, as the same mails."""
    down = state | {"EMAIL_PORT": 1, "DRAIN_SECONDS": 0.2, "WORKERS": 1}
    async with Service(**down) as service:
        await service.wait_for_log("relay-down")
        sent = [await send(service, f"n{number}", request_id=f"r{number}") for number in range(4)]
        await send(service, "bulk", priority=mail_pb2.PRIORITY_BULK)
        await send(service, "urgent", priority=mail_pb2.PRIORITY_URGENT)
        assert await service.stop() == 0
        first = str(service.logged("stopping")[0]["message"])
        assert first.endswith("; a second signal stops at once, and loses all but what the store has")
        last = service.log[-1]
        assert (last["event"], last["level"], last["kept"], last["lost"]) == ("stopped", "info", 6, 0)
    relay.faults = Faults(chunking=False, pipelining=False)
    async with Service(**state | {"WORKERS": 1}) as service:
        again = await send(service, "n0", request_id="r0")
        assert (again.id, again.message_id) == (sent[0].id, sent[0].message_id)
        arrived = await relay.wait_for_mails(6)
        assert names(arrived) == ["urgent", "n0", "n1", "n2", "n3", "bulk"]
        for mail in sent:
            states = [state.state async for state in service.mail.WatchMail(mail_pb2.WatchMailRequest(id=mail.id))]
            assert states[-1] == mail_pb2.Mail.STATE_RELAYED
        assert await service.stop() == 0
    async with Service(**state) as service:
        found = await service.mail.GetMail(mail_pb2.GetMailRequest(request_id="r3"))
        assert (found.id, found.state) == (sent[3].id, mail_pb2.Mail.STATE_RELAYED)
        again = await send(service, "n0", request_id="r0")
        assert (again.id, again.state) == (sent[0].id, mail_pb2.Mail.STATE_RELAYED)
        assert await service.stop() == 0
    assert len(relay.mails) == 6


async def test_a_stop_under_callers_keeps_what_was_promised(state: dict[str, Any], relay: Relay) -> None:
    """A stop in the midst of the commits of 64 callers ends, and the next start sends each mail that had an OK."""
    callers = Callers()
    relay.faults = Faults(final_reply="451 4.3.0 later")
    async with Service(**state, DRAIN_SECONDS=0.1) as service:
        await service.wait_until_serving()
        load = asyncio.create_task(callers.run(service))
        await callers.wait_for_promises(300)
        assert await service.stop() == 0
        await load
        last = service.log[-1]
        assert (last["event"], last["lost"]) == ("stopped", 0)
        kept = int(str(last["kept"]))
        assert kept >= len(callers.promised)
    relay.faults = Faults()
    async with Service(**state) as service:
        await relay.wait_for_mails(kept)
        assert await service.stop() == 0
    assert callers.promised.keys() <= set(names(relay.mails))


async def test_a_mail_is_cancelled_after_a_restart(state: dict[str, Any], relay: Relay) -> None:
    """A mail that an earlier process accepted can be watched and cancelled, and is not sent then, not even later."""
    down = state | {"EMAIL_PORT": 1, "DRAIN_SECONDS": 0.1}
    async with Service(**down) as service:
        mail = await send(service, "ada", request_id="r1")
        assert await service.stop() == 0
    async with Service(**down) as service:
        await service.wait_for_log("mails-taken-up")
        watched: Any = service.mail.WatchMail(mail_pb2.WatchMailRequest(request_id="r1"))
        assert (await watched.read()).state == mail_pb2.Mail.STATE_QUEUED
        cancelled = await service.mail.CancelMail(mail_pb2.CancelMailRequest(id=mail.id))
        assert cancelled.state == mail_pb2.Mail.STATE_CANCELLED
        assert (await watched.read()).state == mail_pb2.Mail.STATE_CANCELLED
        assert await service.stop() == 0
    async with Service(**state) as service:
        await service.wait_until_serving()
        assert (await service.mail.GetMail(mail_pb2.GetMailRequest(id=mail.id))).state == mail_pb2.Mail.STATE_CANCELLED
        await send(service, "bob")
        assert names(await relay.wait_for_mails(1)) == ["bob"]
        assert await service.stop() == 0


async def test_codes_live_through_a_kill(state: dict[str, Any], relay: Relay) -> None:
    """A code and its failed attempts are there after a kill, and a code that was used stays used."""
    service = Service(**state, OTP_RETURN_CODE=True, OTP_RESEND_SECONDS=0)
    async with service:
        await service.wait_until_serving()
        sent = await service.otp.SendCode(otp_pb2.SendCodeRequest(email="ada@example.org"))
        wrong = "0" * 6 if sent.otp_code != "0" * 6 else "1" * 6
        check = otp_pb2.ValidateCodeRequest(email="ada@example.org", code=wrong)
        assert (await service.otp.ValidateCode(check)).attempts_left == 4
        await service.kill()
    async with Service(**state) as service:
        assert (await service.otp.ValidateCode(check)).attempts_left == 3
        check.code = sent.otp_code
        assert (await service.otp.ValidateCode(check)).result == otp_pb2.ValidateCodeResponse.RESULT_VALID
        await service.kill()
    async with Service(**state) as service:
        assert (await service.otp.ValidateCode(check)).result == otp_pb2.ValidateCodeResponse.RESULT_NO_LIVE_CODE
        assert await service.stop() == 0
    assert len(relay.mails) == 1


@pytest.mark.parametrize("packed", FILES, ids=lambda path: path.name)
async def test_a_file_of_an_earlier_commit(state: dict[str, Any], relay: Relay, tmp_path: Path, packed: Path) -> None:
    """The service sends the mails in a file that an earlier version wrote, and goes on where each of them was."""
    unpack(packed, tmp_path / "store.db")
    async with Service(**state | {"OTP_KEYS": f"k1:{base64.b64encode(bytes(32)).decode()}"}) as service:
        arrived = await relay.wait_for_mails(3)
        assert sorted(parsed(mail.content)["subject"] for mail in arrived) == ["deferred", "open", "urgent"]
        watching = service.mail.WatchMail(mail_pb2.WatchMailRequest(request_id="r1"))
        states = [(mail.id, mail.state, mail.attempts) async for mail in watching]
        assert states[-1] == ("deferred", mail_pb2.Mail.STATE_RELAYED, 3)
        assert await service.stop() == 0


async def test_mails_in_the_file_are_listed(state: dict[str, Any], relay: Relay) -> None:
    """ListMails finds mails by state, address and request id, settled or waiting, also those of an earlier process."""
    by_id: dict[str, str] = {}
    async with Service(**state) as service:
        await service.wait_until_serving()
        for name in ("ada", "bob"):
            by_id[(await send(service, name, request_id=f"r-{name}")).id] = name
        await relay.wait_for_mails(2)
        assert await service.stop() == 0
    async with Service(**state | {"EMAIL_PORT": 1, "EMAIL_WINDOW": 1, "WORKERS": 1}) as service:
        await service.wait_for_log("relay-down")
        for number in range(6):  # more than the queue holds for one connection with a window of 1
            by_id[(await send(service, f"n{number}")).id] = f"n{number}"

        async def listed(**query: Any) -> list[str]:
            found = await service.mail.ListMails(mail_pb2.ListMailsRequest(**query))
            return [by_id[mail.id] for mail in found.mails]

        assert await listed() == [*(f"n{number}" for number in reversed(range(6))), "bob", "ada"]
        assert await listed(state=mail_pb2.Mail.STATE_QUEUED, page_size=3) == ["n5", "n4", "n3"]
        assert await listed(state=mail_pb2.Mail.STATE_RELAYED) == ["bob", "ada"]
        assert await listed(recipient="n4@example.org") == ["n4"]
        assert await listed(request_id="r-ada") == ["ada"]


async def test_dev_ignores_the_store(tmp_path: Path) -> None:
    """`otpmail dev` says that it ignores STORE_URL, and leaves the file alone: it would catch the mails in it."""
    path = tmp_path / "store.db"
    async with Service(command="dev", STORE_URL=f"sqlite:{path}") as service:
        assert "STORE_URL" in await service.wait_for_output("it ignores your")
        await send(service, "ada")
        assert not path.exists()
        assert await service.stop() == 0


# Faults at the start.


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("directory", "is a directory; STORE_URL names a file"),
        ("text", "is not a SQLite database"),
        ("locked", "is in use by another process; one file serves one otpmail"),
    ],
)
async def test_a_store_that_can_not_be_opened(state: dict[str, Any], tmp_path: Path, spoil: str, words: str) -> None:
    """The start ends with exit code 5 and one line that opens with the setting and says what to do."""
    path = tmp_path / "store.db"
    if spoil == "directory":
        path.mkdir()
    elif spoil == "text":
        path.write_text("a text\n" * 1000)
    async with Service(**state) if spoil == "locked" else nullcontext():
        (line,) = await Service(**state).refused(5)
    assert line.startswith(f"STORE_URL: {path} {words}")
