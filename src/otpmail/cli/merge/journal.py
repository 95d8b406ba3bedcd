"""Who has got the mail of a merge: a file beside the recipients that outlives the run, the service and its memory.

A line for each mail that has settled: its request id, which says nothing of who it is for, and how it ended. Lines are
only ever added, so whatever breaks off a run takes at most the last one with it.
"""

import fcntl
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from otpmail.cli.merge.csv_source import MergeError

RELAYED = "RELAYED"
_HEADER = b"# Journal of an otpmail mail merge: what is RELAYED is not sent again. To start over, delete it.\n"
_ON_DISK_SECONDS = 1.0  # how old lines are at most that a machine loses when it goes down


class Journal:
    """Read when it is opened, which is before a mail goes: it may not open. Added to as results come."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.relayed: set[str] = set()  # request ids
        self._file: BinaryIO | None = None
        self._empty = False  # made by this run, and nothing noted
        self._on_disk = time.monotonic()

    def __repr__(self) -> str:
        return f"<Journal {self.path}, {len(self.relayed)} relayed before>"

    def __enter__(self) -> None:
        self._empty = not self.path.exists()
        if not (self._empty or self.path.is_file()):
            raise MergeError(f"--journal: {self.path}: is there, and is no file")
        try:
            self._file = self.path.open("a+b")
            self._open(self._file)
        except OSError as error:
            self._close()
            raise MergeError(f"--journal: {self.path}: can't be written: {error.strerror}") from None
        except MergeError:
            self._close()
            raise

    def __exit__(self, *_: object) -> None:
        if self._file is None:
            return
        try:
            if self._empty:
                self.path.unlink(missing_ok=True)
            else:
                self._sync(self._file)
        finally:
            self._close()

    def add(self, request_id: str, ended: str) -> None:
        """Note how a mail ended."""
        assert self._file is not None
        self._empty = False
        self._file.write(f"{request_id} {ended}\n".encode())

    def flush(self) -> None:
        """Have what was added outlive this process, and a second later this machine's going down."""
        assert self._file is not None
        self._file.flush()
        if time.monotonic() - self._on_disk >= _ON_DISK_SECONDS:
            self._sync(self._file)

    def _open(self, file: BinaryIO) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MergeError(f"--journal: {self.path}: another merge is at work with it") from None
        if not self._is(file):
            raise MergeError(f"--journal: {self.path}: another merge has just ended with it; start again")
        file.seek(0)
        header = file.readline(len(_HEADER))
        if header and _HEADER.startswith(header) and header != _HEADER:  # it was broken off when it had hardly begun
            file.truncate(0)
            header = b""
        if not header:
            file.write(_HEADER)
            return
        if header != _HEADER:
            raise MergeError(f"--journal: {self.path}: is there, and is no journal of a merge; name another file")
        last = self._read(file)
        if not last.endswith(b"\n"):
            file.write(b"\n")

    def _is(self, file: BinaryIO) -> bool:
        """Whether what is locked is still what the path names: a merge that had nothing to note deletes its own."""
        try:
            return os.path.samestat(os.fstat(file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False

    def _read(self, lines: Iterable[bytes]) -> bytes:
        """Learn who has got it; returns the last line, which may be torn, as any that is not understood here."""
        line = _HEADER
        for line in lines:
            request_id, _, ended = line.rstrip(b"\n").partition(b" ")
            if ended == RELAYED.encode():
                self.relayed.add(request_id.decode("ascii", "replace"))
        return line

    def _sync(self, file: BinaryIO) -> None:
        file.flush()
        os.fsync(file.fileno())
        self._on_disk = time.monotonic()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
