"""Steps whose answer was lost are undone, and claims of a dead replica taken over, on each kind of server."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cutting_proxy import CuttingProxy
from otpmail.errors import FailedPrecondition, Unavailable
from otpmail.store.base import Accepted, Conflict, Earlier, Request, Running, TakenOver
from otpmail.store.redis.keys import Keys
from otpmail.store.redis.replies import AnswerLost
from store.entries import R1, entry_of, mail_of, settled
from store.redis.replicas import SECONDS, Replica, claimed, owned, until

if TYPE_CHECKING:
    from otpmail.store.redis.script import Script
    from redis_server import RedisServer
    from store.redis.conftest import Start

pytestmark = pytest.mark.one_loop


async def test_a_late_take_over_does_not_block_its_request_id(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A take-over that the server carries out behind the note that frees the id does not block the id."""
    first, second = await start(), await start(lease_seconds=60.0)
    await first.mails.claim(R1, "m1")
    await first.die()
    await orphaned(second)
    run = second.client.run
    late: list[tuple[Any, ...]] = []

    async def lose(script: Script, *words: Any, **options: Any) -> Any:
        if script.name == "mail_claim" and not late:
            late.append((script, *words))
            raise AnswerLost("it is on its way")
        return await run(script, *words, **options)

    monkeypatch.setattr(second.client, "run", lose)
    with pytest.raises(AnswerLost):
        await second.mails.claim(R1, "m2")
    await until(lambda: not second.mails._owned.notes.pending)
    await run(*late[0])
    async with asyncio.timeout(SECONDS):
        assert await claimed(second, R1, "m3", other_than=Running("m1")) == TakenOver("m1")


async def test_the_claim_of_a_dead_replica_is_taken_over(start: Start) -> None:
    """A request id whose replica died before its mail was decided is taken over, with the first mail's id."""
    first, second = await start(), await start()
    await first.mails.claim(R1, "m1")
    assert await second.mails.claim(R1, "m2") == Running("m1")
    assert await second.mails.find("shop", "r1") == Running("m1")
    assert await second.mails.claim(Request("shop", "r1", b"g"), "m2") == Conflict()
    second.mails.release(R1, "m1")
    assert await second.mails.claim(R1, "m2") == Running("m1")
    await first.die()
    assert await claimed(second, R1, "m2", other_than=Running("m1")) == TakenOver("m1")
    second.mails.settle(ended := settled(mail_of("m1", request_id="r1")))
    assert await second.mails.claim(R1, "m3") == Earlier(ended)


async def orphaned(one: Replica) -> None:
    """Wait until the lease has ended of the replica that claimed R1."""
    async with asyncio.timeout(SECONDS):
        while await one.mails.find("shop", "r1") is not None:  # noqa: ASYNC110  nobody announces it
            await asyncio.sleep(0.02)


async def test_a_take_over_of_a_claim_whose_answer_was_lost_is_undone(start: Start, redis_server: RedisServer) -> None:
    """A request id whose take-over had no answer is taken over again, and keeps the id of its first mail."""
    async with CuttingProxy(redis_server.port, only=b"req:") as proxy:
        first, second = await start(), await start(port=proxy.port, lease_seconds=60.0)
        await first.mails.claim(R1, "m1")
        await first.die()
        await orphaned(second)
        proxy.cuts = 1
        with pytest.raises(AnswerLost):
            await second.mails.claim(R1, "m2")
        assert await second.mails.claim(R1, "m3") == TakenOver("m1")


async def test_a_take_over_of_a_claim_that_was_cancelled_is_undone(start: Start) -> None:
    """A request id is taken over again, with the first id, where the call was cancelled that was taking it over."""
    first, second = await start(), await start()
    await first.mails.claim(R1, "m1")
    await first.die()
    await orphaned(second)
    claiming = asyncio.create_task(second.mails.claim(R1, "m2"))
    await asyncio.sleep(0)
    claiming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await claiming
    second.mails.release(R1, "m2")
    async with asyncio.timeout(SECONDS):
        assert await claimed(second, R1, "m3", other_than=Running("m1")) == TakenOver("m1")


