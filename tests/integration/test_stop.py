"""The stop: mails that can be sent are sent, waiting callers get an answer, and a second signal ends it at once."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import otpmail
from calls import reason
from guaranteed import LastCalls, names
from otpmail.v1 import mail_pb2
from relay import Faults
from service import FAILS_ON_SIGNAL, Service, relay_settings

if TYPE_CHECKING:
    from relay import Certificates, Relay


def _request(number: int, wait_for: mail_pb2.WaitFor.ValueType) -> mail_pb2.SendMailRequest:
    return mail_pb2.SendMailRequest(to=[f"p{number}@example.org"], subject="s", text="t", wait_for=wait_for)


@pytest.mark.relay(delay=0.005)
@pytest.mark.service(LOG_LEVEL="debug", EMAIL_MAX_MESSAGES=1000)  # else a successor may be in the dialling
async def test_a_stop_under_load(service: Service, relay: Relay) -> None:
    """SIGTERM with 200 mails queued and in flight loses none: each caller gets RELAYED, each mail arrives."""
    await relay.wait_for_ready(5)  # one that is being dialled when the stop comes gets no QUIT
    waited = [asyncio.ensure_future(service.mail.SendMail(_request(n, mail_pb2.WAIT_FOR_RELAY))) for n in range(100)]
    guaranteed = [await service.mail.SendMail(_request(n, mail_pb2.WAIT_FOR_QUEUE)) for n in range(100, 200)]
    await service.wait_for_log("mail-accepted", count=200)
    service.send(signal.SIGTERM)
    answers = await asyncio.gather(*waited)
    assert await service.wait_exited() == 0
    assert {answer.mail.state for answer in answers} == {mail_pb2.Mail.STATE_RELAYED}
    assert len(guaranteed) == 100
    arrived = [mail.recipients[0] for mail in relay.mails]
    assert sorted(arrived) == sorted(f"p{n}@example.org" for n in range(200))
    last = service.log[-1]
    assert (last["event"], last["sent"], last["kept"], last["failed"], last["lost"]) == ("stopped", 200, 0, 0, 0)
    assert last["message"] == "stopped: 200 mails sent"
    await relay.wait_for_open(0)  # so that the relay has read all that was sent
    assert sum(command.line == "QUIT" for command in relay.commands) == relay.connections


@pytest.mark.parametrize("connections", [1, 64])
@pytest.mark.relay(delay=0.005)
async def test_callers_during_a_stop(service: Service, relay: Relay, connections: int) -> None:
    """Each of 64 callers that call during a stop has an OK, or UNAVAILABLE that says when to call again."""
    callers = LastCalls()
    running = asyncio.create_task(callers.run(service, connections=connections))
    await callers.wait_for_promises(200)
    assert await service.stop() == 0
    await running
    assert callers.unanswered() == []
    assert len(callers.refusals) == 64
    assert callers.promised <= set(names(relay.mails))


@pytest.mark.relay(chunking=False, silent_at="DATA")
@pytest.mark.service(DRAIN_SECONDS=0.5, WORKERS=1, LOG_LEVEL="debug")
async def test_what_does_not_fit_into_the_drain_time(service: Service, relay: Relay) -> None:
    """After DRAIN_SECONDS the rest is failed: UNAVAILABLE to waiting callers, and counted in the last line."""
    calls = [asyncio.ensure_future(service.mail.SendMail(_request(n, mail_pb2.WAIT_FOR_RELAY))) for n in range(3)]
    await service.wait_for_log("mail-accepted", count=3)
    await relay.wait_for_command("DATA")
    assert await service.stop() == 0
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(outcome, grpc.aio.AioRpcError)
        assert outcome.code() is grpc.StatusCode.UNAVAILABLE
    last = service.log[-1]
    assert (last["event"], last["sent"], last["out_of_time"]) == ("stopped", 0, 3)
    assert last["message"] == "stopped: 3 mails failed for lack of time"


async def test_a_stop_with_nothing_to_do(service: Service) -> None:
    """The lines of a stop name no count that is 0; their JSON has each number all the same."""
    assert await service.stop() == 0
    first, last = service.log[-2:]
    assert (first["message"], first["waiting"]) == ("stopping", 0)
    assert last["message"] == "stopped"
    assert [last[name] for name in ("sent", "kept", "failed", "out_of_time", "lost", "uncertain")] == [0] * 6


@pytest.mark.relay(chunking=False, silent_at="DATA", times=1)
@pytest.mark.service(WORKERS=1)
async def test_while_stopping(service: Service, relay: Relay) -> None:
    """A service that drains is NOT_SERVING and accepts no new calls, and health watchers do not delay it."""
    running = asyncio.ensure_future(service.mail.SendMail(_request(1, mail_pb2.WAIT_FOR_RELAY)))
    await relay.wait_for_command("DATA")
    stub: Any = health_pb2_grpc.HealthStub(service.channel)  # whose types know no methods
    health = aiter(stub.Watch(health_pb2.HealthCheckRequest()))
    assert (await anext(health)).status == health_pb2.HealthCheckResponse.SERVING
    service.send(signal.SIGTERM)
    assert (await anext(health)).status == health_pb2.HealthCheckResponse.NOT_SERVING
    await service.wait_for_log("stopping")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.mail.SendMail(_request(2, mail_pb2.WAIT_FOR_QUEUE))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    relay.faults = Faults()
    relay.cut_connections()
    assert (await running).mail.state == mail_pb2.Mail.STATE_RELAYED
    assert await service.wait_exited() == 0


@pytest.mark.relay(chunking=False, silent_at="DATA")
async def test_a_second_signal(service: Service, relay: Relay) -> None:
    """A second Ctrl-C ends the process at once with the signal's exit code, and logs how many mails are lost."""
    call = asyncio.ensure_future(service.mail.SendMail(_request(1, mail_pb2.WAIT_FOR_RELAY)))
    await relay.wait_for_command("DATA")
    service.send(signal.SIGINT)
    stopping = await service.wait_for_log("stopping")
    assert "1 mail to settle" in str(stopping["message"])
    assert "a second signal stops at once" in str(stopping["message"])
    assert await service.stop(signal.SIGINT, timeout=10) == 130
    last = service.log[-1]
    assert (last["event"], last["level"], last["unsettled"]) == ("stopped-at-once", "warning", 1)
    assert "1 mail had not settled" in str(last["message"])
    with pytest.raises(grpc.aio.AioRpcError):
        await call


