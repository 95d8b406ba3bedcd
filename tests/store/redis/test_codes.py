"""Codes on a Redis server: what it holds, what it forgets, and what it can't make valid again."""

import asyncio
import time
from dataclasses import replace
from uuid import uuid4

import pytest

from cutting_proxy import CuttingProxy
from otpmail.errors import LimitExceeded, Unavailable
from otpmail.model import Challenge, CheckResult
from otpmail.store.clock import StoreClock
from otpmail.store.redis.client import Client
from otpmail.store.redis.codes import RedisChallengeStore
from otpmail.store.redis.dial import Access, OneServer
from otpmail.store.redis.keys import Keys
from otpmail.store.redis.replies import AnswerLost, StoreRefuses
from otpmail.store.redis.used import UsedChallenges
from redis_server import RedisServer
from rules import BOOK, POLICY
from store.redis.conftest import MakeClient

KEY = b"the record of ad"


class _Codes:
    """A store on the server's own clock, in a namespace of its own."""

    def __init__(self, client: Client, namespace: str = "") -> None:
        self.client = client
        self.namespace = namespace or uuid4().hex
        self.keys = Keys(self.namespace)
        self.clock = StoreClock()
        self.store = RedisChallengeStore(self.clock, client, self.keys, POLICY, BOOK)

    async def send(self, life: float = 600.0) -> str:
        """Send a code, and return it."""
        fresh = Challenge(uuid4().bytes, "k1", self.clock() + life)
        sending = await self.store.send(KEY, 0.0, fresh, spaced=False, room=True)
        return BOOK.code(sending.challenge)

    async def check(self, typed: str) -> CheckResult:
        """Check a code."""
        return (await self.store.check(KEY, 0.0, BOOK.guess(typed), None)).result


@pytest.fixture
def codes(redis_server: RedisServer, make_client: MakeClient) -> _Codes:
    """Codes on each kind of server in turn."""
    return _Codes(make_client(redis_server))


async def test_the_servers_time_counts(codes: _Codes) -> None:
    """Limits and expiries are on the server's clock, and a record is dropped a minute after its end at the latest."""
    before = time.time()
    code = await codes.send()
    fresh = Challenge(uuid4().bytes, "k1", before + 600)
    sending = await codes.store.send(KEY, 0.0, fresh, spaced=False, room=True)
    assert before + POLICY.resend <= sending.next_send <= time.time() + POLICY.resend
    assert 655_000 < await codes.client.command("PTTL", codes.keys.code(KEY)) <= 660_000
    assert await codes.check(code) is CheckResult.VALID


async def test_no_code_is_there_in_the_clear(codes: _Codes) -> None:
    """Neither a key nor a value holds the code."""
    code = (await codes.send()).encode()
    found = await codes.client.command("KEYS", codes.keys.named("*"))
    assert found == [codes.keys.code(KEY)]
    assert code not in await codes.client.command("GET", found[0])
    assert code not in found[0]


async def test_a_server_that_was_set_back(codes: _Codes) -> None:
    """A used code whose record comes back, as from a replica that is behind, is not valid a second time."""
    code = await codes.send()
    record = await codes.client.command("GET", codes.keys.code(KEY))
    assert await codes.check(code) is CheckResult.VALID
    await codes.client.command("SET", codes.keys.code(KEY), record)
    assert await codes.check(code) is CheckResult.NO_LIVE_CODE
    assert await codes.check(code) is CheckResult.NO_LIVE_CODE
    assert await codes.check(await codes.send()) is CheckResult.VALID


