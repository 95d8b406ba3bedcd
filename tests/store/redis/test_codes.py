"""Codes on a Redis server: what it holds, what it forgets, and what it can't make valid again."""

import asyncio
import struct
import time
from typing import Any
from uuid import uuid4

import msgpack
import pytest

from cutting_proxy import CuttingProxy
from otpmail.errors import LimitExceeded, Unavailable
from otpmail.mail.undoing import Undoing
from otpmail.model import Challenge, Check, CheckResult
from otpmail.store.challenges import Attempt, Quota, Send
from otpmail.store.clock import StoreClock
from otpmail.store.digests import Digests
from otpmail.store.redis.client import Client
from otpmail.store.redis.codes import RedisChallengeStore
from otpmail.store.redis.dial import Access, OneServer
from otpmail.store.redis.health import Health
from otpmail.store.redis.keys import Keys
from otpmail.store.redis.replies import AnswerLost, StoreRefuses
from otpmail.store.redis.script import Script
from otpmail.store.redis.subscription import Subscription
from otpmail.store.redis.used import UsedChallenges
from redis_server import RedisServer
from rules import BOOK, POLICY
from store.redis.conftest import MakeClient

KEY = b"the record of ad"

EARLIER_KEY = b"login of ada@x.o"


class _Codes:
    """A store on the server's own clock, in a namespace of its own."""

    def __init__(self, client: Client, namespace: str = "", keys: Keys | None = None) -> None:
        self.client = client
        self.namespace = namespace or uuid4().hex
        self.keys = keys or Keys(self.namespace, Digests({"k1": bytes(32)}))
        self.clock = StoreClock()
        self.store = RedisChallengeStore(self.clock, client, self.keys, POLICY, BOOK)

    def listen(self) -> asyncio.Task[None]:
        """Receive what other stores announce."""
        subscription = Subscription(self.client)
        self.store.subscribe(subscription)
        return asyncio.create_task(subscription.run())

    async def send(self, life: float = 600.0) -> str:
        """Send a code, and return it."""
        sending = await self.store.send(Send(KEY, self.clock(), self.fresh(life), spaced=False))
        return BOOK.code(sending.challenge)

    def fresh(self, life: float = 600.0) -> Challenge:
        """Return a new challenge."""
        return Challenge(uuid4().bytes, "k1", self.clock() + life, length=6)

    async def check(self, typed: str, request: bytes = b"") -> CheckResult:
        """Check a code."""
        return (await self.store.check(KEY, 0.0, BOOK.guess(typed), Attempt(request=request))).result


@pytest.fixture
def codes(redis_server: RedisServer, make_client: MakeClient) -> _Codes:
    """Codes on each kind of server in turn."""
    return _Codes(make_client(redis_server))


async def test_the_servers_time_counts(codes: _Codes) -> None:
    """Limits and expiries are on the server's clock, and a record is dropped a minute after its end at the latest.

    Its end is that of the day in which its mails count.
    """
    before = time.time()
    code = await codes.send()
    sending = await codes.store.send(Send(KEY, codes.clock(), codes.fresh(), spaced=False))
    assert before + POLICY.resend <= sending.next_send <= time.time() + POLICY.resend
    assert 86_485_000 < await codes.client.command("PTTL", codes.keys.codes(KEY)[0]) <= 86_491_000
    assert await codes.check(code) is CheckResult.VALID


