"""Relays that refuse, cut, mix up and fall silent, with the connections full of mail: nobody gets another's mail.

After each: a mail arrived only at its own recipient, what callers were told is what happened, and a second copy, with
the same Message-ID, is only there where a reply was lost.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from integration.calls import parsed, retry_seconds
from otpmail.v1 import mail_pb2
from relay import Certificates, Faults, Relay
from service import Service, relay_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

RELAYED, FAILED = mail_pb2.Mail.RELAYED, mail_pb2.Mail.FAILED
UNCERTAIN = mail_pb2.Mail.UNCERTAIN
MODES: dict[str, dict[str, Any]] = {
    "bdat": {"auth": ()},
    "data": {"auth": (), "chunking": False},
    "plain": {"auth": (), "chunking": False, "pipelining": False},
}
POINTS = [
    *[("bdat", point) for point in ("RSET", "MAIL", "RCPT", "BDAT")],
    *[("data", point) for point in ("RSET", "MAIL", "RCPT", "DATA", ".")],
    *[("plain", point) for point in ("MAIL", "RCPT", "DATA", ".")],
]
REFUSALS = {"MAIL": (0.1, "550 5.7.1 not from you"), "RCPT": (0.1, "550 5.1.1 unknown"), ".": (0.1, "554 5.6.0 no")}


@pytest.fixture
async def attacked(
    request: pytest.FixtureRequest, certificates: Certificates, tmp_path: Path
) -> AsyncIterator[tuple[Service, Relay, Faults]]:
    """Start a relay in a mode, well-behaved at first, and a service with all its connections open."""
    mode, settings = request.param
    faults = Faults(**MODES[mode])
    async with Relay(faults) as relay:
        known = relay_settings(relay, certificates, tmp_path / "token")
        short = {"EMAIL_TIMEOUT": 0.4, "EMAIL_FINAL_TIMEOUT": 0.4, "EMAIL_RETRY_SECONDS": 0.05, "WORKERS": 3}
        async with Service(**known | short | {"MAIL_WAIT_SECONDS": 30} | settings) as service:
            await service.wait_until_serving()
            if mode == "bdat":
                await relay.wait_for_command("RSET", 3)  # the last thing that a new connection says
            await relay.wait_for_idle(3)
            yield service, relay, faults


def _in(*modes: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("attacked", [(mode, {}) for mode in modes], indirect=True, ids=modes)


async def _send_many(service: Service, count: int) -> dict[str, mail_pb2.Mail]:
    """Send so many mails at once, each naming its recipient; returns what each caller was told."""

    async def send(person: str) -> mail_pb2.Mail:
        request = mail_pb2.SendMailRequest(to=[person], text=f"for {person}.", request_id=person)
        while True:
            try:
                return (await service.mail.SendMail(request)).mail
            except grpc.aio.AioRpcError as error:
                # All connections are gone for a moment: not accepted, and to be sent again when the service says.
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(min(0.2, retry_seconds(error)))

    people = [f"p{n}@example.org" for n in range(count)]
    return dict(zip(people, await asyncio.gather(*map(send, people)), strict=True))


def _check(told: dict[str, mail_pb2.Mail], relay: Relay, *, may_double: bool) -> None:
    copies: Counter[str] = Counter()
    for caught in relay.mails:
        (person,) = caught.recipients
        assert f"for {person}.".encode() in caught.content
        assert parsed(caught.content)["Message-ID"] == told[person].message_id
        copies[person] += 1
    for person, mail in told.items():
        if mail.state == RELAYED:
            assert copies[person] >= 1
        elif mail.state == FAILED:
            assert copies[person] == 0
        else:
            assert mail.state == UNCERTAIN
            assert may_double
    assert may_double or max(copies.values()) == 1


@_in("bdat", "data", "plain")
async def test_refusals_by_chance(attacked: tuple[Service, Relay, Faults]) -> None:
    """Refused at MAIL, RCPT or the content at random among many in flight, each caller is told of its own mail."""
    service, relay, faults = attacked
    relay.faults = replace(faults, chance=REFUSALS)
    told = await _send_many(service, 1000)
    _check(told, relay, may_double=False)
    assert Counter(mail.state for mail in told.values())[FAILED] > 150
    assert {mail.recipients[0].code for mail in told.values()} == {250, 550, 554}


@pytest.mark.parametrize("attacked", [("bdat", {"EMAIL_WINDOW": n}) for n in (1, 16)], indirect=True, ids=["1", "16"])
async def test_a_sticky_relay(attacked: tuple[Service, Relay, Faults]) -> None:
    """A relay that keeps a refused transaction open until RSET gets RSET: nobody is put on another's mail."""
    service, relay, faults = attacked
    relay.faults = replace(faults, chance=REFUSALS, sticky_bdat=True)
    told = await _send_many(service, 1000)
    _check(told, relay, may_double=False)
    assert any(mail.state == FAILED for mail in told.values())


