"""Writes lines to a file descriptor from a thread, so that a pipe that nobody reads blocks nothing but that thread."""

import os
import select
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Event
from typing import NamedTuple

from otpmail.threads import start_daemon

_MOST_OCTETS = 1 << 20
_URGENT_OCTETS = 64 << 10
_MOST_LINES = 100  # in one write, since each write waits for the interpreter lock
_PAUSE_SECONDS = 0.05  # between two writes: to wake a thread for each line takes the loop 190 us


class _Line(NamedTuple):
    """A line, and how many were dropped before it was queued."""

    octets: bytes
    dropped: int


class _Report(NamedTuple):
    """A line that says how many lines were not written."""

    octets: bytes
    unwritten: int


class BackgroundWriter:
    """Queues lines and writes them in their order, from a thread that the end of the process does not wait for.

    At most `most_octets` of lines are queued; further ones are dropped. `report` makes a line of the number of dropped
    lines, which stands in their place. A line is dropped too if the descriptor is closed or the disk is full.

    Lines that follow a write at once are written together `pause` seconds later, but urgent ones at once.
    """

    def __init__(
        self, fd: int, report: Callable[[int], bytes], *, most_octets: int = _MOST_OCTETS, pause: float = _PAUSE_SECONDS
    ) -> None:
        self._fd = fd
        self._report = report
        self._most_octets = most_octets
        self._pause = pause
        # A signal handler may log while its thread is queueing a line, and `SimpleQueue.put` is reentrant.
        self._queue: SimpleQueue[_Line | Event] = SimpleQueue()
        self._hurry: SimpleQueue[None] = SimpleQueue()  # an item ends a pause
        # Each counter has one writer, so that none needs a lock: first those of `write`, then those of the thread.
        self._queued = self._dropped = 0
        self._done = self._reported = self._failed = 0
        self._full = self._torn = False
        start_daemon(self._run, f"writer of {fd}")

    def __repr__(self) -> str:
        return f"<BackgroundWriter {self._queued - self._done} octets queued, {self._dropped} lines dropped>"

    def write(self, line: bytes, *, urgent: bool = False) -> None:
        """Queue a line, which ends with a line feed, or drop it. Returns at once. Callers take turns.

        Urgent lines have a further part of the queue for themselves.
        """
        if urgent:
            most = self._most_octets + _URGENT_OCTETS
        else:  # once it was full it is left to empty by half, so that a slow reader gets few reports among many lines
            most = self._most_octets // 2 if self._full else self._most_octets
        fits = self._queued - self._done + len(line) <= most
        if not urgent:
            self._full = not fits
        if not fits:
            self._dropped += 1
            return
        self._queued += len(line)
        self._queue.put(_Line(line, self._dropped))
        if urgent:
            self._hurry.put(None)

    def flush(self, seconds: float) -> bool:
        """Wait until the lines queued so far are written; False if that is not so after `seconds`."""
        written = Event()
        self._queue.put(written)
        self._hurry.put(None)
        return written.wait(seconds)

    def _run(self) -> None:
        while True:
            items = [self._queue.get()]
            try:
                while len(items) < _MOST_LINES:
                    items.append(self._queue.get_nowait())
            except Empty:
                pass
            self._write_batch(items)
            if self._queue.empty():
                with suppress(Empty):
                    self._hurry.get(timeout=self._pause)

    def _write_batch(self, items: list[_Line | Event]) -> None:
        lines: list[_Line | _Report] = []
        for item in items:
            if isinstance(item, _Line):
                lines += self._reports(item.dropped)
                lines.append(item)
        if self._queue.empty():
            lines += self._reports(self._dropped)
        if lines:
            self._write_all(lines)
        for item in items:
            if isinstance(item, _Line):
                self._done += len(item.octets)
            else:
                item.set()

    def _reports(self, dropped: int) -> list[_Report]:
        """Return a line about those before this point that were not written, unless all were."""
        unwritten = dropped - self._reported + self._failed
        self._reported, self._failed = dropped, 0
        return [_Report(self._report(unwritten), unwritten)] if unwritten else []

    def _write_all(self, lines: list[_Line | _Report]) -> None:
        octets = b"\n" * self._torn + b"".join(line.octets for line in lines)
        rest = memoryview(octets)
        try:
            while rest:
                rest = rest[self._write_some(rest) :]
        except OSError:  # closed at the other end, or a full disk, where a later line may find room
            left = len(rest)
            if written := octets[: len(octets) - left]:
                self._torn = not written.endswith(b"\n")
            while lines and left > 0:  # the line feed behind a torn line belongs to none of these
                line = lines.pop()
                left -= len(line.octets)
                self._failed += line.unwritten if isinstance(line, _Report) else 1
        else:
            self._torn = False

    def _write_some(self, octets: memoryview) -> int:
        """Wait until some of the octets are written, also if another process made the descriptor non-blocking."""
        while True:
            try:
                return os.write(self._fd, octets)
            except BlockingIOError:
                writable = select.poll()
                writable.register(self._fd, select.POLLOUT)
                writable.poll()
