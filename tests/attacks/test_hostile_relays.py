"""Relays that reject, cut, mix up replies and fall silent, with full connections: no recipient gets another's mail.

After each attack, every mail arrived at its own recipient only and every answer is true. A second copy, with the same
Message-ID, exists only where a reply was lost.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from calls import parsed, retry_seconds
from otpmail.v1 import mail_pb2
from relay import Certificates, Faults, Relay
from service import Service, relay_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

RELAYED, FAILED = mail_pb2.Mail.STATE_RELAYED, mail_pb2.Mail.STATE_FAILED
UNCERTAIN = mail_pb2.Mail.STATE_UNCERTAIN
MODES: dict[str, dict[str, Any]] = {
    "bdat": {"auth": ()},
    "data": {"auth": (), "chunking": False},
    "plain": {"auth": (), "chunking": False, "pipelining": False},
}
POINTS = {
    "bdat": ("RSET", "MAIL", "RCPT", "BDAT"),
    "data": ("RSET", "MAIL", "RCPT", "DATA", "."),
    "plain": ("MAIL", "RCPT", "DATA", "."),
}
WINDOW = 16  # the default of EMAIL_WINDOW
REFUSALS = {"MAIL": (0.1, "550 5.7.1 not from you"), "RCPT": (0.1, "550 5.1.1 unknown"), ".": (0.1, "554 5.6.0 no")}


@pytest.fixture
async def attacked(
    request: pytest.FixtureRequest, certificates: Certificates, tmp_path: Path
) -> AsyncIterator[tuple[Service, Relay, Faults]]:
    """Start a relay in a mode, well-behaved at first, and a service with all its connections open."""
    mode, settings = request.param
    workers = settings.get("WORKERS", 3)
    faults = Faults(**MODES[mode])
    async with Relay(faults) as relay:
        known = relay_settings(relay, certificates, tmp_path / "token")
        usual = {"EMAIL_RETRY_SECONDS": 0.05, "WORKERS": workers, "MAIL_WAIT_SECONDS": 30}
        async with Service(**known | usual | settings) as service:
            await service.wait_until_serving()
            await (relay.wait_for_ready if mode == "bdat" else relay.wait_for_idle)(workers)
            if mode != "plain":  # without, it would answer each mail before the next one is there
                faults = replace(faults, delay=0.005)
            yield service, relay, faults


def _in(*modes: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("attacked", [(mode, {}) for mode in modes], indirect=True, ids=modes)


async def _send_many(service: Service, count: int, prefix: str = "p") -> dict[str, mail_pb2.Mail]:
    """Send so many mails at once, each naming its recipient; returns the answers by recipient."""
    turns = asyncio.Semaphore(500)  # past a thousand calls that it has not begun, gRPC's server cancels some

    async def send(person: str) -> mail_pb2.Mail:
        request = mail_pb2.SendMailRequest(to=[person], text=f"for {person}.", request_id=person)
        while True:
            try:
                async with turns:
                    return (await service.mail.SendMail(request)).mail
            except grpc.aio.AioRpcError as error:
                # All connections are gone for a moment: not accepted, and to be sent again when the service says.
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(min(0.2, retry_seconds(error)))

    people = [f"{prefix}{n}@example.org" for n in range(count)]
    return dict(zip(people, await asyncio.gather(*map(send, people)), strict=True))


def _check(told: dict[str, mail_pb2.Mail], relay: Relay) -> None:
    """Compare the answers with what the relay took; a second copy needs a connection that a fault had struck."""
    taken: dict[str, list[int]] = {person: [] for person in told}
    for caught in relay.mails:
        (person,) = caught.recipients
        assert f"\r\n\r\nfor {person}.\r\n".encode() in caught.content
        assert parsed(caught.content)["Message-ID"] == told[person].message_id
        taken[person].append(caught.connection)
    doubles: Counter[int] = Counter()
    for person, mail in told.items():
        copies = taken[person]
        assert {RELAYED: len(copies) >= 1, FAILED: not copies, UNCERTAIN: True}[mail.state], (mail, copies)
        assert mail.state != UNCERTAIN or relay.struck
        assert len(copies) <= mail.attempts, (mail, copies)
        doubles.update(copies[:-1])
    assert set(doubles) <= relay.struck
    assert all(count <= WINDOW for count in doubles.values())


@_in("bdat", "data", "plain")
async def test_refusals_by_chance(attacked: tuple[Service, Relay, Faults], full: bool) -> None:  # noqa: FBT001
    """With random rejections at MAIL, RCPT and the content, each caller gets the outcome of its own mail."""
    service, relay, faults = attacked
    relay.faults = replace(faults, chance=REFUSALS)
    mails = 1500 if full else 400
    told = await _send_many(service, mails)
    _check(told, relay)
    assert Counter(mail.state for mail in told.values())[FAILED] > mails / 10
    assert {mail.recipients[0].code for mail in told.values()} == {250, 550, 554}


@pytest.mark.parametrize("attacked", [("bdat", {"EMAIL_WINDOW": n}) for n in (1, 16)], indirect=True, ids=["1", "16"])
async def test_a_sticky_relay(attacked: tuple[Service, Relay, Faults], full: bool) -> None:  # noqa: FBT001
    """A relay that keeps a rejected transaction open until RSET gets RSET: no mail gets another's recipient."""
    service, relay, faults = attacked
    relay.faults = replace(faults, chance=REFUSALS, sticky_bdat=True)
    told = await _send_many(service, 1000 if full else 300)
    _check(told, relay)
    assert any(mail.state == FAILED for mail in told.values())


