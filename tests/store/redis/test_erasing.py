"""A person is erased from the mails of every replica, also from those that one of them alone remembers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

from otpmail.store.erasing import person_of
from store.entries import mail_of, settled
from store.redis.replicas import replica

if TYPE_CHECKING:
    from redis_server import RedisServer
    from store.clocks import Clock


async def test_another_replica_erases_what_it_alone_remembers(redis_server: RedisServer, clock: Clock) -> None:
    """A replica that is told of a person erases it from the mails whose callers have waited there for the relay."""
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
