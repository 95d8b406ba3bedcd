"""Replicas on one Redis server through kills, long pauses, lost answers and an emptied server."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from contextlib import AsyncExitStack
from datetime import datetime
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from cutting_proxy import CuttingProxy
from guaranteed import Callers, Copies, message_ids, names, redis_settings, request, send
from otpmail.v1 import mail_pb2, otp_pb2
from redis_server import RedisServer
from relay import Faults
from service import Service, relay_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from relay import Certificates, Relay

WORKERS = 5
BATCH = 100
"""Mails that may settle in a hundredth of a second, after which a settlement is on the server."""
LEASE = 2.0
TAKEN_OVER_SECONDS = {True: 1.0, False: 15.0}  # as is promised; in the short form, on a machine that others use too
LATER = "451 4.3.0 later"
PRIORITIES = (mail_pb2.PRIORITY_BULK, mail_pb2.PRIORITY_NORMAL, mail_pb2.PRIORITY_URGENT)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """Start a server of the test's own."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def state(relay: Relay, certificates: Certificates, tmp_path: Path, server: RedisServer) -> dict[str, Any]:
    """Return the settings of replicas of one service."""
    return relay_settings(relay, certificates, tmp_path / "token") | redis_settings(server, lease=LEASE)


async def _start(stack: AsyncExitStack, state: dict[str, Any], count: int = 2, **settings: Any) -> list[Service]:
    """Start replicas, and return them once they serve."""
    replicas = [await stack.enter_async_context(Service(**state, WORKERS=WORKERS, **settings)) for _ in range(count)]
    for replica in replicas:
        await replica.wait_until_serving()
    return replicas


async def _send_many(service: Service, count: int, prefix: str = "p") -> dict[str, str]:
    """Send guaranteed mails of all priorities, and return their ids by name."""

    async def one(number: int) -> tuple[str, str]:
        priority = PRIORITIES[number % 3]
        name = f"{prefix}{number}-{mail_pb2.Priority.Name(priority).rpartition('_')[2].lower()}"
        return name, (await send(service, name, priority=priority)).id

    return dict(await asyncio.gather(*map(one, range(count))))


async def _wait_for_all(relay: Relay, promised: Sequence[str] | dict[str, str], timeout: float = 60) -> None:
    async with asyncio.timeout(timeout):
        while not set(promised) <= set(names(relay.mails)):  # noqa: ASYNC110  each mail counts
            await asyncio.sleep(0.05)


@pytest.mark.relay(delay=0.005)
async def test_kills_under_load(
    state: dict[str, Any], relay: Relay, server: RedisServer, show: Callable[[str], None], *, full: bool
) -> None:
    """A kill -9 under 64 callers loses no promised mail; second copies are few, and have the same Message-ID."""
    callers, kills, window = Callers(), 20 if full else 3, 0
    for _ in range(kills):
        async with Service(**state, WORKERS=WORKERS) as service:
            await service.wait_until_serving()
            window = max(window, int(str((await service.wait_for_log("relay-up"))["window"])))
            load = asyncio.create_task(callers.run(service))
            await callers.wait_for_promises(len(callers.promised) + random.randint(300, 600))
            await service.kill()
            await load
    async with Service(**state, WORKERS=WORKERS) as service:
        await _wait_for_all(relay, callers.promised)
        await _wait_until_kept(server, state, 0)  # the mails of those that were killed are taken over, and all settle
        assert await service.stop() == 0
    copies, bound = Copies(callers.promised, relay.mails), kills * (WORKERS * window + BATCH)
    show(f"{kills} kills, {copies}, at most {bound} copies are allowed")
    assert not copies.lost
    assert copies.extra <= bound
    assert all(len(ids) == 1 for ids in message_ids(relay.mails).values())


