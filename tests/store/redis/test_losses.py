"""A server that has lost its data or its last changes: replicas write them again, on each kind of server."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cutting_proxy import CuttingProxy
from otpmail.store.base import Accepted, Conflict, Earlier, Request, Running
from otpmail.store.redis.keys import Keys
from store.entries import R1, entry_of, mail_of, settled
from store.redis.replicas import SECONDS, TAKING, claimed, empty, owned, until

if TYPE_CHECKING:
    from redis_server import RedisServer
    from store.redis.conftest import Start

pytestmark = pytest.mark.one_loop


def save(server: RedisServer, namespace: str) -> None:
    """Copy all that the replicas have written."""
    script = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('COPY', key, 'saved:' .. key) end"
    server.command("EVAL", script, 0, f"{{{namespace}}}:*")


def restore(server: RedisServer, namespace: str) -> None:
    """Go back to what was saved, as a server that lost its last changes."""
    empty(server, namespace)
    script = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('RENAME', key, string.sub(key, 7)) end"
    server.command("EVAL", script, 0, f"saved:{{{namespace}}}:*")


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
