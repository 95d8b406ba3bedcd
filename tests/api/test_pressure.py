"""Streams that wait for a batch: half of them end where the process takes more memory than is counted."""

from functools import partial

import pytest

from delivery.fakes import Clock, Nothing
from otpmail.api.pressure import WaitingStreams
from otpmail.limits.memory import LARGE, Held, Memory

MIB = 1 << 20
LEEWAY = 68 * MIB
"""The memory that the process may take beyond what it began with, and what is counted in a budget of 16 MiB."""


class Context:
    """A call of a connection."""

    def __init__(self, peer: str) -> None:
        self._peer = peer

    def peer(self) -> str:
        """Where it comes from."""
        return self._peer


class Rig:
    """Streams, of which four may be half received, in a process whose memory the test says."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.memory = Memory(16 * MIB, Nothing(), Nothing())
        self.resident = 50 * MIB
        self.looks = 0
        self.active = set[str]()
        self.closed = list[str]()
        self.ended = list[int]()
        self.streams = WaitingStreams(
            self.memory,
            most=4,
            call_later=self.clock.call_later,
            look_seconds=0.05,
            resident=self._read_resident,
            receiving=lambda _: frozenset(self.active),
            shut_down=self.closed.extend,
        )

    def _read_resident(self) -> int:
        self.looks += 1
        return self.resident

    def wait(self, *peers: str) -> list[Context]:
        """Let a stream of each peer wait."""
        contexts = [Context(peer) for peer in peers]
        for place, context in enumerate(contexts):
            self.streams.add(context, partial(self.ended.append, place))
        return contexts

    def look(self) -> None:
        """Let it look once."""
        self.clock.advance(0.05)


def _peers(count: int) -> list[str]:
    return [f"ipv4:127.0.0.1:{port}" for port in range(count)]


def test_half_of_them_end_where_memory_is_short() -> None:
    """Streams go on while the process takes what is counted; beyond that half end at each look, but for a few."""
    rig = Rig()
    rig.wait(*["unix:"] * 44)
    rig.memory.unsettled = 12 * MIB
    rig.resident += LEEWAY + 12 * MIB
    rig.look()
    assert rig.ended == []
    rig.resident += 1
    rig.look()
    assert rig.ended == list(range(20))
    rig.look()
    assert rig.ended == list(range(30))
    for _ in range(10):
        rig.look()
    assert rig.ended == list(range(40))
    assert repr(rig.streams) == "<WaitingStreams 4, at most 4 under pressure>"


def test_few_are_never_ended() -> None:
    """As many streams as may be half received wait for as long as they like."""
    rig = Rig()
    rig.wait(*_peers(4))
    rig.resident += 10_000 * MIB
    rig.clock.advance(60)
    assert (rig.ended, rig.closed) == ([], [])


def test_nothing_is_looked_at_once_the_streams_have_gone() -> None:
    """Streams that got their batch do not count, and no look follows the last of them."""
    rig = Rig()
    for context in rig.wait(*_peers(20)):
        rig.streams.discard(context)
    rig.resident += 10_000 * MIB
    rig.look()
    rig.clock.advance(60)
    assert (rig.ended, rig.looks) == ([], 1)  # the one at the beginning


def test_what_large_requests_do_not_take_yet_does_not_count() -> None:
    """A large request counts once here, and not three times: only few are written at a time."""
    rig = Rig()
    held = Held(rig.memory, 4 * MIB)
    rig.wait(*_peers(10))
    rig.resident += LEEWAY + 4 * MIB
    rig.look()
    assert rig.ended == []
    rig.resident += LARGE
    rig.look()
    assert rig.ended == [0, 1, 2]
    held.release()


def test_idle_connections_lose_before_those_that_bring_something() -> None:
    """Of connections with as many streams those lose first on which nothing comes."""
    rig = Rig()
    rig.wait(*(f"ipv6:%5B::1%5D:{place}" if place % 2 else f"ipv4:127.0.0.1:{place}" for place in range(10)))
    rig.active = {"127.0.0.1:0", "[::1]:1", "[::1]:3"}
    rig.resident += LEEWAY + 1
    rig.look()
    assert rig.ended == [2, 4, 5]
    assert rig.closed == []


def test_the_most_greedy_connection_loses_before_idle_ones() -> None:
    """Many streams of one connection are ended before the idle one of another, whatever the connection brings."""
    rig = Rig()
    rig.wait("ipv4:127.0.0.1:2", *["ipv4:127.0.0.1:1"] * 13)
    rig.active = {"127.0.0.1:1"}
    rig.resident += LEEWAY + 1
    rig.look()
    assert rig.ended == [1, 2, 3, 4, 5]


def test_connections_are_closed_before_the_system_ends_the_process(caplog: pytest.LogCaptureFixture) -> None:
    """Where far more memory is taken, half of the connections that bring something are closed, the greedy ones."""
    rig = Rig()
    rig.wait(*["ipv4:10.0.0.1:1"] * 5, *["ipv4:10.0.0.2:1"] * 9, *["ipv4:10.0.0.3:1"] * 7, *["ipv4:10.0.0.4:1"] * 20)
    rig.active = {"10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"}
    rig.resident += LEEWAY + 8 * MIB
    rig.look()
    assert rig.closed == []
    rig.resident += 1
    rig.look()
    assert rig.closed == ["10.0.0.2:1", "10.0.0.3:1"]
    assert [record.getMessage() for record in caplog.records] == [
        "memory is short: closing 2 connections that bring batches"
    ]
