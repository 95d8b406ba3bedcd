"""The thread that writes the log: it blocks nobody, keeps the order, and says what it dropped."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import pipe_ends
from otpmail.telemetry.writer import BackgroundWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIPE_OCTETS = _URGENT_OCTETS = 1 << 16


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Open a pipe; what is written to it fits into 64 KiB."""
    with pipe_ends.opened() as ends:
        yield ends


def _report(count: int) -> bytes:
    return b"%d dropped\n" % count


def _read_lines(fd: int, last: bytes) -> list[bytes]:
    """Read until the line `last` has come."""
    octets = b""
    while not octets.endswith(b"%s\n" % last):
        octets += os.read(fd, 1 << 20)
    return octets.splitlines()


def test_lines_keep_their_order(pipe: tuple[int, int]) -> None:
    """Lines are written in the order in which they were queued, and a flush waits for all of them."""
    reading, writing = pipe
    writer = BackgroundWriter(writing, _report)
    for number in range(1000):
        writer.write(b"%d\n" % number)
    assert writer.flush(10)
    assert os.read(reading, _PIPE_OCTETS).split() == [b"%d" % number for number in range(1000)]


def test_a_pipe_that_nobody_reads(pipe: tuple[int, int]) -> None:
    """Writing returns though the pipe is full; once it is read, lines in place of the dropped ones count them."""
    reading, writing = pipe
    writer = BackgroundWriter(writing, _report, most_octets=100_000)
    line = b"x" * 99
    for _ in range(5000):
        writer.write(line + b"\n")
    assert not writer.flush(0.05)
    octets, kept, dropped = b"", 0, list[int]()
    while kept + sum(dropped) < 5000:  # two lines count them where the writer's thread began late
        octets += os.read(reading, 1 << 20)
        lines = octets.splitlines() if octets.endswith(b"\n") else octets.splitlines()[:-1]
        kept = lines.count(line)
        dropped = [int(each.removesuffix(b" dropped")) for each in lines if each != line]
    assert kept + sum(dropped) == 5000
    assert 1000 <= kept < 1700  # the queue and a pipe hold these
    assert 1 <= len(dropped) <= 2
    assert lines[-1] == b"%d dropped" % dropped[-1]
    writer.write(b"later\n")
    assert _read_lines(reading, b"later") == [b"later"]


def test_dropped_lines_are_counted_where_they_are_missing(pipe: tuple[int, int]) -> None:
    """The count stands before the first line that was queued after the dropped ones."""
    reading, writing = pipe
    os.write(writing, b"." * _PIPE_OCTETS)  # so that the thread waits with its first batch
    writer = BackgroundWriter(writing, _report, most_octets=10)
    writer.write(b"123456789\n")
    writer.write(b"lost\n")
    writer.write(b"lost\n")
    os.read(reading, _PIPE_OCTETS)
    assert _read_lines(reading, b"2 dropped") == [b"123456789", b"2 dropped"]


def test_a_closed_pipe_is_survived(pipe: tuple[int, int]) -> None:
    """A reader that has gone costs lines and nothing else: writing and flushing still return."""
    reading, writing = pipe
    writer = BackgroundWriter(writing, _report)
    os.close(reading)
    writer.write(b"lost\n")
    assert writer.flush(10)
    writer.write(b"lost\n")
    assert writer.flush(10)


def test_a_descriptor_that_is_not_open() -> None:
    """A closed descriptor is survived too, and lines are written once it is open again."""
    reading, writing = os.pipe()
    spare = os.dup(writing)
    os.close(writing)
    writer = BackgroundWriter(writing, _report)
    for _ in range(3):
        writer.write(b"lost\n")
    assert writer.flush(10)
    os.dup2(spare, writing)
    writer.write(b"back\n")
    assert _read_lines(reading, b"back") == [b"3 dropped", b"back"]
    for fd in (reading, writing, spare):
        os.close(fd)


def test_a_torn_line_before_a_descriptor_that_stays_closed() -> None:
    """A line that was cut costs lines and nothing else, however often nothing at all can be written behind it."""
    reading, writing = os.pipe()
    writer = BackgroundWriter(writing, _report)
    writer.write(b"%s\n" % bytes(2 * _PIPE_OCTETS))
    os.read(reading, 1)  # the pipe has a part of the line, and no room for the rest
    os.close(reading)
    for _ in range(2):
        writer.write(b"lost\n")
        assert writer.flush(10)
    again, other = os.pipe()
    os.dup2(other, writing)
    writer.write(b"back\n")
    assert _read_lines(again, b"back") == [b"", b"3 dropped", b"back"]
    for fd in (again, other, writing):
        os.close(fd)


def test_a_descriptor_that_another_process_made_non_blocking(pipe: tuple[int, int]) -> None:
    """EAGAIN means that the reader is slow, and drops no line."""
    reading, writing = pipe
    os.set_blocking(writing, False)
    writer = BackgroundWriter(writing, _report)
    for number in range(50_000):
        writer.write(b"%d\n" % number)
    assert _read_lines(reading, b"49999") == [b"%d" % number for number in range(50_000)]


def test_urgent_lines_are_kept_when_others_are_not(pipe: tuple[int, int]) -> None:
    """A full queue still takes urgent lines, in their place behind the report of those that it dropped."""
    reading, writing = pipe
    os.write(writing, b"." * _PIPE_OCTETS)
    writer = BackgroundWriter(writing, _report, most_octets=10)
    writer.write(b"123456789\n")
    writer.write(b"lost\n")
    writer.write(b"urgent\n", urgent=True)
    writer.write(b"lost\n")
    os.read(reading, _PIPE_OCTETS)
    assert _read_lines(reading, b"1 dropped")[-4:] == [b"123456789", b"1 dropped", b"urgent", b"1 dropped"]


def test_urgent_lines_have_a_limit_too(pipe: tuple[int, int]) -> None:
    """An endless flow of urgent lines takes no more memory than their part of the queue."""
    writer = BackgroundWriter(pipe[1], _report, most_octets=1000)
    for _ in range(10_000):
        writer.write(b"x" * 99 + b"\n", urgent=True)
    assert not writer.flush(0.05)
    queued = int(repr(writer).split()[1])
    assert 0 < queued <= 1000 + _URGENT_OCTETS