@pytest.mark.parametrize("kind", ["cut_before_reply", "cut_after_reply", "silent_at"])
@pytest.mark.parametrize(
    ("attacked", "point"), [((mode, {}), point) for mode, point in POINTS], indirect=["attacked"], ids=map(str, POINTS)
)
async def test_cut_or_silent_at_every_point(attacked: tuple[Service, Relay, Faults], point: str, kind: str) -> None:
    """Wherever connections end, every mail arrives, twice at most where its reply was lost, and only at its own."""
    service, relay, faults = attacked
    changes: dict[str, Any] = {kind: point}
    relay.faults = replace(faults, times=2, **changes)
    told = await _send_many(service, 60)
    _check(told, relay, may_double=True)
    assert {mail.state for mail in told.values()} == {RELAYED}
    assert len(relay.mails) <= 60 + 2 * 16


@pytest.mark.parametrize("reply", ["421 4.3.2 shutting down", "250 2.0.0 ok\r\n250 2.0.0 one too many", "354 go on"])
@_in("bdat", "data", "plain")
async def test_odd_replies_at_the_content(attacked: tuple[Service, Relay, Faults], reply: str) -> None:
    """A goodbye, a reply too many, or one that can't be, in the middle of full windows: each mail is still its own."""
    service, relay, faults = attacked
    relay.faults = replace(faults, final_reply=reply, times=2)
    told = await _send_many(service, 100)
    _check(told, relay, may_double=True)
    assert {mail.state for mail in told.values()} == {RELAYED}


@pytest.mark.parametrize("point", ["refuse_sender", "refuse_data"])
@_in("data", "plain")
async def test_421_before_the_content(attacked: tuple[Service, Relay, Faults], point: str) -> None:
    """A goodbye before the content was sent takes no mail along, and doubles none."""
    service, relay, faults = attacked
    changes: dict[str, Any] = {point: "421 4.3.2 shutting down"}
    relay.faults = replace(faults, times=2, **changes)
    told = await _send_many(service, 100)
    _check(told, relay, may_double=False)
    assert {mail.state for mail in told.values()} == {RELAYED}


@pytest.mark.relay(auth=(), runs_refused_chunks=True)
@pytest.mark.service(WORKERS=3, LOG_LEVEL="debug")
async def test_a_relay_that_runs_refused_chunks(service: Service, relay: Relay) -> None:
    """It is found out before the first mail; mails go by DATA, and no content was ever run as commands."""
    relay.faults = replace(relay.faults, chance=REFUSALS)
    told = await _send_many(service, 300)
    _check(told, relay, may_double=False)
    assert {caught.mode for caught in relay.mails} == {"DATA"}
    verbs = {command.line.partition(" ")[0].partition(":")[0] for command in relay.commands}
    assert verbs <= {"EHLO", "BDAT", "HELP", "RSET", "MAIL", "RCPT", "DATA", ".", "QUIT"}
    assert len(service.logged("chunks-unsafe")) == 1
