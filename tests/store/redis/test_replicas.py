"""Leases, take-overs, and the mails of others: two replicas on each kind of server."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cutting_proxy import CuttingProxy
from otpmail.errors import FailedPrecondition, Unavailable
from otpmail.model import MailState, Priority
from otpmail.store.base import Accepted, Earlier, Progress, Request, Running, TakenOver
from otpmail.store.redis.keys import Keys
from redis_server import RedisServer
from store.entries import R1, REMEMBER_COUNT, entry_of, mail_of, settled
from store.redis.replicas import SECONDS, TAKING, Replica, owned, replica, until

if TYPE_CHECKING:
    from store.clocks import Clock
    from store.redis.conftest import Start

pytestmark = pytest.mark.one_loop

LEASE = 1.0  # of a replica, unless a test says otherwise


def lease_end(server: RedisServer, namespace: str, one: Replica) -> float:
    """Return when a replica's lease ends, in milliseconds of the server."""
    return float(server.command("ZSCORE", f"{{{namespace}}}:owners", one.name))


async def test_the_mails_of_a_dead_replica_arrive(start: Start) -> None:
    """A living replica gets a dead one's mails when its lease has ended: urgent ones first, then by age."""
    first, second = await start(), await start()
    entries = [
        entry_of(mail_of("m1", create_time=1.0), priority=Priority.BULK),
        entry_of(mail_of("m2", create_time=2.0, request_id="r1")),
        entry_of(mail_of("m3", create_time=3.0), priority=Priority.URGENT, content=bytes(range(256)) * 1000),
        entry_of(mail_of("m4", create_time=4.0)),
    ]
    await first.accept(*entries)
    await first.die()
    async with asyncio.timeout(SECONDS):
        arrived = await second.arrived(4)
    assert arrived == [replace(entries[place], orphaned=True) for place in (2, 1, 3, 0)]
    assert await second.mails.claim(R1, "m5") == Running("m2")
    second.mails.settle(ended := settled(entries[1].mail))
    assert await second.mails.claim(R1, "m5") == Earlier(ended)


async def test_many_mails_are_taken_over_in_slices(start: Start, redis_server: RedisServer, namespace: str) -> None:
    """However many mails a dead replica has, living ones share them, and each arrives once."""
    first, *others = [await start() for _ in range(3)]
    await first.accept(*[entry_of(mail_of(f"m{number}")) for number in range(550)])
    await first.die()
    arrived: list[str] = []

    async def collect(one: Replica) -> None:
        async for entries in one.mails.arrivals():
            arrived.extend([entry.mail.id for entry in entries])

    collecting = [asyncio.create_task(collect(one)) for one in others]
    await until(lambda: len(arrived) >= 550)
    assert len(set(arrived)) == len(arrived) == 550
    assert len(owned(redis_server, namespace)) == 550
    for task in collecting:
        task.cancel()


