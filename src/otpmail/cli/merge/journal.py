"""The journal of a merge: which mails have a result, in a file that outlives the run and the service's memory.

Each line is one mail's request id and its result; the id does not tell the recipient. Lines are only appended, so an
interrupted run loses at most the last one.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from otpmail.cli.merge.csv_source import MergeError

RELAYED = "RELAYED"
_MARK = b"# Journal of an otpmail mail merge:"
_HEADER = _MARK + b" what is RELAYED is not sent again. How to send all again: otpmail merge --help\n"
_SYNC_SECONDS = 1.0  # at most the lines of this last time are lost when the machine goes down


class Journal:
    """A file that is read when it is opened, before any mail is sent, and appended to as results come.

    `clock` is in seconds, and only moves forward.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self.relayed: set[str] = set()  # request ids
        self._file: BinaryIO | None = None
        self._empty = False  # this run has created the file, and added nothing
        self._clock = clock
        self._synced = clock()

    def __repr__(self) -> str:
        return f"<Journal {self.path}, {len(self.relayed)} relayed before>"

    def __enter__(self) -> None:
        self._empty = not self.path.exists()
        if not (self._empty or self.path.is_file()):
            raise MergeError(f"--journal: {self.path}: exists, and is not a regular file")
        try:
            self._file = self.path.open("a+b")
            self._open(self._file)
        except OSError as error:
            self._close()
            raise MergeError(f"--journal: {self.path}: cannot be written: {error.strerror}") from None
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

    def add(self, request_id: str, result: str) -> None:
        """Append a mail's result."""
        assert self._file is not None
        self._empty = False
        self._file.write(f"{request_id} {result}\n".encode())

    def flush(self) -> None:
        """Hand what was added to the operating system, and bring it to the disk if that was a second ago."""
        assert self._file is not None
        self._file.flush()
        if self._clock() - self._synced >= _SYNC_SECONDS:
            self._sync(self._file)

    def _open(self, file: BinaryIO) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MergeError(f"--journal: {self.path}: another merge is using it") from None
        if not self._is(file):
            raise MergeError(f"--journal: {self.path}: another merge has just deleted it; run the command again")
        file.seek(0)
        header = file.readline(len(_HEADER))
        if header and _HEADER.startswith(header) and header != _HEADER:  # a run was interrupted within the header
            file.truncate(0)
            header = b""
        if not header:
            file.write(_HEADER)
            return
        if not header.startswith(_MARK):
            raise MergeError(f"--journal: {self.path}: exists, and is not a journal of a merge; name another file")
        last = self._read(file)
        if not last.endswith(b"\n"):
            file.write(b"\n")

    def _is(self, file: BinaryIO) -> bool:
        """Whether the path still names the locked file: a merge without results deletes its own journal."""
        try:
            return os.path.samestat(os.fstat(file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False

    def _read(self, lines: Iterable[bytes]) -> bytes:
        """Read which mails were relayed; return the last line, which may be incomplete. Unknown lines are skipped."""
        line = _HEADER
        for line in lines:
            request_id, _, result = line.rstrip(b"\n").partition(b" ")
            if result == RELAYED.encode():
                self.relayed.add(request_id.decode("ascii", "replace"))
        return line

    def _sync(self, file: BinaryIO) -> None:
        file.flush()
        os.fsync(file.fileno())
        self._synced = self._clock()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
