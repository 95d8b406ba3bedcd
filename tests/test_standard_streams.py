"""Output that never raises, whatever becomes of its reader."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from io import BufferedWriter

import pytest

from otpmail.standard_streams import Output

_TEXT = b"0123456789abcdef" * (1 << 15)


def _read_all(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as file:
        return file.read()


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("most_seconds", [None, 60.0])
def test_a_reader_that_is_slower_gets_all(most_seconds: float | None, *, blocking: bool) -> None:
    """All of a long text arrives, also where another process made the pipe non-blocking."""
    reading, writing = os.pipe()
    os.set_blocking(writing, blocking)
    with ThreadPoolExecutor(1) as threads:
        read = threads.submit(_read_all, reading)
        output = Output(writing, most_seconds=most_seconds)
        with BufferedWriter(output) as file:
            file.write(_TEXT)
        os.close(writing)
        assert read.result() == _TEXT
    assert output.failure is None


def test_a_reader_that_does_not_read_is_waited_for_once() -> None:
    """Once the time for the reader is over, what is written is dropped, and the reason kept."""
    reading, writing = os.pipe()
    output = Output(writing, most_seconds=0.05)
    with BufferedWriter(output) as file:
        file.write(_TEXT)
        assert output.failure is not None
        file.write(_TEXT)
    assert output.failure.errno == errno.ETIMEDOUT
    os.close(writing)
    assert _TEXT.startswith(_read_all(reading))


def test_a_reader_that_has_gone() -> None:
    """A pipe without a reader is no error for the one who prints; success stays success."""
    reading, writing = os.pipe()
    os.close(reading)
    output = Output(writing)
    with BufferedWriter(output) as file:
        file.write(_TEXT)
    os.close(writing)
    assert output.failure is not None
    assert [output.exit_code(code) for code in (0, 1)] == [0, 1]
