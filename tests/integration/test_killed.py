"""A process that is killed while it sends: what it may have sent is not sent twice with EMAIL_ON_UNCERTAIN=fail."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from guaranteed import names, redis_settings, request, send, sqlite_settings
from otpmail.v1 import mail_pb2
from relay import Faults
from service import Service, relay_settings

if TYPE_CHECKING:
    from pathlib import Path

    from relay import Certificates, Relay

Mail = mail_pb2.Mail
_SILENT = Faults(chunking=False, silent_at=".")
_ENDED = "the service ended while it was sending this mail, so the relay may have it"


@pytest.fixture(params=["sqlite", "redis"])
def state(request: pytest.FixtureRequest, relay: Relay, certificates: Certificates, tmp_path: Path) -> dict[str, Any]:
    """Return the settings of a service with its store in a file of the test, or on a server."""
    settings = relay_settings(relay, certificates, tmp_path / "token") | {"WORKERS": 1}
    if request.param == "sqlite":
        return settings | sqlite_settings(tmp_path / "store.db")
    return settings | redis_settings(request.getfixturevalue("redis"), lease=1)


async def _settled(service: Service, mail_id: str) -> Mail:
    async with asyncio.timeout(30):
        return [mail async for mail in service.mail.WatchMail(mail_pb2.WatchMailRequest(id=mail_id))][-1]


@pytest.mark.parametrize(("on_uncertain", "copies"), [("fail", 1), ("retry", 2)])
async def test_a_kill_before_the_reply(state: dict[str, Any], relay: Relay, on_uncertain: str, copies: int) -> None:
    """A mail that the relay has when the process is killed is UNCERTAIN with `fail`, and goes again with `retry`."""
    relay.faults = _SILENT
    async with Service(**state, EMAIL_ON_UNCERTAIN=on_uncertain) as service:
        sent = await send(service, "ada", request_id="r1")
        await relay.wait_for_mails(1)
        await service.kill()
    relay.faults = Faults()
    async with Service(**state, EMAIL_ON_UNCERTAIN=on_uncertain) as service:
        mail = await _settled(service, sent.id)
        await send(service, "bob")
        await relay.wait_for_mails(copies + 1)
        if on_uncertain == "fail":
            assert (mail.state, mail.recipients[0].reply) == (Mail.STATE_UNCERTAIN, _ENDED)
        else:
            assert mail.state == Mail.STATE_RELAYED
        assert (await send(service, "ada", request_id="r1")).state == mail.state
        assert await service.stop() == 0
    assert names(relay.mails).count("ada") == copies
    assert len({caught.content for caught in relay.mails if "ada" in caught.recipients[0]}) == 1


async def test_a_kill_before_anything_was_sent(state: dict[str, Any], relay: Relay) -> None:
    """With `fail` a mail that only waited when the process was killed is sent, once."""
    async with Service(**state | {"EMAIL_PORT": 1}, EMAIL_ON_UNCERTAIN="fail") as service:
        sent = await send(service, "ada")
        await service.wait_for_log("relay-down")
        await service.kill()
    async with Service(**state, EMAIL_ON_UNCERTAIN="fail") as service:
        assert (await _settled(service, sent.id)).state == Mail.STATE_RELAYED
        assert await service.stop() == 0
    assert names(relay.mails) == ["ada"]


async def test_a_kill_after_the_relay_deferred(state: dict[str, Any], relay: Relay) -> None:
    """With `fail` a mail that the relay has deferred is no longer uncertain, and is sent by the next process."""
    relay.faults = Faults(final_reply="451 4.3.0 later")
    async with Service(**state, EMAIL_ON_UNCERTAIN="fail") as service:
        sent = await send(service, "ada")
        await service.wait_for_log("mail-deferred", mail=sent.id)
        await send(service, "bob")  # whose commit holds the progress of the first
        await service.kill()
    relay.faults = Faults()
    async with Service(**state, EMAIL_ON_UNCERTAIN="fail") as service:
        assert (await _settled(service, sent.id)).state == Mail.STATE_RELAYED
        assert await service.stop() == 0
    assert names(relay.mails).count("ada") == 1


async def test_a_kill_while_a_caller_waits(state: dict[str, Any], relay: Relay) -> None:
    """With `fail` a repeated call for a mail that a killed process may have sent has UNCERTAIN, and sends no copy."""
    relay.faults = _SILENT
    asked = request("ada", request_id="r1", wait_for=mail_pb2.WAIT_FOR_RELAY)
    async with Service(**state, EMAIL_ON_UNCERTAIN="fail") as service:
        await service.wait_until_serving()
        call = service.mail.SendMail(asked)
        await relay.wait_for_mails(1)
        await service.kill()
        await asyncio.wait((asyncio.ensure_future(call),))
    relay.faults = Faults()
    async with Service(**state, EMAIL_ON_UNCERTAIN="fail") as service:
        for _ in range(2):
            mail = (await service.mail.SendMail(asked)).mail
            assert (mail.state, mail.recipients[0].reply) == (Mail.STATE_UNCERTAIN, _ENDED)
        assert await service.stop() == 0
    assert names(relay.mails) == ["ada"]


async def _ends(service: Service, mail_id: str) -> Mail | None:
    """Return a mail once it has settled, or None once the process has ended."""
    watching = asyncio.create_task(_settled(service, mail_id))
    ended = asyncio.create_task(service.wait_exited())
    await asyncio.wait((watching, ended), return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    [found] = await asyncio.gather(watching, return_exceptions=True)
    return found if isinstance(found, Mail) else None


async def test_a_mail_that_kills_the_process_is_parked(state: dict[str, Any], relay: Relay) -> None:
    """A mail at which three processes die is FAILED in the next, and all others of their time are sent."""
    running: list[Service] = []

    def poisoned(content: bytes) -> str:
        if b"poison" in content:
            os.kill(running[-1].pid, signal.SIGKILL)
        return "250 2.0.0 taken"

    async with Service(**state | {"EMAIL_PORT": 1}, DRAIN_SECONDS=0.1) as first:
        others = [(await send(first, f"n{number}")).id for number in range(20)]
        poison = await send(first, "poison")
        others += [(await send(first, f"m{number}")).id for number in range(20)]
        await first.stop()
    relay.faults, parked = Faults(chunking=False, final_reply=poisoned), None
    while parked is None and len(running) < 10:
        async with Service(**state) as service:
            running.append(service)
            parked = await _ends(service, poison.id)
            if parked is not None:
                for mail_id in others:
                    assert (await _settled(service, mail_id)).state == Mail.STATE_RELAYED
                assert await service.stop() == 0
    assert len(running) == 4
    assert parked is not None
    assert parked.state == Mail.STATE_FAILED
    assert parked.recipients[0].reply == "not sent again: 3 times the service ended while it was sending this mail"
    assert set(names(relay.mails)) == {f"{letter}{number}" for letter in "nm" for number in range(20)} | {"poison"}
    assert names(relay.mails).count("poison") == 3
