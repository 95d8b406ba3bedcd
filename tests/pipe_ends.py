"""Pipes of which a test closes an end, or both, or neither."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def opened() -> Iterator[tuple[int, int]]:
    """Open a pipe: the end to read, the end to write. An end that the test has not closed is closed after it."""
    ends = os.pipe()
    files = [os.fstat(fd) for fd in ends]
    yield ends
    for fd, file in zip(ends, files, strict=True):
        try:
            if os.path.samestat(os.fstat(fd), file):  # the number may be another file's by now
                os.close(fd)
        except OSError:  # the test has closed it
            continue
