"""A Redis server that stops, dies, forgets or refuses under two replicas: no code valid twice, no promise broken."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from grpc_health.v1 import health_pb2

from guaranteed import Callers, Copies, names, redis_settings
from otpmail.v1 import otp_pb2
from people import People
from redis_layouts import WatchedServers
from redis_server import RedisServer
from service import Service, relay_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from relay import Certificates, Relay

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
Result = otp_pb2.ValidateCodeResponse
CODES = 20  # that must be valid before and after each fault
NOTICED_SECONDS = {True: 2.0, False: 15.0}  # as is promised; in the short form, on a machine that is busy with others


class Load:
    """People with codes and callers with guaranteed mails, on two replicas."""

    def __init__(self, replicas: list[Service]) -> None:
        """Prepare; `running` begins it."""
        self.replicas = replicas
        self.people = People(replicas)
        self.callers = Callers(at_once=8)

    def __str__(self) -> str:
        """Return the figures for a person."""
        return f"{self.people}; {len(self.callers.promised)} mails promised, {self.callers.refused} refused"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Come and call until the block ends."""
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.people.run(stop))
            for replica in self.replicas:
                tasks.create_task(self.callers.run(replica, stop=stop))
            yield
            stop.set()

    async def noticed(self, status: int) -> float:
        """Wait until each replica's health is that, and return how many seconds it took."""
        started = time.monotonic()
        await asyncio.gather(*(replica.wait_for_health(status, timeout=30) for replica in self.replicas))
        return time.monotonic() - started

    async def check(self, relay: Relay) -> Copies:
        """Type all codes again, wait for all promised mails, and return how often each of them has come."""
        assert self.people.valid
        assert self.callers.promised
        await self.people.type_all_again()
        async with asyncio.timeout(60):
            while not self.callers.promised.keys() <= set(names(relay.mails)):  # noqa: ASYNC110  each mail counts
                await asyncio.sleep(0.05)
        assert not self.people.twice
        mails = [mail for mail in relay.mails if mail.recipients[0].startswith("p")]
        return Copies(self.callers.promised, mails)


@asynccontextmanager
async def _load(settings: dict[str, Any]) -> AsyncIterator[Load]:
    async with AsyncExitStack() as stack:
        replicas = [
            await stack.enter_async_context(Service(**settings, OTP_RETURN_CODE=True, WORKERS=5)) for _ in range(2)
        ]
        for replica in replicas:
            await replica.wait_until_serving()
        yield Load(replicas)


@pytest.fixture
def server() -> RedisServer:
    """A server of the test's own, which is not started yet."""
    return RedisServer()


@pytest.fixture
def relay_state(relay: Relay, certificates: Certificates, tmp_path: Path) -> dict[str, Any]:
    """Return the settings of the relay."""
    return relay_settings(relay, certificates, tmp_path / "token")


def _fill(server: RedisServer) -> None:
    server.command("CONFIG", "SET", "maxmemory", 1)


def _make_room(server: RedisServer) -> None:
    server.command("CONFIG", "SET", "maxmemory", 256 << 20)


AWAY: dict[str, tuple[Callable[[RedisServer], None], Callable[[RedisServer], None]]] = {
    "stopped": (RedisServer.pause, RedisServer.resume),
    "killed": (RedisServer.kill, RedisServer.start),
    "made a replica": (RedisServer.demote, RedisServer.promote),
    "without memory": (_fill, _make_room),
}
FORGETS = ((("SCRIPT", "FLUSH"), Result.RESULT_VALID), (("FLUSHALL",), Result.RESULT_NO_LIVE_CODE))


