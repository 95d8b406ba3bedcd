"""Mails that a Redis server forgets, past their time or beyond the most there may be, and a right that this lacks."""

from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from otpmail.errors import StoreError, Unavailable
from otpmail.store.base import Running
from otpmail.store.redis.script import Script
from redis_server import RedisServer
from store.clocks import Clock
from store.entries import R1, REMEMBER_COUNT, entry_of, mail_of, settled
from store.redis.replicas import replica

pytestmark = pytest.mark.one_loop


async def test_a_user_who_may_not_forget() -> None:
    """A right that forgetting lacks is an error that names the rights: the server takes all other changes."""
    with RedisServer() as server:
        async with replica(server, Clock(), uuid4().hex) as one:
            await one.mails.forget_ended()
            server.command("ACL", "SETUSER", "default", "-zremrangebyscore")
            with pytest.raises(
                StoreError, match=r"does not let the user of STORE_URL do this; docs/stores\.md"
            ) as error:
                await one.mails.forget_ended()
            assert not isinstance(error.value, Unavailable)
            server.command("ACL", "SETUSER", "default", "+zremrangebyscore")
            await one.mails.forget_ended()


async def test_a_mail_that_is_opened_again_meanwhile(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mail that is opened again while another replica forgets it keeps its request id."""
    clock, namespace = Clock(), uuid4().hex
    async with replica(redis_server, clock, namespace) as first, replica(redis_server, clock, namespace) as second:
        entry = entry_of(mail_of("m0", request_id="r1"))
        failed = replace(entry, mail=settled(entry.mail, clock()))
        await first.accept(entry)
        first.mails.settle(failed.mail, keep_request=False, entry=failed)
        for number in range(1, REMEMBER_COUNT + 1):
            clock.time += 1
            await first.accept(one := entry_of(mail_of(f"m{number}")))
            first.mails.settle(settled(one.mail, clock()))
            assert await first.mails.get("shop", one.mail.id) is not None  # so that it is written
        run = second.client.run

        async def reopen_first(script: Script, *words: Any, **options: Any) -> Any:
            if script.name == "mail_forget":
                assert await first.mails.reopen(entry, failed.mail.settle_time or 0.0)
            return await run(script, *words, **options)

        monkeypatch.setattr(second.client, "run", reopen_first)
        await second.mails.forget_ended()
        assert await second.mails.find("shop", "r1") == Running("m0")
        assert await second.mails.claim(R1, "m9") == Running("m0")
