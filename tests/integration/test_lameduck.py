"""LAMEDUCK_SECONDS: a stop that first tells the mesh, and then its callers."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest
from grpc_health.v1 import health_pb2

from otpmail.v1 import mail_pb2

if TYPE_CHECKING:
    from service import Service

_MAIL = mail_pb2.SendMailRequest(to=["ada@example.org"], text="Hi")


@pytest.mark.service(LAMEDUCK_SECONDS=600)
async def test_calls_are_taken_while_health_says_no(service: Service) -> None:
    """After SIGTERM health is NOT_SERVING at once, and calls are answered as before; a second SIGTERM ends it."""
    service.send(signal.SIGTERM)
    await service.wait_for_health(health_pb2.HealthCheckResponse.NOT_SERVING)
    for _ in range(3):
        assert (await service.mail.SendMail(_MAIL)).mail.state == mail_pb2.Mail.STATE_RELAYED
    assert await service.stop() == 143


@pytest.mark.service(LAMEDUCK_SECONDS="500ms")
async def test_the_stop_goes_on_after_it(service: Service) -> None:
    """After that time the stop is in order: what was accepted meanwhile is sent, and the exit code is 0."""
    service.send(signal.SIGTERM)
    await service.wait_for_log("stopping")
    queued = mail_pb2.SendMailRequest(to=["ada@example.org"], text="Hi", wait_for=mail_pb2.WAIT_FOR_QUEUE)
    accepted = await asyncio.gather(*(service.mail.SendMail(queued) for _ in range(20)), return_exceptions=True)
    assert await service.wait_exited() == 0
    (line,) = service.logged("stopped")
    assert line["sent"] == sum(isinstance(answer, mail_pb2.SendMailResponse) for answer in accepted)
