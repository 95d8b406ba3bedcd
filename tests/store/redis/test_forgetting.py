"""What is past its time on a Redis server, and who says so where it stays there."""

from uuid import uuid4

import pytest

from otpmail.errors import StoreError, Unavailable
from redis_server import RedisServer
from store.clocks import Clock
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
