"""A person is erased from the mails of every replica, also from those that one of them alone remembers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

from otpmail.store.erasing import person_of
from store.entries import entry_of, mail_of, settled
from store.redis.replicas import Replica, replica

if TYPE_CHECKING:
    from redis_server import RedisServer
    from store.clocks import Clock


async def test_another_replica_erases_what_it_alone_remembers(redis_server: RedisServer, clock: Clock) -> None:
    """At an announcement a replica erases the person from the mails whose callers have waited there for the relay."""
    namespace, person = uuid4().hex, person_of("shop", "ada@example.org")
    async with (
        replica(redis_server, clock, namespace, subscribed=True) as one,
        replica(redis_server, clock, namespace, subscribed=True) as other,
    ):
        mail = settled(mail_of(), clock.time)
        other.mails.settle(mail)
        left = replace(mail, recipients=())
        async with asyncio.timeout(20):
            while await other.mails.get("shop", mail.id) != left:
                assert await one.mails.erase(person) == 0  # again until both are subscribed
                await asyncio.sleep(0.02)


async def test_another_replica_settles_open_mails_without_the_person(redis_server: RedisServer, clock: Clock) -> None:
    """A replica settles the mails that are open there without a person whom another was asked to forget.

    It reads of it in an announcement, and from the server at its start and now and then: no message need arrive.
    """
    namespace, person = uuid4().hex, person_of("shop", "ada@example.org")
    entries = [entry_of(mail_of(f"m{number}", create_time=clock.time)) for number in range(3)]
    async with replica(redis_server, clock, namespace) as one, replica(redis_server, clock, namespace) as other:
        await other.accept(*entries)
        await one.mails.begin_forgetting("shop", person, clock.time + 1000)
        other.mails.settle(settled(entries[0].mail, clock.time))
        assert await _recipients(other, "m0") == ["ada@example.org"]  # nobody has told it
        await other.mails.forget_ended()
        other.mails.settle(settled(entries[1].mail, clock.time))
        assert await _recipients(other, "m1") == []
        async with replica(redis_server, clock, namespace) as late:
            clock.time += 10
            further = entry_of(mail_of("m4", create_time=clock.time))
            await late.accept(further)
            late.mails.settle(settled(further.mail, clock.time))
            assert await _recipients(late, "m4") == ["ada@example.org"]
            clock.time += 1000
            await late.mails.forget_ended()
            assert repr(late.mails._forgotten) == "<Forgotten 0 persons>"


async def test_what_another_replica_has_settled_a_moment_ago(redis_server: RedisServer, clock: Clock) -> None:
    """At an announcement a replica erases the person also from what it has just settled."""
    namespace, person = uuid4().hex, person_of("shop", "ada@example.org")
    entry = entry_of(mail_of("m1", create_time=clock.time))
    async with (
        replica(redis_server, clock, namespace, subscribed=True) as one,
        replica(redis_server, clock, namespace, subscribed=True) as other,
    ):
        await other.accept(entry)
        mail = settled(entry.mail, clock.time)
        other.mails.settle(mail)
        assert await other.mails.get("shop", "m1") == mail
        async with asyncio.timeout(20):
            while await _recipients(other, "m1"):
                await one.mails.begin_forgetting("shop", person, clock.time + 1000)  # again until both are subscribed
        assert await other.mails.get("shop", "m1") == replace(mail, recipients=())


async def _recipients(one: Replica, mail_id: str) -> list[str]:
    found = await one.mails.get("shop", mail_id)
    assert found is not None
    return [recipient.address for recipient in found.recipients]