async def test_a_mail_is_taken_back_once(codes: _Codes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mail whose answer is lost when it is taken back is taken back once, and those of others go on counting."""
    quota = Quota("mails_per_hour", b"mails in an hour", 9)
    whens = [(await codes.store.count((quota,)))[0] for _ in range(5)]
    run, lost = codes.client.run, 0

    async def lose(script: Script, keys: Any, words: Any) -> Any:
        nonlocal lost
        answer = await run(script, keys, words)
        if lost == 2:
            return answer
        lost += 1
        raise AnswerLost("it is on its way", retry_after=0.01) if lost == 1 else Unavailable("down", retry_after=0.01)

    monkeypatch.setattr(codes.client, "run", lose)
    undoing = Undoing()
    await undoing.begin(lambda: codes.store.uncount((quota,), whens[0]))
    assert lost == 2
    await codes.store.uncount((quota,), whens[1])
    counts = [await codes.client.command("GET", name) for name in codes.keys.counts(quota.key)]
    assert sum(msgpack.unpackb(counts[0])[1::2]) == 3
    (mark,) = (await codes.client.command("KEYS", codes.keys.named("u:*")))[:1]
    assert 0 < await codes.client.command("PTTL", mark) <= 120_000


async def test_no_code_is_there_in_the_clear(codes: _Codes) -> None:
    """Neither a key nor a value holds the code."""
    code = (await codes.send()).encode()
    found = await codes.client.command("KEYS", codes.keys.named("*"))
    assert found == [codes.keys.codes(KEY)[0]]
    assert KEY.hex().encode() not in found[0]  # nor can a known address be tested by its plain digest
    assert code not in await codes.client.command("GET", found[0])
    assert code not in found[0]


async def test_a_server_that_was_set_back(codes: _Codes) -> None:
    """A used code whose record comes back, as from a replica that is behind, is not valid a second time."""
    code = await codes.send()
    record = await codes.client.command("GET", codes.keys.codes(KEY)[0])
    assert await codes.check(code) is CheckResult.VALID
    await codes.client.command("SET", codes.keys.codes(KEY)[0], record)
    assert await codes.check(code) is CheckResult.NO_LIVE_CODE
    assert await codes.check(code) is CheckResult.NO_LIVE_CODE
    assert await codes.check(await codes.send()) is CheckResult.VALID


async def test_a_server_that_was_set_back_and_a_check_that_is_repeated(codes: _Codes) -> None:
    """A check of a used code whose answer was NO_LIVE_CODE has that answer again, by its request id.

    The one that has used the code is VALID again for a minute.
    """
    code = await codes.send()
    record = await codes.client.command("GET", codes.keys.codes(KEY)[0])
    assert await codes.check(code, b"request1") is CheckResult.VALID
    await codes.client.command("SET", codes.keys.codes(KEY)[0], record)
    for _ in range(3):
        assert await codes.check(code, b"request2") is CheckResult.NO_LIVE_CODE
    await codes.client.command("SET", codes.keys.codes(KEY)[0], record)
    for _ in range(3):
        assert await codes.check(code, b"request1") is CheckResult.VALID
    codes.clock.set_to(codes.clock() + 61)
    assert await codes.check(code, b"request1") is CheckResult.NO_LIVE_CODE


async def test_a_check_that_is_repeated_on_another_replica(
    redis_server: RedisServer, codes: _Codes, make_client: MakeClient
) -> None:
    """A check whose answer was lost is VALID again on another replica, which has heard that the code was used."""
    other = _Codes(make_client(redis_server), codes.namespace)
    listening = other.listen()
    while await codes.client.command("PUBLISH", codes.keys.used, b"no announcement") < 1:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    code = await codes.send()
    assert await codes.check(code, b"request1") is CheckResult.VALID
    async with asyncio.timeout(10):
        while "Challenges 1>" not in repr(other.store.used):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert await other.check(code, b"request1") is CheckResult.VALID
    assert await other.check(code, b"request2") is CheckResult.NO_LIVE_CODE
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def test_a_server_that_was_set_back_under_two_replicas(
    redis_server: RedisServer, codes: _Codes, make_client: MakeClient
) -> None:
    """A code that was used on one replica is used on the other too, also where its record comes back."""
    other = _Codes(make_client(redis_server), codes.namespace)
    listening = other.listen()
    while await codes.client.command("PUBLISH", codes.keys.used, b"no announcement") < 1:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    code = await codes.send()
    record = await codes.client.command("GET", codes.keys.codes(KEY)[0])
    assert await codes.check(code) is CheckResult.VALID
    async with asyncio.timeout(10):
        while "Challenges 1>" not in repr(other.store.used):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await codes.client.command("SET", codes.keys.codes(KEY)[0], record)
    assert await other.check(code) is CheckResult.NO_LIVE_CODE
    code = await other.send()
    assert await other.check(code) is CheckResult.VALID
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def test_a_replica_hears_others_alone(codes: _Codes) -> None:
    """A replica's own announcement does not make its first valid code a used one."""
    listening = codes.listen()
    while await codes.client.command("PUBLISH", codes.keys.used, b"no announcement") < 1:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    for _ in range(20):
        assert await codes.check(await codes.send()) is CheckResult.VALID
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def test_used_codes_are_forgotten_when_they_have_expired(codes: _Codes) -> None:
    """Used codes take memory for their life only."""
    await codes.check(await codes.send())
    codes.store.sweep()
    assert repr(codes.store.used) == "<UsedChallenges 1>"
    codes.clock.set_to(codes.clock() + 601)
    codes.store.sweep()
    assert repr(codes.store.used) == "<UsedChallenges 0>"


def test_the_latest_used_codes_alone_are_remembered() -> None:
    """The number of used codes in memory is bounded, also where many are used a second, and their memory is counted."""
    used = UsedChallenges(lambda: 0.0, most=2)
    assert [used.add(bytes([number]), 1.0) for number in range(3)] == [True] * 3
    assert [used.add(bytes([number]), 1.0) for number in (2, 1, 0)] == [False, False, True]
    assert used.octets == 364


def test_the_same_check_is_no_other() -> None:
    """A check with a request id has used a challenge for a minute, also as another replica tells it.

    Any other check has not.
    """
    now = 1000.0
    used, other = UsedChallenges(lambda: now), UsedChallenges(lambda: now)
    assert used.add(b"challenge 1     ", 1600.0, b"request1")
    assert used.add(b"challenge 2     ", 1600.0)
    other.receive(struct.pack("<8s16sd8s", used.origin, b"challenge 1     ", 1600.0, b"request1"))
    other.receive(struct.pack("<8s16sd8s", used.origin, b"challenge 2     ", 1600.0, bytes(8)))
    for replica in (used, other):
        assert [replica.add(b"challenge 1     ", 1600.0, name) for name in (b"request1", b"request2", b"")] == [
            True,
            False,
            False,
        ]
        assert [replica.add(b"challenge 2     ", 1600.0, name) for name in (b"request1", bytes(8), b"")] == [False] * 3
    now += 60.0
    assert not used.add(b"challenge 1     ", 1600.0, b"request1")


async def test_an_emptied_server(codes: _Codes) -> None:
    """Codes of a server that was emptied are no live codes."""
    code = await codes.send()
    await codes.client.command("DEL", codes.keys.codes(KEY)[0])
    assert await codes.check(code) is CheckResult.NO_LIVE_CODE


async def test_a_server_without_memory(redis_server: RedisServer, codes: _Codes) -> None:
    """A wrong code that can't be counted is not compared for its caller; a right one is used up."""
    code = await codes.send()
    record = await codes.client.command("GET", codes.keys.codes(KEY)[0])
    limit = redis_server.command("CONFIG", "GET", "maxmemory").split("\r\n")[4]
    redis_server.command("CONFIG", "SET", "maxmemory", 1)
    try:
        for typed in ("000000" if code != "000000" else "111111", "no code"):
            with pytest.raises(StoreRefuses, match="no memory left"):
                await codes.check(typed)
        with pytest.raises(StoreRefuses, match="no memory left"):
            await codes.send()
        assert await codes.client.command("GET", codes.keys.codes(KEY)[0]) == record
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
        fresh = codes.fresh()
        sending = await codes.store.send(Send(KEY, codes.clock(), fresh))
        assert (proxy.cuts, sending.challenge.id) == (0, fresh.id)
        with pytest.raises(LimitExceeded):
            await codes.store.send(Send(KEY, codes.clock(), codes.fresh()))
        proxy.cuts = 1
        with pytest.raises(AnswerLost):
            await codes.check(BOOK.code(fresh))
        assert await codes.check(BOOK.code(fresh)) is CheckResult.NO_LIVE_CODE
        await client.close()


async def test_a_call_without_an_answer_is_withdrawn(redis_server: RedisServer, make_client: MakeClient) -> None:
    """A call whose answers are all lost sends no mail, so neither its repetition nor another replica has to wait."""
    async with CuttingProxy(redis_server.port, only=b"EVAL") as proxy:
        client = Client(OneServer(("127.0.0.1", proxy.port)), Access())
        codes = _Codes(client)
        code = await codes.send()
        elsewhere = _Codes(make_client(redis_server), codes.namespace)
        for again in (codes, elsewhere):
            proxy.cuts = 2
            with pytest.raises(AnswerLost):
                await codes.store.send(Send(KEY, codes.clock(), codes.fresh(), spaced=False))
            assert proxy.cuts == 0
            sending = await again.store.send(Send(KEY, again.clock(), again.fresh()))
            assert BOOK.code(sending.challenge) == code
        await codes.store.close()
        await client.close()


async def test_a_cancelled_call_is_withdrawn(codes: _Codes) -> None:
    """A call that is cancelled while the server decides leaves no time to wait."""
    call = asyncio.create_task(codes.store.send(Send(KEY, codes.clock(), codes.fresh())))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await codes.store.send(Send(KEY, codes.clock(), codes.fresh()))


@pytest.mark.parametrize("ahead", [3600.0, -3600.0])
async def test_a_replica_whose_clock_is_wrong(
    redis_server: RedisServer, codes: _Codes, make_client: MakeClient, ahead: float
) -> None:
    """A code lives for its life on every replica, and ends when its caller was told, whatever clock it has."""
    wrong = _Codes(make_client(redis_server), codes.namespace)
    wrong.clock.set_to(time.time() + ahead)
    before = time.time()
    sending = await wrong.store.send(Send(KEY, wrong.clock(), wrong.fresh(600.0)))
    assert before + 599 < sending.challenge.expires < time.time() + 601
    assert await codes.client.command("PTTL", codes.keys.codes(KEY)[0]) < 86_491_000
    assert await codes.check(BOOK.code(sending.challenge)) is CheckResult.VALID


async def test_a_server_whose_clock_falls_back(codes: _Codes) -> None:
    """Codes end in their time also where the server's clock says less than it has said before."""
    later = time.time() + 3600
    health = Health(codes.client, StoreClock(), codes.keys, code_clock=codes.clock)
    await codes.client.command("SET", codes.keys.clock, struct.pack("<dd", 0.0, later))
    await health.look()
    assert codes.clock() == pytest.approx(later, abs=10)
    sending = await codes.store.send(Send(KEY, codes.clock(), codes.fresh(1.0)))
    assert sending.challenge.expires == pytest.approx(codes.clock() + 1.0, abs=10)
    async with asyncio.timeout(20):  # rather than an hour
        while await codes.check("no code") is not CheckResult.NO_LIVE_CODE:
            await health.look()


@pytest.mark.parametrize("version", [1, 2])
async def test_a_record_of_an_earlier_version(codes: _Codes, version: int) -> None:
    """A code that an earlier replica has issued is valid once, with the attempts and failures that it has.

    That replica knows no live code then. Its failures stay with it, and count here too.
    """
    now = codes.clock()
    challenge = Challenge(uuid4().bytes, "k1", now + 600.0, 2, length=6)
    proof = BOOK.proof(EARLIER_KEY, challenge)
    head = (version, now + 3600.0, challenge.expires, now + 30.0, challenge.id, challenge.attempts, 2)
    failures = struct.pack("<dd", now - 2.0, now - 1.0)
    if version == 1:
        record = struct.pack("<Bddd16shH", *head) + failures + b"k1"
    else:
        record = struct.pack("<Bddd16shH4sBB", *head, bytes(4), 0, 2) + b"k1" + failures
    *_, name = codes.keys.earlier_codes(EARLIER_KEY)
    await codes.client.command("SET", name, proof + record, "PX", 60_000)
    code, attempt = BOOK.code(challenge), Attempt(earlier=EARLIER_KEY)

    async def check(typed: str) -> Check:
        return await codes.store.check(KEY, now, BOOK.guess(typed), attempt)

    assert await check("000000" if code != "000000" else "111111") == Check(CheckResult.WRONG_CODE, 2)
    value = await codes.client.command("GET", name)
    attempts = struct.calcsize("<Bddd16s")  # where they are; the same octets may come before by chance
    assert value[32:] == record[:attempts] + struct.pack("<h", -1) + record[attempts + 2 :]
    assert 0 < await codes.client.command("PTTL", name) <= 60_000
    assert (await check(code)).result is CheckResult.VALID
    assert (await check(code)).result is CheckResult.NO_LIVE_CODE
    for _ in range(7):  # of ten, two of which are of the earlier version
        sending = await codes.store.send(Send(KEY, now, codes.fresh(), spaced=False, earlier=EARLIER_KEY))
        wrong = "000000" if BOOK.code(sending.challenge) != "000000" else "111111"
        assert (await check(wrong)).result is CheckResult.WRONG_CODE
        await codes.store.void(KEY, attempt.scope, None, EARLIER_KEY)
    assert (await check(code)).result is CheckResult.TOO_MANY_ATTEMPTS


@pytest.mark.parametrize("version", [1, 2])
async def test_a_release_holds_for_a_record_of_an_earlier_version(codes: _Codes, version: int) -> None:
    """Failures that an earlier replica has counted until a release count no more, and those since do.

    To forget an address leaves no name of such a record.
    """
    now = codes.clock()
    challenge = Challenge(uuid4().bytes, "k1", now + 600.0, length=6)

    async def keep(failures: list[float]) -> None:
        """Keep the record as that replica does."""
        head = (version, now + 3600.0, challenge.expires, 0.0, challenge.id, 0, len(failures))
        octets = struct.pack(f"<{len(failures)}d", *failures)
        if version == 1:
            record = struct.pack("<Bddd16shH", *head) + octets + b"k1"
        else:
            record = struct.pack("<Bddd16shH4sBB", *head, bytes(4), 0, 2) + b"k1" + octets
        for name in codes.keys.earlier_codes(EARLIER_KEY):
            await codes.client.command("SET", name, BOOK.proof(EARLIER_KEY, challenge) + record, "PX", 60_000)

    code, attempt = BOOK.code(challenge), Attempt(earlier=EARLIER_KEY)
    wrong = BOOK.guess("000000" if code != "000000" else "111111")
    await keep([now - number for number in range(10, 0, -1)])
    assert (await codes.store.check(KEY, now, wrong, attempt)).result is CheckResult.TOO_MANY_ATTEMPTS
    await codes.store.release(KEY)
    assert (await codes.store.check(KEY, now, wrong, attempt)).attempts_left == POLICY.attempts - 1
    await keep([codes.clock() + number for number in range(10)])
    assert (await codes.store.check(KEY, now, wrong, attempt)).result is CheckResult.TOO_MANY_ATTEMPTS
    await codes.store.forget(KEY, EARLIER_KEY)
    assert await codes.client.command("KEYS", codes.keys.named("c:?*")) == []


async def test_a_key_is_replaced(redis_server: RedisServer, codes: _Codes, make_client: MakeClient) -> None:
    """A record under the name of an older key is found while that key is there, and moves to that of the new one."""
    code = await codes.send()
    rotated = Keys(codes.namespace, Digests({"k2": b"2" * 32, "k1": bytes(32)}))
    later = _Codes(make_client(redis_server), codes.namespace, rotated)
    assert await later.check("000000" if code != "000000" else "111111") is CheckResult.WRONG_CODE
    assert await codes.client.command("KEYS", rotated.named("c:?*")) == [rotated.codes(KEY)[0]]
    assert await later.check(code) is CheckResult.VALID


async def test_a_check_without_enough_replicas(redis_server: RedisServer, make_client: MakeClient) -> None:
    """A right code is not called valid before as many replicas know that it is used, and never is again."""
    codes = _Codes(make_client(redis_server, replicas=1))
    code = await codes.send()
    with pytest.raises(Unavailable, match="too few replicas"):
        await codes.check(code)
    with pytest.raises(Unavailable, match="too few replicas"):
        await codes.check(code)
