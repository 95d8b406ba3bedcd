"""Standard output and error of a command: printing never raises, and never waits long for a reader of the errors.

A failure to print would otherwise end a command with a traceback and a code that says nothing about what it did.
"""

import errno
import io
import os
import select
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer
else:
    ReadableBuffer = object

EXIT_NOT_WRITTEN = 4
"""The command did what was asked, but its answer could not be written."""

_STALL_SECONDS = 3.0


class Output(io.RawIOBase):
    """Writes to a descriptor. Output that can't be written is dropped, and `failure` keeps the first reason.

    It waits for a reader that is slow, `most_seconds` in all if that is given. A terminal may be paused for longer.
    `was_closed`: the null device stands in for a stream that was closed at the start.
    """

    def __init__(self, fd: int, *, most_seconds: float | None = None, was_closed: bool = False) -> None:
        super().__init__()
        self._fd = fd
        self._was_closed = was_closed
        self._left = None if os.isatty(fd) else most_seconds
        self.failure: OSError | None = None

    def __repr__(self) -> str:
        return f"<Output {self._fd} failure={self.failure!r}>"

    def writable(self) -> bool:
        """Return True: this is an output."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._fd)

    def write(self, octets: ReadableBuffer, /) -> int:
        """Write some of the octets or drop all of them, and return how many that were. Raises nothing."""
        view = memoryview(octets).cast("B")
        while self._wait():
            try:
                # A pipe that is ready takes so many without blocking (POSIX, PIPE_BUF).
                return os.write(self._fd, view[: select.PIPE_BUF])
            except BlockingIOError:  # another process has filled it meanwhile
                continue
            except OSError as error:
                self.failure = self.failure or error
                break
        return len(view)

    def _wait(self) -> bool:
        """Wait until it can be written to, or shows an error; False if the time for that is over."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        began = time.monotonic()
        ready = poll.poll(None if self._left is None else self._left * 1000)
        if self._left is not None:
            self._left = max(0.0, self._left - (time.monotonic() - began))
        if not ready and self.failure is None:
            self.failure = TimeoutError(errno.ETIMEDOUT, "nobody reads it")
        return bool(ready)

    @property
    def loss(self) -> str:
        """Why nobody can have read what was written last, empty where somebody can."""
        if self._was_closed:
            return "it is closed"
        return "" if self.failure is None else self.failure.strerror or str(self.failure)

    def exit_code(self, code: int) -> int:
        """Return the exit code of a command that ends with `code`, after one line about what could not be written.

        A reader that has gone did not want more: the code stays. Otherwise success becomes EXIT_NOT_WRITTEN.
        """
        if self.failure is None:
            return code
        print(f"standard output: can't be written: {self.failure.strerror}", file=sys.stderr)  # noqa: T201  no markup
        return EXIT_NOT_WRITTEN if code == 0 and self.failure.errno != errno.EPIPE else code


def is_read() -> bool:
    """Whether standard output can still be written: False once the reader has gone, or the disk is full."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return not isinstance(raw, Output) or raw.failure is None


def loss_of_output() -> str:
    """Return why nobody can have read what was printed last and flushed, empty where somebody can."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.loss if isinstance(raw, Output) else ""


def set_up() -> Output:
    """Give this process standard streams that never raise, and return its standard output."""
    closed = _open_closed()
    encoding = sys.stdout.encoding if sys.stdout else "utf-8"
    sys.stdin = sys.stdin or open(0, encoding="utf-8")  # noqa: SIM115  for the whole life of the process
    output = Output(1, was_closed=1 in closed)
    sys.stdout = _text(output, encoding)
    sys.stderr = _text(Output(2, most_seconds=_STALL_SECONDS), encoding)
    return output


def _text(output: Output, encoding: str) -> io.TextIOWrapper:
    lines = output.isatty() or output.fileno() == 2
    return io.TextIOWrapper(io.BufferedWriter(output), encoding, errors="backslashreplace", line_buffering=lines)


def _open_closed() -> list[int]:
    """Open the null device in place of each standard stream that is closed, as after `2>&-`, and return which were.

    Otherwise the first socket would have the stream's number: libuv aborts over that, and the log would go to a relay.
    """
    closed = []
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            closed.append(os.open(os.devnull, os.O_RDWR))  # takes the lowest free number, which is this one
    return closed
