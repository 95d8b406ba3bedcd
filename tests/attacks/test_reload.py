"""SIGHUP under load: a reload does not hold the loop, however much there is to read."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import otpmail
from attacks.probe import ProbedService
from calls import send_to
from otpmail.v1 import mail_pb2
from service import relay_settings

if TYPE_CHECKING:
    from relay import Certificates, Relay

_WORDS = Path(otpmail.__file__).parent / "templates" / "code" / "en.toml"
_LANGUAGES = 200
_PEOPLE = [f"p{number}@example.org" for number in range(100)]


async def test_a_reload_does_not_hold_the_loop(
    relay: Relay, certificates: Certificates, tmp_path: Path, longest_turn: float
) -> None:
    """Hundreds of templates that change are compiled beside the loop, which mails and codes go through meanwhile."""
    templates = tmp_path / "templates"
    for tag in ("en", *(f"x{number}" for number in range(_LANGUAGES))):
        (templates / tag).mkdir(parents=True)
        for name in ("body.txt", "body.html"):
            (templates / tag / f"{name}.j2").write_text(f'{{% extends "otpmail/{name}.j2" %}}')
        (templates / tag / "subject.txt.j2").write_text("A code")
        (templates / tag / "words.toml").write_text(_WORDS.read_text())
    settings: dict[str, Any] = relay_settings(relay, certificates, tmp_path / "token")
    async with ProbedService(tmp_path, **settings, OTP_TEMPLATES_DIR=templates) as service:
        await service.wait_until_serving()

        async def reload() -> None:
            count = len(service.logged("reloaded"))
            for number in range(_LANGUAGES):
                (templates / f"x{number}" / "subject.txt.j2").write_text(f"Changed {count}\n")
            service.send(signal.SIGHUP)
            answers = await send_to(service, _PEOPLE, at_once=5)
            assert {mail.state for mail in answers.values()} == {mail_pb2.Mail.STATE_RELAYED}
            line = await service.wait_for_log("reloaded", count=count + 1)
            assert line["changed"] == ["OTP_TEMPLATES_DIR"]

        assert await service.longest_turn_of(reload, within=longest_turn) <= longest_turn
