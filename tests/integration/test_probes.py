"""/livez and /readyz of `otpmail serve`, asked as the kubelet asks: over HTTP, without a token."""

from __future__ import annotations

import asyncio
import signal
import urllib.error
import urllib.request
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from calls import scrape
from otpmail.v1 import mail_pb2

if TYPE_CHECKING:
    from relay import Relay
    from service import Service


async def _ask(service: Service, path: str) -> tuple[int, str]:
    (line,) = service.logged("metrics")

    def ask() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(str(line["url"]).replace("/metrics", path), timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return await asyncio.to_thread(ask)


@pytest.mark.service(HTTP_PORT=0)
async def test_probes_while_the_relay_goes_and_a_stop_drains(service: Service, relay: Relay) -> None:
    """Ready while a relay is up and no stop has begun, as gRPC health and the metric say; live while it answers."""
    await relay.wait_for_ready(5)  # a dial that is refused while others are open tells of too many connections
    assert await _ask(service, "/readyz") == (200, "ready\n")
    assert await _ask(service, "/livez") == (200, "live\n")
    assert (await scrape(service))["otpmail_ready"] == 1

    relay.faults = replace(relay.faults, greeting="421 4.3.2 closing")
    relay.cut_connections()
    await service.wait_for_log("relay-down")
    problem = "no relay is up: the relay gives no usable connection"
    assert await _ask(service, "/readyz") == (503, f"not ready: {problem}\n")
    assert await _ask(service, "/livez") == (200, "live\n")
    assert (await scrape(service))["otpmail_ready"] == 0

    relay.faults = replace(relay.faults, greeting=None, silent_at="MAIL")
    await service.wait_for_log("relay-up", count=2)
    assert await _ask(service, "/readyz") == (200, "ready\n")

    request = mail_pb2.SendMailRequest(to=["ada@example.org"], text="Hi", wait_for=mail_pb2.WAIT_FOR_QUEUE)
    await service.mail.SendMail(request)
    service.send(signal.SIGTERM)
    await service.wait_for_log("stopping")
    assert await _ask(service, "/readyz") == (503, "not ready: the service is stopping\n")
    assert await _ask(service, "/livez") == (200, "live\n")
