"""Commands as octets, as redis-py writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from redis.asyncio.connection import Connection

from otpmail.store.redis.resp import pack_command, pack_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otpmail.store.redis.resp import Value


@pytest.mark.parametrize(
    "words",
    [
        [b"PING"],
        ["SET", b"key", "ä", b""],
        [b"ZADD", "set", 0, -1, 1 << 53, 0.1, 1e22, 1_700_000_000.123457, float("inf")],
        [b"EVAL", b"return 1\r\n", 0, b"\r\n$3\r\n", bytes(2047), bytes(2048), bytes(100_000)],
    ],
    ids=["one word", "texts", "numbers", "octets"],
)
def test_words_are_packed_as_by_the_library(words: Sequence[Value]) -> None:
    """A command has the octets that redis-py would send for it, numbers and line ends in its words included."""
    assert pack_command(len(words), pack_words(words)) == b"".join(Connection().pack_command(*words))