async def test_a_server_that_was_set_back_under_two_replicas(
    redis_server: RedisServer, codes: _Codes, make_client: MakeClient
) -> None:
    """A code that was used on one replica is used on the other too, also where its record comes back."""
    other = _Codes(make_client(redis_server), codes.namespace)
    listening = asyncio.create_task(other.store.listen())
    while await codes.client.command("PUBLISH", codes.keys.used, b"no announcement") < 1:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    code = await codes.send()
    record = await codes.client.command("GET", codes.keys.code(KEY))
    assert await codes.check(code) is CheckResult.VALID
    async with asyncio.timeout(10):
        while "Challenges 1>" not in repr(other.store.used):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await codes.client.command("SET", codes.keys.code(KEY), record)
    assert await other.check(code) is CheckResult.NO_LIVE_CODE
    code = await other.send()
    assert await other.check(code) is CheckResult.VALID
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def test_a_replica_hears_others_alone(codes: _Codes) -> None:
    """A replica's own announcement does not make its first valid code a used one."""
    listening = asyncio.create_task(codes.store.listen())
    while await codes.client.command("PUBLISH", codes.keys.used, b"no announcement") < 1:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    for _ in range(20):
        assert await codes.check(await codes.send()) is CheckResult.VALID
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def test_used_codes_are_forgotten_when_they_have_expired(codes: _Codes) -> None:
    """What is remembered of used codes takes memory for their life only."""
    await codes.check(await codes.send())
    codes.store.sweep()
    assert repr(codes.store.used) == "<UsedChallenges 1>"
    codes.clock.set_to(codes.clock() + 601)
    codes.store.sweep()
    assert repr(codes.store.used) == "<UsedChallenges 0>"


def test_the_latest_used_codes_alone_are_remembered() -> None:
    """What is remembered of used codes is bounded, also where many are used a second, and its memory is counted."""
    used = UsedChallenges(lambda: 0.0, most=2)
    assert [used.add(bytes([number]), 1.0) for number in range(3)] == [True] * 3
    assert [used.add(bytes([number]), 1.0) for number in (2, 1, 0)] == [False, False, True]
    assert used.octets == 300


async def test_an_emptied_server(codes: _Codes) -> None:
    """Codes of a server that was emptied are no live codes."""
    code = await codes.send()
    await codes.client.command("DEL", codes.keys.code(KEY))
    assert await codes.check(code) is CheckResult.NO_LIVE_CODE


async def test_a_server_without_memory(redis_server: RedisServer, codes: _Codes) -> None:
    """A wrong code that can't be counted is not compared for its caller; a right one is used up."""
    code = await codes.send()
    record = await codes.client.command("GET", codes.keys.code(KEY))
    limit = redis_server.command("CONFIG", "GET", "maxmemory").split("\r\n")[4]
    redis_server.command("CONFIG", "SET", "maxmemory", 1)
    try:
        for typed in ("000000" if code != "000000" else "111111", "no code"):
            with pytest.raises(StoreRefuses, match="no memory left"):
                await codes.check(typed)
        with pytest.raises(StoreRefuses, match="no memory left"):
            await codes.send()
        assert await codes.client.command("GET", codes.keys.code(KEY)) == record
        assert await codes.check(code) is CheckResult.VALID
    finally:
        redis_server.command("CONFIG", "SET", "maxmemory", limit)
    assert await codes.check(code) is CheckResult.NO_LIVE_CODE


async def test_a_lost_answer_to_a_sending(redis_server: RedisServer) -> None:
    """A code whose step was taken, but not confirmed, is sent all the same, and the next has to wait its time."""
    async with CuttingProxy(redis_server.port, only=b"EVAL") as proxy:
        client = Client(OneServer(("127.0.0.1", proxy.port)), Access())
        codes = _Codes(client)
        code = await codes.send()
        assert await codes.check(code) is CheckResult.VALID
        proxy.cuts = 1
        fresh = Challenge(uuid4().bytes, "k1", codes.clock() + 600)
        sending = await codes.store.send(KEY, 0.0, fresh, spaced=True, room=True)
        assert (proxy.cuts, sending.challenge) == (0, fresh)
        with pytest.raises(LimitExceeded):
            await codes.store.send(KEY, 0.0, replace(fresh, id=uuid4().bytes), spaced=True, room=True)
        proxy.cuts = 1
        with pytest.raises(AnswerLost):
            await codes.check(BOOK.code(fresh))
        assert await codes.check(BOOK.code(fresh)) is CheckResult.NO_LIVE_CODE
        await client.close()


async def test_a_check_without_enough_replicas(redis_server: RedisServer, make_client: MakeClient) -> None:
    """A right code is not called valid before as many replicas know that it is used, and never is again."""
    codes = _Codes(make_client(redis_server, replicas=1))
    code = await codes.send()
    with pytest.raises(Unavailable, match="too few replicas"):
        await codes.check(code)
    with pytest.raises(Unavailable, match="too few replicas"):
        await codes.check(code)