async def test_a_killed_replica_is_taken_over(
    state: dict[str, Any], relay: Relay, show: Callable[[str], None], *, full: bool
) -> None:
    """The living replica takes over a killed one's mails, urgent ones first, within its lease and a second.

    The short form gives a busy machine fifteen seconds.
    """
    async with AsyncExitStack() as stack:
        first, second = await _start(stack, state)
        relay.faults = Faults(final_reply=LATER)
        promised = await _send_many(first, 1000)
        await first.kill()
        killed = time.time()
        await relay.wait_for_open(WORKERS)  # it has read what the killed one had written, and takes none of it
        relay.faults = Faults()
        taken = await second.wait_for_log("mails-taken-up")
        took = _time(taken) - killed
        await _wait_for_all(relay, promised)
        assert await second.stop() == 0
    copies = Copies(promised, relay.mails)
    order = [name.rpartition("-")[2] for name in names(relay.mails)]
    show(f"taken over after {took:.2f} s of a lease of {LEASE:g} s, {copies}")
    assert not copies.lost
    assert copies.extra == 0
    assert took <= LEASE + TAKEN_OVER_SECONDS[full]
    assert set(order[:100]) == {"urgent"}
    assert len(message_ids(relay.mails)) == len(promised)


@pytest.mark.relay(delay=0.3)
async def test_a_replica_that_was_stopped_copies_no_more_than_was_in_flight(
    state: dict[str, Any], relay: Relay, show: Callable[[str], None]
) -> None:
    """Of a replica that is stopped for two leases no mail is lost, and few go twice: those in flight and one batch.

    The batch are mails whose settlements waited for the next step of the store when it was stopped.
    """
    async with AsyncExitStack() as stack:
        first, second = await _start(stack, state)
        window = int(str((await first.wait_for_log("relay-up"))["window"]))
        promised = await _send_many(first, 600)
        await relay.wait_for_mails(20)
        first.send(signal.SIGSTOP)
        await second.wait_for_log("mails-taken-up")
        await asyncio.sleep(2 * LEASE)
        first.send(signal.SIGCONT)
        await first.wait_for_log("lease-lost")
        await _wait_for_all(relay, promised)
        assert [await replica.stop() for replica in (first, second)] == [0, 0]
    copies = Copies(promised, relay.mails)
    bound = WORKERS * window + BATCH
    show(f"stopped for {2 * LEASE:g} s and more, {copies}, at most {bound} copies are allowed")
    assert not copies.lost
    assert copies.extra <= bound
    assert all(len(ids) == 1 for ids in message_ids(relay.mails).values())


async def test_lost_answers(
    state: dict[str, Any], relay: Relay, server: RedisServer, show: Callable[[str], None], *, full: bool
) -> None:
    """A call that is repeated with its request id sends one mail, though the store's answers to it are lost."""
    async with CuttingProxy(server.port, only=b"}:req:") as proxy, AsyncExitStack() as stack:
        [service] = await _start(stack, state | {"STORE_URL": proxy.url}, 1)
        refused = 0

        async def call(number: int) -> str:
            nonlocal refused
            wait_for = (mail_pb2.WAIT_FOR_QUEUE, mail_pb2.WAIT_FOR_RELAY)[number % 2]
            asked = request(f"p{number}", wait_for=wait_for, request_id=f"r{number}")
            proxy.cuts += number % 3 == 0
            while True:
                try:
                    return (await service.mail.SendMail(asked)).mail.id
                except grpc.aio.AioRpcError as error:
                    if error.code() != grpc.StatusCode.UNAVAILABLE:
                        raise
                    refused += 1
                    await service.wait_until_serving()

        count = 300 if full else 60
        ids = [
            mail_id
            for start in range(0, count, 10)
            for mail_id in await asyncio.gather(*map(call, range(start, start + 10)))
        ]
        await _wait_for_all(relay, [f"p{number}" for number in range(count)])
        await service.wait_until_serving()
        assert await service.stop() == 0
    copies = Copies([f"p{number}" for number in range(count)], relay.mails)
    show(f"{proxy.cut} answers lost, {refused} calls refused and repeated, {copies}")
    assert proxy.cut == count // 3
    assert refused
    assert (copies.lost, copies.extra, len(set(ids))) == (set(), 0, count)


async def test_lost_answers_to_checks(
    state: dict[str, Any], server: RedisServer, show: Callable[[str], None], *, full: bool
) -> None:
    """A right code whose check has no answer is used up: no replica calls it VALID when its caller asks again."""
    count, answers = 200 if full else 20, Counter[tuple[int | None, int | None]]()
    async with CuttingProxy(server.port, only=b"}:c:") as proxy, AsyncExitStack() as stack:
        [first] = await _start(stack, state | {"STORE_URL": proxy.url}, 1, OTP_RETURN_CODE=True)
        [second] = await _start(stack, state, 1, OTP_RETURN_CODE=True)
        for number in range(count):
            email = f"p{number}@example.org"
            code = (await second.otp.SendCode(otp_pb2.SendCodeRequest(email=email))).otp_code
            asked = otp_pb2.ValidateCodeRequest(email=email, code=code)
            await first.wait_until_serving()
            proxy.cuts += 1
            answers[await _checked(first, asked), await _checked(second, asked)] += 1
    show(f"{proxy.cut} answers lost, and no code was valid after that")
    assert proxy.cut == count
    assert answers == {(None, otp_pb2.ValidateCodeResponse.RESULT_NO_LIVE_CODE): count}


