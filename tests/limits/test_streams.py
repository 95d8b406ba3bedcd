"""Streams of health and reflection: so many on a connection, and so many in all."""

from contextlib import ExitStack

import pytest

from otpmail.limits.memory import CALL_OCTETS
from otpmail.limits.streams import StreamLimit, TooManyStreams


def _fill(limit: StreamLimit, stack: ExitStack, peer: str, most: int = 1000) -> int:
    """Open streams until one is refused, and return how many were not."""
    for number in range(most):
        try:
            stack.enter_context(limit.open(peer))
        except TooManyStreams:
            return number
    return most


def test_a_connection_has_its_number() -> None:
    """A connection gets no more than its number, and others get theirs."""
    limit = StreamLimit(1 << 30, of_connection=5)
    with ExitStack() as stack:
        assert [_fill(limit, stack, f"ipv4:10.0.0.{number}:1") for number in range(3)] == [5, 5, 5]
        assert repr(limit) == "<StreamLimit 15 of 3276 streams, 3 connections>"
    assert repr(limit) == "<StreamLimit 0 of 3276 streams, 0 connections>"


def test_all_together_take_a_part_of_the_budget() -> None:
    """The streams of all connections take a sixteenth of the budget at most."""
    octets = 16 << 20
    limit = StreamLimit(octets)
    with ExitStack() as stack:
        opened = sum(_fill(limit, stack, f"ipv4:10.0.0.{number}:1") for number in range(10))
        assert octets / 16 - CALL_OCTETS < opened * CALL_OCTETS <= octets / 16
        with pytest.raises(TooManyStreams) as refused, limit.open("ipv4:10.0.0.11:1"):
            pass
        assert refused.value.setting == "MEMORY_MAX_MB"


def test_connections_of_a_unix_socket() -> None:
    """Callers over a Unix socket have one name, so that they share only the number of all."""
    with ExitStack() as stack:
        assert _fill(StreamLimit(64 << 20, of_connection=5), stack, "unix:") == 204


def test_a_refused_stream_counts_nowhere() -> None:
    """A stream that is refused takes nothing from those that are open."""
    limit = StreamLimit(1 << 30, of_connection=1)
    with limit.open("ipv4:10.0.0.1:1"):
        with pytest.raises(TooManyStreams) as refused, limit.open("ipv4:10.0.0.1:1"):
            pass
        assert refused.value.setting == "connection_streams"
        assert repr(limit).startswith("<StreamLimit 1 of")
