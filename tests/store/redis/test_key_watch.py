"""Replicas with wholly different OTP_KEYS say so, each once, whichever started first."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from uuid import uuid4

import pytest

from otpmail.store.digests import Digests
from otpmail.store.redis.key_watch import KeyWatch
from otpmail.store.redis.keys import Keys
from redis_server import RedisServer
from store.redis.conftest import MakeClient

K1, K2, K3 = ({name: name.encode() * 16} for name in ("k1", "k2", "k3"))

Watch = Callable[[dict[str, bytes]], KeyWatch]


@pytest.fixture
def watch(redis_server: RedisServer, make_client: MakeClient) -> Watch:
    """Make the watch of a replica with these keys."""
    client, namespace = make_client(redis_server), uuid4().hex

    def make(keys: dict[str, bytes]) -> KeyWatch:
        digests = Digests(keys)
        return KeyWatch(client, Keys(namespace, digests), digests.marks, every=0.01)

    return make


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.message for one in caplog.records if one.levelno == logging.WARNING]


async def test_wholly_different_keys(watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    """The later replica says so at its start, the earlier one in its next look, and neither says it again."""
    first, second = watch(K1), watch(K2)
    await first.look()
    assert _warnings(caplog) == []
    await second.look()
    assert len(_warnings(caplog)) == 1
    assert _warnings(caplog)[0].startswith("OTP_KEYS has no key in common")
    for _ in range(3):
        await first.look()
        await second.look()
    assert len(_warnings(caplog)) == 2


async def test_keys_that_are_being_replaced(watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    """Replicas that have a key in common say nothing, in whatever order their keys are."""
    for keys in (K1, K1 | K2, K2 | K1, K1 | K3 | K2):
        await watch(keys).look()
    assert _warnings(caplog) == []


async def test_the_same_id_with_another_key(watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    """A key in common counts, and not an id in common."""
    await watch(K1).look()
    await watch({"k1": bytes(range(32))}).look()
    assert len(_warnings(caplog)) == 1
    await watch({"k9": K1["k1"]} | K2).look()


async def test_a_watch_looks_again(watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    """A replica that runs notices one that starts later."""
    first = watch(K1)
    await first.look()
    running = asyncio.create_task(first.run())
    await watch(K2).look()
    async with asyncio.timeout(30):
        while len(_warnings(caplog)) < 2:  # noqa: ASYNC110  nobody is notified of it
            await asyncio.sleep(0.01)
    assert _warnings(caplog)[1] == _warnings(caplog)[0]
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