async def _checked(service: Service, asked: otp_pb2.ValidateCodeRequest) -> int | None:
    """Return the result of a check, None where it is UNAVAILABLE."""
    try:
        return (await service.otp.ValidateCode(asked)).result
    except grpc.aio.AioRpcError as error:
        if error.code() != grpc.StatusCode.UNAVAILABLE:
            raise
        return None


async def test_an_emptied_server(
    state: dict[str, Any], relay: Relay, server: RedisServer, show: Callable[[str], None]
) -> None:
    """The mails of living replicas are written again to a server that was emptied, so that a kill then loses none."""
    relay.faults = Faults(final_reply=LATER)
    async with AsyncExitStack() as stack:
        first, second = await _start(stack, state)
        promised = await _send_many(first, 200, "a") | await _send_many(second, 200, "b")
        server.command("FLUSHALL")
        for replica in (first, second):
            await replica.wait_for_log("store-emptied")
        await _wait_until_kept(server, state, len(promised))
        await first.kill()
        await relay.wait_for_open(WORKERS)  # it has read what the killed one had written, and takes none of it
        relay.faults = Faults()
        await _wait_for_all(relay, promised)
        assert await second.stop() == 0
    copies = Copies(promised, relay.mails)
    show(f"{copies}")
    assert (copies.lost, copies.extra) == (set(), 0)
    assert _kept(server, state) == 0


async def test_one_request_id_on_two_replicas_of_which_one_is_killed(
    state: dict[str, Any], relay: Relay, show: Callable[[str], None]
) -> None:
    """One request id on two replicas is one mail with one answer, also if the replica that sends it is killed."""
    async with AsyncExitStack() as stack:
        first, second = await _start(stack, state)
        relay.faults = Faults(delay=60)
        asked = request("ada", wait_for=mail_pb2.WAIT_FOR_RELAY, request_id="r1")
        lost = asyncio.create_task(_answer(first, asked))
        await relay.wait_for_command("RCPT TO:<ada")
        answered = asyncio.create_task(_answer(second, asked))  # the lease of the first ends long after this has come
        await first.kill()
        relay.faults = Faults()
        assert await lost is None
        mail = await answered
        assert mail is not None
        assert mail.state == mail_pb2.Mail.STATE_RELAYED
        again = (await second.mail.SendMail(asked)).mail
        assert await second.stop() == 0
    show(f"{len(relay.mails)} copies of one mail")
    assert again == mail
    assert 1 <= len(relay.mails) <= 2
    assert message_ids(relay.mails) == {"ada": {mail.message_id.encode()}}


async def _answer(service: Service, asked: mail_pb2.SendMailRequest) -> mail_pb2.Mail | None:
    try:
        return (await service.mail.SendMail(asked)).mail
    except grpc.aio.AioRpcError:
        return None


async def _wait_until_kept(server: RedisServer, state: dict[str, Any], count: int) -> None:
    async with asyncio.timeout(60):
        while _kept(server, state) != count:  # noqa: ASYNC110  the server tells nobody
            await asyncio.sleep(0.05)


def _kept(server: RedisServer, state: dict[str, Any]) -> int:
    """Return how many open mails the server has, of all owners."""
    script = """
        local count = 0
        for _, owner in ipairs(redis.call('ZRANGE', KEYS[1] .. 'owners', 0, -1)) do
          count = count + redis.call('ZCARD', KEYS[1] .. 'own:' .. owner)
        end
        return count
    """
    return int(server.command("EVAL", script, 1, f"{{{state['STORE_NAMESPACE']}}}:").strip().removeprefix(":"))


def _time(line: dict[str, object]) -> float:
    """Return when a line was logged, in seconds since the epoch."""
    return datetime.fromisoformat(str(line["time"])).timestamp()