def _timeouts(kind: str, seconds: float) -> dict[str, Any]:
    """Return settings under which silence is noticed soon, and no other fault is mistaken for it on a busy machine."""
    names = "EMAIL_TIMEOUT", "EMAIL_COMMAND_TIMEOUT", "EMAIL_FINAL_TIMEOUT"
    return dict.fromkeys(names, seconds) if kind == "silent_at" else {}


@pytest.mark.parametrize(
    ("attacked", "kind"),
    [
        pytest.param((mode, _timeouts(kind, 2.0)), kind, id=f"{mode}-{kind}")
        for mode in MODES
        for kind in ("cut_before_reply", "cut_after_reply", "silent_at", "closing_at", "extra_at")
    ],
    indirect=["attacked"],
)
async def test_faults_at_every_point(attacked: tuple[Service, Relay, Faults], kind: str, full: bool) -> None:  # noqa: FBT001
    """After a cut, silence, 421 or an extra reply all mails arrive, twice at most where a reply was lost."""
    service, relay, faults = attacked
    mode = next(mode for mode, offered in MODES.items() if replace(faults, delay=0.0) == Faults(**offered))
    told: dict[str, mail_pb2.Mail] = {}
    mails = 200 if full else 80  # both fill the windows of all connections
    for point in POINTS[mode]:
        if (mode, kind, point) == ("plain", "extra_at", "MAIL"):
            continue  # see test_a_reply_to_a_command_that_has_not_left
        struck = len(relay.struck)
        fault: dict[str, Any] = {kind: point}
        relay.faults = replace(faults, times=3, **fault)
        told |= await _send_many(service, mails, f"{kind}-{point.strip('.') or 'dot'}-")
        assert len(relay.struck) > struck, point
    _check(told, relay)
    assert [mail for mail in told.values() if mail.state != RELAYED] == []
    if kind == "closing_at":
        assert len(relay.mails) == len(told)


def _one_connection(mode: str, kind: str) -> tuple[str, dict[str, Any]]:
    return mode, {"WORKERS": 1} | _timeouts(kind, 1.0)  # twenty silences in a row


@pytest.mark.parametrize(
    ("attacked", "kind"),
    [
        pytest.param(_one_connection(mode, kind), kind, id=f"{mode}-{kind}")
        for mode in MODES
        for kind in ("cut_before_reply", "cut_after_reply", "silent_at", "closing_at")
    ],
    indirect=["attacked"],
)
async def test_faults_at_every_reply(attacked: tuple[Service, Relay, Faults], kind: str, full: bool) -> None:  # noqa: FBT001
    """A cut before or after the Nth reply, 421 or silence there: no recipient gets another's mail.

    The window is full, and N goes up to 20, which in each mode is the replies to several mails. In the short form only
    every third reply is followed by silence, which takes the time that the service waits for it.
    """
    service, relay, faults = attacked
    told: dict[str, mail_pb2.Mail] = {}
    mails = WINDOW + 4 if faults.chunking else 8
    numbers = range(1, 21, 3 if kind == "silent_at" and not full else 1)
    for attack, number in enumerate(numbers, 1):
        # The connections of two rounds end at counts far apart, which the service does not take for a limit.
        told |= await _send_many(service, 40 * (attack % 2), f"{kind}-{number}-before-")
        await relay.wait_for_open(1)
        await relay.wait_for_idle(1)
        relay.recount()
        fault: dict[str, Any] = {kind: number}
        relay.faults = replace(faults, times=1, **fault)
        told |= await _send_many(service, mails, f"{kind}-{number}-")
        assert len(relay.struck) == attack
        relay.faults = faults
    _check(told, relay)
    assert [mail for mail in told.values() if mail.state != RELAYED] == []
    if kind == "closing_at":
        assert len(relay.mails) == len(told)


@_in("plain")
async def test_a_reply_to_a_command_that_has_not_left(attacked: tuple[Service, Relay, Faults]) -> None:
    """In plain mode an extra reply behind that to MAIL is not taken for the one to RCPT, which is not sent yet."""
    service, relay, faults = attacked
    relay.faults = replace(faults, times=1, extra_at="MAIL")
    told = await _send_many(service, 20)
    _check(told, relay)
    assert [mail for mail in told.values() if mail.state != RELAYED] == []


@pytest.mark.parametrize("reply", ["250 2.0.0 ok\r\n354 go on", "354 go on"])
@_in("bdat", "data", "plain")
async def test_odd_replies_at_the_content(attacked: tuple[Service, Relay, Faults], reply: str) -> None:
    """An impossible reply, in place of the right one or behind it, mixes up no mails in full windows."""
    service, relay, faults = attacked
    relay.faults = replace(faults, final_reply=reply, times=2)
    told = await _send_many(service, 100)
    _check(told, relay)
    assert {mail.state for mail in told.values()} == {RELAYED}


@pytest.mark.parametrize(
    "helps_with_250", [pytest.param(helps, marks=pytest.mark.relay(helps_with_250=helps)) for helps in (False, True)]
)
@pytest.mark.relay(auth=(), runs_refused_chunks=True)
@pytest.mark.service(WORKERS=3, LOG_LEVEL="debug")
async def test_a_relay_that_runs_refused_chunks(service: Service, relay: Relay, helps_with_250: bool) -> None:  # noqa: FBT001
    """A relay that runs rejected chunks is recognised before the first mail, so it never runs content as commands."""
    assert relay.faults.helps_with_250 is helps_with_250
    relay.faults = replace(relay.faults, chance=REFUSALS)
    told = await _send_many(service, 300)
    _check(told, relay)
    assert {caught.mode for caught in relay.mails} == {"DATA"}
    verbs = {command.line.partition(" ")[0].partition(":")[0] for command in relay.commands}
    assert verbs <= {"EHLO", "BDAT", "XNIL", "RSET", "MAIL", "RCPT", "DATA", ".", "QUIT"}
    assert len(service.logged("chunks-unsafe")) == 1