@pytest.mark.timeout(300)
async def test_a_server_that_is_away(
    relay_state: dict[str, Any], relay: Relay, server: RedisServer, show: Callable[[str], None], *, full: bool
) -> None:
    """While the server is down calls are UNAVAILABLE and health says so; then all goes on, and no promise is broken."""
    with server:
        async with _load(relay_state | redis_settings(server)) as load:
            async with load.running():
                for fault, (leave, come_back) in AWAY.items():
                    await load.people.wait_for_valid(CODES)
                    leave(server)
                    away = await load.noticed(NOT_SERVING)
                    await asyncio.sleep(10 if full else 1)
                    come_back(server)
                    back = await load.noticed(SERVING)
                    await load.people.wait_for_valid(CODES)
                    show(f"{fault}: NOT_SERVING after {away:.1f} s, SERVING {back:.1f} s after its return")
                    assert max(away, back) < NOTICED_SECONDS[full]
            copies = await load.check(relay)
            show(f"{load.people}; {copies}")
            assert load.people.refused


@pytest.mark.timeout(300)
async def test_a_server_that_forgets(
    relay_state: dict[str, Any], relay: Relay, server: RedisServer, show: Callable[[str], None]
) -> None:
    """A server without our scripts gets them again; one without data has all promised mails again, and no code."""
    with server:
        async with _load(relay_state | redis_settings(server)) as load:
            async with load.running():
                for number, (forgotten, result) in enumerate(FORGETS):
                    await load.people.wait_for_valid(CODES)
                    email = f"eve{number}@example.org"
                    sent = await load.replicas[0].otp.SendCode(otp_pb2.SendCodeRequest(email=email))
                    server.command(*forgotten)
                    await load.people.wait_for_valid(CODES)
                    typed = otp_pb2.ValidateCodeRequest(email=email, code=sent.otp_code)
                    assert (await load.replicas[1].otp.ValidateCode(typed)).result == result
            copies = await load.check(relay)
            show(f"{load.people}; {copies}")


@pytest.mark.timeout(300)
async def test_two_hundred_checks_at_once(
    relay_state: dict[str, Any], server: RedisServer, show: Callable[[str], None]
) -> None:
    """Of 200 right codes at once over two replicas one is valid, and of 200 wrong ones five are tried."""
    with server:
        async with _load(relay_state | redis_settings(server)) as load:
            sent = await load.replicas[0].otp.SendCode(otp_pb2.SendCodeRequest(email="ada@example.org"))
            results = await _type_at_once(load.replicas, "ada@example.org", sent.otp_code)
            assert results == {Result.RESULT_VALID: 1, Result.RESULT_NO_LIVE_CODE: 199}
            sent = await load.replicas[1].otp.SendCode(otp_pb2.SendCodeRequest(email="bob@example.org"))
            wrong = await _type_at_once(load.replicas, "bob@example.org", f"{(int(sent.otp_code) + 1) % 10**6:06d}")
            assert wrong == {Result.RESULT_WRONG_CODE: 5, Result.RESULT_TOO_MANY_ATTEMPTS: 195}
            show(f"right: {results[Result.RESULT_VALID]} valid; wrong: {wrong[Result.RESULT_WRONG_CODE]} counted")


async def _type_at_once(replicas: list[Service], email: str, code: str) -> Counter[int]:
    request = otp_pb2.ValidateCodeRequest(email=email, code=code)
    answers = await asyncio.gather(*[replicas[number % 2].otp.ValidateCode(request) for number in range(200)])
    return Counter(answer.result for answer in answers)


@pytest.mark.timeout(300)
async def test_a_failover(relay_state: dict[str, Any], relay: Relay, show: Callable[[str], None]) -> None:
    """When a replica of the server takes over, no code that was used is valid again, and no promised mail is lost."""
    with WatchedServers() as servers:
        async with _load(relay_state | redis_settings(servers)) as load:
            async with load.running():
                await load.people.wait_for_valid(CODES)
                servers.master.kill()
                away = await load.noticed(NOT_SERVING)
                back = await load.noticed(SERVING)
                await load.people.wait_for_valid(CODES)
            copies = await load.check(relay)
            show(f"NOT_SERVING after {away:.1f} s, for {back:.1f} s; {load.people}; {copies}")
