"""Leases, take-overs and what a server forgets: two replicas on each kind of server."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from cutting_proxy import CuttingProxy
from otpmail.errors import FailedPrecondition, Unavailable
from otpmail.model import MailState, Priority
from otpmail.store.base import Accepted, Conflict, Earlier, Progress, Request, Running, TakenOver
from otpmail.store.redis.keys import Keys
from otpmail.store.redis.replies import AnswerLost
from redis_server import RedisServer
from store.clocks import Clock
from store.entries import R1, REMEMBER_COUNT, entry_of, mail_of, settled
from store.redis.replicas import Replica, replica

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from otpmail.store.redis.script import Script

    Start = Callable[..., Awaitable[Replica]]

pytestmark = pytest.mark.one_loop

SECONDS = 30  # for what comes by itself
LEASE = 1.0  # of a replica, unless a test says otherwise
TAKING = b"2000\r\n$1\r\n1\r\n"
"""How a step ends that takes a lease of two seconds."""


@pytest.fixture
def clock() -> Clock:
    """A clock that stands until the test moves it."""
    return Clock()


@pytest.fixture
def namespace() -> str:
    """The namespace of the test's replicas."""
    return uuid4().hex


@pytest.fixture
async def start(redis_server: RedisServer, clock: Clock, namespace: str) -> AsyncIterator[Start]:
    """Start a replica; all are closed when the test ends."""
    async with AsyncExitStack() as stack:

        async def start(**options: Any) -> Replica:
            return await stack.enter_async_context(replica(redis_server, clock, namespace, **options))

        yield start


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so that nobody announces."""
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110  as above
            await asyncio.sleep(0.01)


def owned(server: RedisServer, namespace: str) -> set[str]:
    """Return the ids of the open mails of all replicas."""
    script = """
        local mails = {}
        for _, owner in ipairs(redis.call('ZRANGE', KEYS[1] .. 'owners', 0, -1)) do
          for _, mail in ipairs(redis.call('ZRANGE', KEYS[1] .. 'own:' .. owner, 0, -1)) do
            mails[#mails + 1] = mail
          end
        end
        return table.concat(mails, ' ')
    """
    return set(server.command("EVAL", script, 1, f"{{{namespace}}}:").split())


def lease_end(server: RedisServer, namespace: str, one: Replica) -> float:
    """Return when a replica's lease ends, in milliseconds of the server."""
    return float(server.command("ZSCORE", f"{{{namespace}}}:owners", one.name))


def empty(server: RedisServer, namespace: str) -> None:
    """Forget all that the replicas have written, as FLUSHALL does; other tests use the server too."""
    script = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', key) end"
    server.command("EVAL", script, 0, f"{{{namespace}}}:*")


def save(server: RedisServer, namespace: str) -> None:
    """Copy all that the replicas have written."""
    script = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('COPY', key, 'saved:' .. key) end"
    server.command("EVAL", script, 0, f"{{{namespace}}}:*")


def restore(server: RedisServer, namespace: str) -> None:
    """Go back to what was saved, as a server that lost its last changes."""
    empty(server, namespace)
    script = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('RENAME', key, string.sub(key, 7)) end"
    server.command("EVAL", script, 0, f"saved:{{{namespace}}}:*")


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


async def test_an_emptied_server_gets_open_mails_again(start: Start, redis_server: RedisServer, namespace: str) -> None:
    """Each living replica writes its open mails and request ids again to a server that lost everything."""
    first, second = await start(), await start()
    await first.accept(entry_of(mail_of("m1", request_id="r1")), entry_of(mail_of("m2")))
    await second.accept(entry_of(mail_of("m3")))
    await first.mails.claim(Request("shop", "r2", b"f"), "m4")
    del first.owner.entries["m2"]
    first.mails.settle(settled(mail_of("m2")))
    empty(redis_server, namespace)
    await until(lambda: owned(redis_server, namespace) == {"m1", "m3"})
    assert await second.mails.claim(R1, "m5") == Running("m1")
    assert await second.mails.claim(Request("shop", "r1", b"g"), "m5") == Conflict()
    async with asyncio.timeout(SECONDS):
        while await second.mails.find("shop", "r2") is None:  # noqa: ASYNC110  nobody announces it
            await asyncio.sleep(0.02)
    assert await second.mails.find("shop", "r2") == Running("m4")
    assert first.owner.dropped == second.owner.dropped == []
    await first.accept(entry_of(mail_of("m6")))
    await first.die()
    async with asyncio.timeout(SECONDS):
        assert {entry.mail.id for entry in await second.arrived(2)} == {"m1", "m6"}


async def test_an_emptied_server_gets_open_mails_after_a_lost_answer(
    start: Start, redis_server: RedisServer, namespace: str
) -> None:
    """A replica writes its open mails again also where the answer to its new lease on an emptied server was lost."""
    async with CuttingProxy(redis_server.port, only=TAKING) as proxy:
        first = await start(port=proxy.port, lease_seconds=2.0)
        await first.accept(entry_of(mail_of("m1")))
        proxy.cuts = 1
        empty(redis_server, namespace)
        await until(lambda: owned(redis_server, namespace) == {"m1"})
        assert proxy.cut == 1


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


async def claimed(one: Replica, request: Request, mail_id: str, *, other_than: object) -> object:
    """Claim a request id until the answer is another than the first one, which nobody announces."""
    async with asyncio.timeout(SECONDS):
        while (answer := await one.mails.claim(request, mail_id)) == other_than:  # noqa: ASYNC110  as above
            await asyncio.sleep(0.02)
    return answer


async def test_a_server_that_is_behind_gets_the_last_changes_again(
    start: Start, redis_server: RedisServer, namespace: str
) -> None:
    """A server that lost its last changes gets the mails that it lacks, and those that have settled are struck out."""
    first = await start(lease_seconds=2.0)
    await first.accept(entry_of(mail_of("m1")), entry_of(mail_of("m2")))
    save(redis_server, namespace)
    await first.accept(entry_of(mail_of("m3")))
    del first.owner.entries["m1"]
    first.mails.settle(settled(mail_of("m1")))
    assert await first.mails.get("shop", "m1") == settled(mail_of("m1"))
    restore(redis_server, namespace)
    assert owned(redis_server, namespace) == {"m1", "m2"}
    await until(lambda: owned(redis_server, namespace) == {"m2", "m3"})
    assert first.owner.dropped == []


async def test_the_next_step_finds_a_server_that_is_behind(
    start: Start, redis_server: RedisServer, namespace: str
) -> None:
    """Lost changes are written again with no renewal, also where the next step counts more than were lost."""
    first = await start(lease_seconds=60.0)
    await first.accept(entry_of(mail_of("m1")))
    save(redis_server, namespace)
    await first.accept(entry_of(mail_of("m2")), entry_of(mail_of("m3")))
    restore(redis_server, namespace)
    await first.accept(*[entry_of(mail_of(f"m{number}")) for number in range(4, 10)])
    await until(lambda: owned(redis_server, namespace) == {f"m{number}" for number in range(1, 10)})


async def test_a_settlement_finds_a_server_that_is_behind(
    start: Start, redis_server: RedisServer, namespace: str
) -> None:
    """A mail that the server has lost settles all the same, where its settlement is the first step after that."""
    first = await start(lease_seconds=60.0)
    save(redis_server, namespace)
    await first.accept(entry_of(mail_of("m1")), entry_of(mail_of("m2")))
    restore(redis_server, namespace)
    del first.owner.entries["m1"]
    first.mails.settle(settled(mail_of("m1")))
    assert await first.mails.get("shop", "m1") == settled(mail_of("m1"))
    await until(lambda: owned(redis_server, namespace) == {"m2"})


async def test_a_claim_that_the_server_lost_is_written_again(
    start: Start, redis_server: RedisServer, namespace: str
) -> None:
    """A server that has lost nothing but a claimed request id gets it again after the next step."""
    first = await start(lease_seconds=60.0)
    await first.accept(entry_of(mail_of("m1")))
    save(redis_server, namespace)
    await first.mails.claim(R1, "m2")
    restore(redis_server, namespace)
    await first.accept(entry_of(mail_of("m3")))
    async with asyncio.timeout(SECONDS):
        while await first.mails.find("shop", "r1") is None:  # noqa: ASYNC110  nobody announces it
            await asyncio.sleep(0.01)
    assert await first.mails.find("shop", "r1") == Running("m2")


async def test_a_repeat_finds_a_mail_whose_settlement_the_server_lost(
    start: Start, redis_server: RedisServer, namespace: str
) -> None:
    """After a failover that lost settlements, repeated request ids find their mails as these settled."""
    first, second = await start(lease_seconds=2.0), await start()
    r2 = Request("shop", "r2", b"f")
    await first.accept(entry_of(mail_of("m1", request_id="r1")))
    assert await first.mails.claim(r2, "m2") == Accepted()
    save(redis_server, namespace)
    ended = [settled(mail_of(f"m{number}", request_id=f"r{number}")) for number in (1, 2)]
    for mail in ended:
        first.mails.settle(mail)
        assert await first.mails.get("shop", mail.id) == mail
    restore(redis_server, namespace)
    async with asyncio.timeout(SECONDS):
        for request, mail in zip((R1, r2), ended, strict=True):
            assert await claimed(second, request, "m9", other_than=Running(mail.id)) == Earlier(mail)
    assert owned(redis_server, namespace) == set()


async def test_a_rewritten_claim_ends_as_any(start: Start, redis_server: RedisServer, namespace: str) -> None:
    """A claim that is written again to an emptied server is kept for seven days, and not for ever."""
    first = await start()
    await first.mails.claim(R1, "m1")
    empty(redis_server, namespace)
    async with asyncio.timeout(SECONDS):
        while await first.mails.find("shop", "r1") is None:  # noqa: ASYNC110  nobody announces it
            await asyncio.sleep(0.02)
    for key in (Keys(namespace).request("shop", "r1"), Keys(namespace).mail("m1")):
        left = redis_server.command("PTTL", key.decode()).strip().removeprefix(":")
        assert 6 * 24 * 3600 * 1000 < int(left) <= 7 * 24 * 3600 * 1000


async def test_a_reopened_mail_counts_as_a_change(start: Start, redis_server: RedisServer, namespace: str) -> None:
    """A server that has lost nothing but the reopening of a mail gets that mail again after the next step."""
    first = await start(lease_seconds=60.0)
    await first.accept(entry := entry_of(mail_of("m1")))
    failed = replace(entry, mail=settled(entry.mail))
    first.mails.settle(failed.mail, entry=failed)
    assert await first.mails.retryable("shop", "m1") == failed
    save(redis_server, namespace)
    assert await first.mails.reopen(entry, failed.mail.settle_time or 0.0)
    first.owner.entries["m1"] = entry
    restore(redis_server, namespace)
    assert owned(redis_server, namespace) == set()
    await first.accept(entry_of(mail_of("m2")))
    await until(lambda: owned(redis_server, namespace) == {"m1", "m2"})


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


async def test_answers_in_any_order_are_no_loss(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """Many steps at once over several connections never make the server look as if it had lost changes."""
    first = await start(lease_seconds=0.5)

    async def work(number: int) -> None:
        entry = entry_of(mail_of(f"m{number}", request_id=f"r{number}"))
        await first.mails.claim(Request("shop", f"r{number}", entry.fingerprint), entry.mail.id)
        await first.accept(entry)
        first.mails.settle(settled(entry.mail))
        await asyncio.sleep(0)

    for start_at in range(0, 600, 60):
        await asyncio.gather(*[work(number) for number in range(start_at, start_at + 60)])
    assert "store-behind" not in [getattr(record, "event", "") for record in caplog.records]


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
