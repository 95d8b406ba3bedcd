"""The original's flows from a Node client that loads the contract at run time; see node/flows.mjs."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from node_programs import install_modules, program
from relay import Faults, Relay
from service import Service, relay_settings

if TYPE_CHECKING:
    from relay import CaughtMail, Certificates

_FOLDER = Path(__file__).with_name("node")
_TARGET = "target@example.org"
_LIFESPAN = 2
_RUN_SECONDS = 40
_FLOWS = (
    "send_and_validate",
    "no_double_use",
    "wrong_then_right",
    "expiry",
    "empty_recipient",
    "ten_at_once",
    "send_mail",
)
_MAILS = 15  # one a code, of which ten_at_once sends ten, and that of send_mail


@dataclass(frozen=True)
class Run:
    """The output of a run of all flows, and the mails that reached the relay."""

    flows: dict[str, dict[str, Any]]
    mails: list[CaughtMail]
    errors: str


@pytest.fixture(scope="module")
def run(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run all flows once, one after the other on one service, as the original's client does."""
    node = program("node")
    install_modules(_FOLDER)
    return asyncio.run(_run(node, certificates, tmp_path_factory.mktemp("node") / "token"))


@pytest.mark.parametrize("flow", _FLOWS)
def test_a_flow_of_the_original(run: Run, flow: str) -> None:
    """A client of the original works against this service unchanged."""
    assert flow in run.flows, run.errors
    assert run.flows[flow]["ok"], run.flows[flow]["detail"]


def test_every_flow_is_looked_at(run: Run) -> None:
    """Each flow that is run has a test that reads its outcome."""
    assert tuple(run.flows) == _FLOWS, run.errors


def test_each_success_is_a_mail_at_the_relay(run: Run) -> None:
    """The mails that the client was answered as sent have reached the relay, and no others."""
    assert [mail.recipients for mail in run.mails] == [(_TARGET,)] * _MAILS


async def _run(node: str, certificates: Certificates, token_file: Path) -> Run:
    async with (
        Relay(Faults(), certificates=certificates) as relay,
        Service(
            **relay_settings(relay, certificates, token_file),
            OTP_RETURN_CODE=True,
            OTP_LIFESPAN_SECONDS=_LIFESPAN,
        ) as service,
    ):
        await service.wait_until_serving()
        environment = {
            "PATH": os.environ["PATH"],
            "OTPMAIL_ADDRESS": service.address,
            "TARGET": _TARGET,
            "OTP_LIFESPAN_SECONDS": str(_LIFESPAN),
        }
        process = await asyncio.create_subprocess_exec(
            node, "flows.mjs", cwd=_FOLDER, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            async with asyncio.timeout(_RUN_SECONDS):
                printed, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        lines = [json.loads(line) for line in printed.splitlines()]
        return Run({line["flow"]: line for line in lines}, list(relay.mails), errors.decode())