async def test_a_released_claim_is_free_on_every_replica(start: Start) -> None:
    """A claim that ended undecided is free for the next call, on whatever replica that comes."""
    first, second = await start(), await start()
    await first.mails.claim(R1, "m1")
    first.mails.release(R1, "m1")
    assert await claimed(second, R1, "m2", other_than=Running("m1")) == Accepted()


async def test_a_mail_whose_answer_was_lost_is_taken_back(
    start: Start, redis_server: RedisServer, namespace: str
) -> None:
    """A mail is taken back whose acceptance the server carried out while the answer was lost; its id is free again."""
    async with CuttingProxy(redis_server.port, only=b"m:m1") as proxy:
        first, second = await start(port=proxy.port, lease_seconds=60.0), await start()
        proxy.cuts = 1
        with pytest.raises(Unavailable):
            await first.mails.accept([entry_of(mail_of("m1", request_id="r1"))])
        await until(lambda: owned(redis_server, namespace) == set())
        assert await second.mails.claim(R1, "m2") == Accepted()


async def test_an_unreadable_answer_refuses_its_mail_alone(
    start: Start, redis_server: RedisServer, namespace: str
) -> None:
    """A repeated mail whose record needs a removed key is refused by `get`; the other mails of its call are kept."""
    first, second = await start(keys={"old": bytes(32)}), await start()
    await first.accept(entry := entry_of(mail_of("m1", request_id="r1")))
    first.mails.settle(settled(entry.mail))
    assert await first.mails.get("shop", "m1") is not None  # so that it is written
    repeated = [entry_of(mail_of(mail_id, request_id=one)) for mail_id, one in (("m2", "r2"), ("m3", "r1"))]
    assert await second.mails.accept(repeated) == [Accepted(), Running("m1")]
    with pytest.raises(FailedPrecondition):
        await second.mails.get("shop", "m1")
    assert owned(redis_server, namespace) == {"m2"}


async def test_a_begun_attempt_whose_answer_was_lost_is_taken_back(start: Start, redis_server: RedisServer) -> None:
    """An attempt that the server noted while the answer was lost does not begin, so the note is taken back."""
    async with CuttingProxy(redis_server.port, only=b"m:m1") as proxy:
        first, second = await start(port=proxy.port), await start()
        await first.accept(entry := entry_of(mail_of("m1")))
        proxy.cuts = 1
        with pytest.raises(AnswerLost):
            await first.mails.begin_attempts({"m1": replace(entry.progress, begun=True)})
        await until(lambda: not first.mails._owned.notes.pending)
        await first.die()
        async with asyncio.timeout(SECONDS):
            assert await second.arrived(1) == [replace(entry, orphaned=True)]


async def test_a_reopened_mail_whose_answer_was_lost_arrives(
    start: Start, redis_server: RedisServer, namespace: str
) -> None:
    """A settled mail arrives if the server has opened it again while the answer was lost."""
    async with CuttingProxy(redis_server.port, only=Keys(namespace).settled) as proxy:
        first = await start(port=proxy.port)
        await first.accept(entry := entry_of(mail_of("m1")))
        failed = replace(entry, mail=settled(entry.mail))
        first.mails.settle(failed.mail, entry=failed)
        assert await first.mails.retryable("shop", "m1") is not None  # so that it is written
        proxy.cuts = 1
        with pytest.raises(AnswerLost):
            await first.mails.reopen(entry, failed.mail.settle_time or 0.0)
        async with asyncio.timeout(SECONDS):
            assert await first.arrived(1) == [entry]


async def test_a_mail_that_a_repeated_call_knows_is_not_taken_back(
    start: Start, redis_server: RedisServer, namespace: str
) -> None:
    """A mail whose answer was lost is sent all the same where a repeated call was answered that it is accepted."""
    async with CuttingProxy(redis_server.port, only=b"m:m1") as proxy:
        first, second = await start(port=proxy.port, lease_seconds=60.0), await start()
        proxy.cuts = 1
        first.client.failed = lambda _: setattr(first.client, "is_away", True)
        with pytest.raises(Unavailable):
            await first.mails.accept([entry := entry_of(mail_of("m1", request_id="r1"))])
        assert await second.mails.accept([entry_of(mail_of("m2", request_id="r1"))]) == [Running("m1")]
        first.client.is_away = False
        async with asyncio.timeout(SECONDS):
            assert await first.arrived(1) == [entry]
        assert owned(redis_server, namespace) == {"m1"}
