"""The time that a server has for its answers."""

import asyncio
import socket
import time

import pytest

from otpmail.store.redis.dial import time_limit

_LIMIT = 0.02  # seconds


async def test_an_answer_that_came_in_a_pause_counts() -> None:
    """An answer counts that is there, though this process could not read it until its time was over."""
    ours, servers = socket.socketpair()
    with ours, servers:
        ours.settimeout(0)
        reader, writer = await asyncio.open_connection(sock=ours)
        over = time.monotonic() + 2 * _LIMIT
        async with time_limit(_LIMIT):
            answer = asyncio.create_task(reader.readline())
            await asyncio.sleep(0)
            servers.send(b"+OK\r\n")
            while time.monotonic() < over:  # the pause of the whole loop that this is about
                time.sleep(_LIMIT)  # noqa: ASYNC251
            assert await answer == b"+OK\r\n"
        writer.close()
        await writer.wait_closed()


async def test_a_silent_server_has_its_time() -> None:
    """Where nothing comes, the time ends, and what waited is cancelled."""
    never = asyncio.get_running_loop().create_future()
    with pytest.raises(TimeoutError):
        async with time_limit(_LIMIT):
            await never
    assert never.cancelled()