async def test_large_mails_come_in_small_replies(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replies to a take-over or a list have a quarter of a mebibyte at most, and a large mail comes in parts."""
    first, second = await start(), await start()
    sizes = [100_000, 100_000, 1_500_000, 400_000, 100_000]
    entries = [
        entry_of(mail_of(f"m{place}", create_time=place), content=bytes(size)) for place, size in enumerate(sizes)
    ]
    await first.accept(*entries)
    replies: list[int] = []
    run = second.client.run

    async def counted(*words: Any, **options: Any) -> Any:
        reply = await run(*words, **options)
        replies.append(_octets(reply))
        return reply

    monkeypatch.setattr(second.client, "run", counted)
    assert await _listed(second) == {entry.mail.id for entry in entries}
    assert max(replies) < 10_000  # the heads of large mails, and not their contents
    await first.die()
    async with asyncio.timeout(SECONDS):
        assert await second.arrived(len(sizes)) == [replace(entry, orphaned=True) for entry in entries]
    assert 200_000 < max(replies) < 300_000


async def test_progress_arrives_with_a_mail(start: Start) -> None:
    """The last progress of a mail arrives with it, at the first take-over and at the next."""
    first, second, third = [await start() for _ in range(3)]
    entry = entry_of(mail_of("m1"))
    progress = Progress(pending=("ada@example.org",), attempts=2, losses=1, copies=1)
    await first.accept(entry)
    first.mails.deferred("m1", progress)
    assert (await first.mails.get("shop", "m1")) is not None  # so that it is written
    await first.die()
    tasks = [asyncio.create_task(one.arrived(1)) for one in (second, third)]
    async with asyncio.timeout(SECONDS):
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        taker, other = (second, third) if tasks[0] in done else (third, second)
        assert done.pop().result() == [replace(entry, progress=progress, orphaned=True)]
        await taker.die()
        [again] = await tasks[other is third]
    assert again == replace(entry, progress=progress, orphaned=True)


async def test_a_stop_hands_over_at_once(start: Start, redis_server: RedisServer, clock: Clock, namespace: str) -> None:
    """The mails of a replica that stops arrive at another before its lease would have ended, and count as no copy."""
    entry = entry_of(mail_of("m1"))
    second = await start(lease_seconds=5.0)
    async with replica(redis_server, clock, namespace, lease_seconds=60.0) as first:
        await first.accept(entry)
    async with asyncio.timeout(SECONDS):
        assert await second.arrived(1) == [entry]


async def test_a_stop_ends_where_the_server_can_not_take_the_mails_back(
    redis_server: RedisServer, clock: Clock, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that fails at the last step of a stop is named in the log, and the stop ends all the same."""
    async with replica(redis_server, clock, namespace, lease_seconds=60.0) as first:
        redis_server.command("SET", f"{{{namespace}}}:own:{first.name}", "no set")
    assert "the mails of this replica could not be handed over" in caplog.text


async def test_a_replica_that_was_away_drops_what_others_took(
    start: Start, redis_server: RedisServer, namespace: str
) -> None:
    """A replica whose lease was taken sends nothing, drops what is not in flight, and goes on under a new name."""
    first, second = await start(), await start()
    await first.accept(entry_of(mail_of("m1")), entry_of(mail_of("m2")))
    await first.mails.claim(R1, "m3")
    first.owner.in_flight.add("m2")
    assert first.mails.may_send()
    first.client.is_away = True
    async with asyncio.timeout(SECONDS):
        assert {entry.mail.id for entry in await second.arrived(2)} == {"m1", "m2"}
    assert not first.mails.may_send()
    first.client.is_away = False
    await until(first.mails.may_send)
    assert sorted(first.owner.dropped) == ["m1", "m3"]
    assert first.owner.resumed == 1
    first.mails.settle(settled(mail_of("m2")))
    await first.accept(entry_of(mail_of("m4")))
    assert (await first.mails.get("shop", "m2")) != settled(mail_of("m2"))
    assert owned(redis_server, namespace) == {"m1", "m2", "m4"}
    assert await second.mails.claim(R1, "m5") in {Accepted(), TakenOver("m3")}


async def test_mails_wait_while_the_server_is_away(start: Start) -> None:
    """A replica that can't renew its lease may send until it ends, and goes on with the same mails once it can."""
    first = await start()
    await first.accept(entry_of(mail_of("m1")))
    first.client.is_away = True
    assert first.mails.may_send()
    await until(lambda: not first.mails.may_send())
    first.client.is_away = False
    await until(lambda: first.owner.resumed == 1)
    assert first.mails.may_send()
    assert first.owner.dropped == []


async def test_settlements_wait_for_the_server(start: Start, redis_server: RedisServer, namespace: str) -> None:
    """A settlement that the server could not take is written once it can, in its order."""
    first = await start(lease_seconds=60.0)
    await first.accept(entry_of(mail_of("m1", request_id="r1")), entry_of(mail_of("m2")))
    first.client.is_away = True
    first.mails.deferred("m1", Progress(pending=("ada@example.org",), attempts=1))
    first.mails.settle(ended := settled(mail_of("m1", request_id="r1")))
    assert owned(redis_server, namespace) == {"m1", "m2"}
    first.client.is_away = False
    await until(lambda: owned(redis_server, namespace) == {"m2"})
    assert await first.mails.claim(R1, "m3") == Earlier(ended)


async def test_a_fenced_replica_whose_new_lease_was_lost(
    start: Start, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A replica that lost its lease, and the answer to its next one, does not take the server for an emptied one."""
    second = await start()
    async with CuttingProxy(redis_server.port, only=TAKING) as proxy:
        first = await start(port=proxy.port, lease_seconds=2.0)
        await first.accept(entry_of(mail_of("m1")))
        first.client.is_away = True
        first.end_lease()
        async with asyncio.timeout(SECONDS):
            await second.arrived(1)
        proxy.cuts = 1
        first.client.is_away = False
        await until(lambda: first.owner.resumed == 1)
        assert proxy.cut == 1
        assert first.mails.may_send()
        assert [getattr(record, "event", "") for record in caplog.records].count("lease-lost") == 1
        assert "store-emptied" not in [getattr(record, "event", "") for record in caplog.records]


async def test_a_mail_that_another_replica_sends_has_one_answer(start: Start) -> None:
    """A mail whose caller waits on another replica is UNAVAILABLE by its id, for its own caller, and then found."""
    first, second = await start(), await start()
    await first.mails.claim(R1, "m1")
    with pytest.raises(Unavailable):
        await second.mails.get("shop", "m1")
    assert await second.mails.get("bank", "m1") is None
    first.mails.settle(ended := settled(mail_of("m1", request_id="r1")))
    assert await first.mails.get("shop", "m1") == ended
    assert await second.mails.get("shop", "m1") == ended


async def test_a_mistake_in_a_renewal_is_shown(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An unexpected error in a renewal is logged once and reported, and the lease is renewed again after it."""
    first = await start()
    problems: list[str] = []
    first.mails.watch_lease(problems.append)

    async def fail() -> float:
        raise RuntimeError("a mistake")

    with monkeypatch.context() as patch:
        patch.setattr(first.mails._lease, "_renew", fail)
        await until(lambda: bool(problems) and not first.mails.may_send())
    await until(lambda: problems[-1] == "")
    assert first.mails.may_send()
    assert [bool(problem) for problem in problems] == [True, False]
    assert [getattr(record, "event", "") for record in caplog.records].count("lease-unrenewed") == 1


async def test_contents_for_retries_are_bounded(
    start: Start, redis_server: RedisServer, clock: Clock, namespace: str
) -> None:
    """Contents for retries take as many octets as they may, the oldest go first, and all go when the mails do."""
    first = await start(remember_octets=100_000)
    entries = [entry_of(mail_of(f"m{number}"), content=bytes(10_000)) for number in range(30)]
    sums: list[int] = []
    for entry in entries:
        await first.accept(entry)
        failed = replace(entry, mail=settled(entry.mail, clock()))
        first.mails.settle(failed.mail, entry=failed)
        assert await first.mails.get("shop", entry.mail.id) == failed.mail
        key = Keys(namespace).content_octets.decode()
        sums.append(int(redis_server.command("GET", key).strip().splitlines()[-1]))
    assert max(sums) <= 100_000
    kept = [one.mail.id for one in entries if await first.mails.retryable("shop", one.mail.id) is not None]
    assert "m0" not in kept
    assert 3 <= len(kept) <= 9
    await first.mails.forget_ended()
    assert await first.mails.get("shop", "m0") is None  # as REMEMBER_COUNT says


async def test_mails_of_others_are_found(start: Start) -> None:
    """Every replica finds the open and settled mails of the others, each for its own caller."""
    first, second = await start(), await start()
    await first.accept(entry_of(mail_of("m1", request_id="r1")), entry_of(mail_of("m2", caller="bank")))
    found = await second.mails.get("shop", "m1")
    assert found is not None
    assert (found.id, found.state, found.recipients[0].address) == ("m1", MailState.QUEUED, "ada@example.org")
    assert await second.mails.get("bank", "m1") is None
    assert await _listed(second) == {"m1", "m2"}
    first.mails.settle(ended := settled(mail_of("m1", request_id="r1")))
    assert await first.mails.get("shop", "m1") == ended
    assert await second.mails.get("shop", "m1") == ended
    assert await second.mails.find("shop", "r1") == Earlier(ended)
    assert await _listed(second) == {"m1", "m2"}


async def test_a_mail_of_another_is_cancelled_by_its_owner(start: Start) -> None:
    """A cancel goes to the owner with its next renewal, and returns the mail as it settled."""
    first, second = await start(), await start()
    await first.accept(entry_of(mail_of("m1")), entry_of(mail_of("m2")))
    cancelled = replace(mail_of("m1"), state=MailState.CANCELLED, settle_time=1000.0)
    first.owner.on_cancel = lambda _: first.mails.settle(cancelled)
    first.owner.in_flight.add("m2")
    async with asyncio.timeout(SECONDS):
        assert await second.mails.cancel("shop", "m1") == cancelled
        with pytest.raises(FailedPrecondition):
            await second.mails.cancel("shop", "m2")
        assert await second.mails.cancel("bank", "m1") is None
    assert first.owner.cancelled == ["m1"]


async def test_a_mail_of_another_is_watched(start: Start) -> None:
    """Watching a mail of another replica shows each state that its owner has written, to the last."""
    first, second = await start(), await start()
    await first.accept(entry_of(mail_of("m1")))
    attempts = []
    async with asyncio.timeout(SECONDS):
        async for mail in second.mails.watch("shop", "m1"):
            attempts.append(mail.attempts)
            if len(attempts) == 1:
                first.mails.deferred("m1", Progress(pending=("ada@example.org",), attempts=3))
            elif not mail.state.final:
                first.mails.settle(settled(mail_of("m1")))
    assert attempts == [0, 3, 1]


async def test_the_oldest_settled_mails_are_forgotten(start: Start, clock: Clock) -> None:
    """Beyond the most that may be remembered the mails go that settled first."""
    first, second = await start(), await start()
    for number in range(REMEMBER_COUNT + 3):
        entry = entry_of(mail_of(f"m{number}"))
        await first.accept(entry)
        first.mails.settle(settled(entry.mail, clock()))
        assert await first.mails.get("shop", f"m{number}") is not None
        clock.time += 1
    await second.mails.forget_ended()
    assert await _listed(first) == {f"m{number}" for number in range(3, REMEMBER_COUNT + 3)}
    assert await first.mails.get("shop", "m0") is None


async def test_mails_without_their_key_stay(
    start: Start, redis_server: RedisServer, clock: Clock, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Mails whose key a replica lacks stay on the server for the next one that has it, and the log counts them."""
    entry = entry_of(mail_of("m1"))
    async with replica(redis_server, clock, namespace) as first:
        await first.accept(entry)
    async with replica(redis_server, clock, namespace, keys={"k2": bytes(range(32))}):
        await until(lambda: "1 accepted mail can't be read" in caplog.text)
    third = await start()
    async with asyncio.timeout(SECONDS):
        assert [one.mail for one in await third.arrived(1)] == [entry.mail]


async def test_full_memory_refuses_mails_and_lets_others_go_on(
    redis_server: RedisServer, clock: Clock, namespace: str
) -> None:
    """A server whose memory is full refuses new mails; leases, settlements, retries and take-overs go on."""
    entries = [entry_of(mail_of(f"m{number}", request_id=f"r{number}"), content=b"x" * 1000) for number in range(20)]
    with RedisServer(redis_server.kind) as server:
        async with AsyncExitStack() as stack:
            first, second = [await stack.enter_async_context(replica(server, clock, namespace)) for _ in range(2)]
            await first.accept(*entries)
            server.command("CONFIG", "SET", "maxmemory", 1)
            with pytest.raises(Unavailable):
                await first.mails.accept([entry_of(mail_of("m20"))])
            with pytest.raises(Unavailable):
                await first.mails.claim(Request("shop", "other", b"f"), "m21")
            first.mails.settle(ended := settled(entries[0].mail))
            first.mails.deferred("m1", Progress(pending=("ada@example.org",), attempts=1))
            assert await first.mails.get("shop", "m0") == ended
            assert await second.mails.find("shop", "r0") == Earlier(ended)
            assert ((await second.mails.get("shop", "m1")) or ended).attempts == 1
            ends = lease_end(server, namespace, first)
            await until(lambda: lease_end(server, namespace, first) > ends + 1000 * LEASE)  # it was renewed since
            assert first.mails.may_send()
            await first.die()
            async with asyncio.timeout(SECONDS):
                assert len(await second.arrived(19)) == 19
            assert len(owned(server, namespace)) == 19


async def test_a_restarted_server_is_used_again(redis_server: RedisServer, clock: Clock, namespace: str) -> None:
    """A server that was killed and started again has what was accepted, and its replica keeps its lease and name."""
    with RedisServer(redis_server.kind, "--appendfsync", "always") as server:
        async with replica(server, clock, namespace, lease_seconds=20.0) as first:
            await first.accept(entry_of(mail_of("m1")), entry_of(mail_of("m2")))
            server.kill()
            first.mails.settle(ended := settled(mail_of("m1")))
            server.start()
            await until(lambda: owned(server, namespace) == {"m2"})
            await first.accept(entry_of(mail_of("m3")))
            assert await first.mails.get("shop", "m1") == ended
            assert first.mails.may_send()
            assert (first.owner.dropped, first.owner.resumed) == ([], 0)


def _octets(reply: Any) -> int:
    """Return the octets of the texts in a reply."""
    return sum(map(_octets, reply)) if isinstance(reply, list) else len(reply) if isinstance(reply, bytes) else 0


async def _listed(one: Replica) -> set[str]:
    return {mail.id async for some in one.mails.remembered() for mail in some}
