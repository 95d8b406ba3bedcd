"""The methods over HTTP with several processes, which share HTTP_PORT, and probes that speak for all of them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from http1 import SEND_CODE, SEND_MAIL, VALIDATE_CODE, call, request
from service import Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from relay import Relay

_SECONDS = 60  # in which whatever is waited for happens, also on a busy machine
_CALLERS = 40


@pytest.fixture
async def start(state: dict[str, Any]) -> AsyncIterator[Callable[..., Any]]:
    """Start a service of two processes; give it once both serve."""
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> Service:
            several = {"PROCESSES": 2, "HTTP_PORT": 0, "LOG_MAILS": "all", "LOG_ADDRESSES": "full"}
            service = await stack.enter_async_context(Service(**state | several | settings))
            await service.wait_for_log("listening", count=2, timeout=_SECONDS)
            await service.wait_for_log("relay-up", count=2, timeout=_SECONDS)
            return service

        yield start


def _pid(service: Service, process: int) -> int:
    return int(str(service.logged("process-started", process=process)[-1]["pid"]))


def _mail(name: str, wait_for: str = "WAIT_FOR_RELAY") -> dict[str, Any]:
    return {"to": [f"{name}@example.org"], "subject": name, "text": "t", "waitFor": wait_for}


def _processes(service: Service) -> dict[str, object]:
    """Return which process has settled the mails of each caller, by the names of the callers."""
    settled = ((str(line["to"]).partition("-")[0], line["process"]) for line in service.logged("mail-settled"))
    return dict(settled)


async def test_methods_are_served_by_all_processes(start: Callable[..., Any], relay: Relay) -> None:
    """Calls over many connections reach both processes, and a code of one is checked by any of them once."""
    service = await start()
    answers = await asyncio.gather(*(call(service, SEND_MAIL, _mail(f"c{n}-0")) for n in range(_CALLERS)))
    assert {answer.json["mail"]["state"] for answer in answers} == {"STATE_RELAYED"}
    await service.wait_for_log("mail-settled", count=_CALLERS)
    assert set(_processes(service).values()) == {1, 2}
    code = (await call(service, SEND_CODE, {"email": "ada@example.org"})).json["otpCode"]
    checks = [call(service, VALIDATE_CODE, {"email": "ada@example.org", "code": code}) for _ in range(_CALLERS)]
    results = [answer.json["result"] for answer in await asyncio.gather(*checks)]
    assert results.count("RESULT_VALID") == 1
    assert (await request(service, "/openapi.json")).status == 200
    assert (await request(service, "/nothing")).status == 404
    assert len(relay.mails) == _CALLERS + 1
    assert await service.stop() == 0