@pytest.mark.service(EMAIL_PORT=1, EMAIL_SECURITY="plain", DRAIN_SECONDS=0.2, wait=False)
async def test_a_stop_without_a_relay(service: Service) -> None:
    """Guaranteed mails that a stop loses are an error with their number and exit code 1; others are counted apart."""
    await service.wait_for_log("relay-down")
    for number in range(4):
        await service.mail.SendMail(_request(number, mail_pb2.WAIT_FOR_QUEUE))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.mail.SendMail(_request(9, mail_pb2.WAIT_FOR_RELAY))
    assert reason(caught.value) == "RELAY_DOWN"
    assert await service.stop() == 1
    last = service.log[-1]
    assert (last["event"], last["level"], last["out_of_time"], last["lost"], last["kept"]) == (
        "stopped",
        "error",
        4,
        4,
        0,
    )
    assert str(last["message"]).endswith("; 4 guaranteed mails are lost")


@pytest.mark.relay(chunking=False, silent_at=".")
@pytest.mark.service(DRAIN_SECONDS=0.2, WORKERS=1)
async def test_a_stop_that_does_not_know(service: Service, relay: Relay) -> None:
    """A guaranteed mail whose content the relay has, and has not answered, is lost but may have been taken."""
    await service.mail.SendMail(_request(1, mail_pb2.WAIT_FOR_QUEUE))
    await relay.wait_for_command("DATA")
    assert await service.stop() == 1
    last = service.log[-1]
    assert (last["level"], last["lost"], last["uncertain"]) == ("error", 1, 1)
    assert str(last["message"]).endswith("; 1 guaranteed mail is lost, but the relay may have taken 1 of them")


@pytest.mark.relay(chunking=False, silent_at="DATA")
async def test_a_second_signal_with_guaranteed_mails(service: Service, relay: Relay) -> None:
    """A second SIGTERM that loses guaranteed mails says how many, as an error, and ends with 143."""
    await service.mail.SendMail(_request(1, mail_pb2.WAIT_FOR_QUEUE))
    await relay.wait_for_command("DATA")
    service.send(signal.SIGTERM)
    await service.wait_for_log("stopping")
    assert await service.stop(signal.SIGTERM, timeout=10) == 143
    last = service.log[-1]
    assert (last["event"], last["level"], last["unsettled"], last["lost"]) == ("stopped-at-once", "error", 1, 1)


@pytest.mark.relay(chunking=False, silent_at="DATA")
async def test_a_part_that_fails(relay: Relay, certificates: Certificates, tmp_path: Path) -> None:
    """A failed part ends the process, which logs why, and waiting callers get UNAVAILABLE."""
    (tmp_path / "sitecustomize.py").write_text(FAILS_ON_SIGNAL)
    settings = relay_settings(relay, certificates, tmp_path / "token")
    sources = str(Path(otpmail.__file__).parents[1])
    async with Service(**settings, HTTP_PORT=0, PYTHONPATH=f"{tmp_path}:{sources}") as service:
        call = asyncio.ensure_future(service.mail.SendMail(_request(1, mail_pb2.WAIT_FOR_RELAY)))
        await relay.wait_for_command("DATA")
        service.send(signal.SIGUSR1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert reason(caught.value) == "UNAVAILABLE"
        assert await service.wait_exited() == 1
        (stopped,), failure = service.logged("stopped"), service.log[-1]
        assert (stopped["event"], stopped["level"], stopped["out_of_time"]) == ("stopped", "error", 1)
        assert (failure["event"], failure["level"]) == ("error", "critical")
        assert "RuntimeError: boom" in str(failure["exception"])
