"""Reads a small file that holds a secret, and says what is wrong with one that can't be read, without showing it."""

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from otpmail.settings.spoilt import fault_at_ends, holds_control_character

_MOST_OCTETS = 64 << 10
NOT_THERE = "does not exist"
_NO_FILE = "is a socket, a pipe or a device, and no file"


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A file, and the secret that it held when it was read."""

    path: Path
    text: str = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file; the line end after the secret is no part of it.

        Raises ValueError that says what is wrong, an empty file and one with several lines included.
        """
        text = read_text(path).removesuffix("\n").removesuffix("\r")
        if not text:
            raise ValueError("is empty")
        if "\n" in text or "\r" in text:
            raise ValueError("has more than one line")
        if holds_control_character(text):
            raise ValueError("holds a control character, such as a tab")
        if fault := fault_at_ends(text):
            raise ValueError(fault)
        return cls(path, text)


def read_text(path: Path, *, most_octets: int = _MOST_OCTETS) -> str:
    """The text of a small regular file. Raises ValueError that says what is wrong; never waits for a pipe."""
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError(_NO_FILE)
            octets = file.read(most_octets + 1)
        if len(octets) > most_octets:
            raise ValueError(f"is larger than {most_octets >> 10} KiB")
        return octets.decode("utf-8-sig")
    except IsADirectoryError:
        raise ValueError("is a directory, as Docker makes it in place of a mounted file that is missing") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(f"is not text in UTF-8{f' (line {line})' if line > 1 else ''}") from None
    except FileNotFoundError:
        raise ValueError("is a link to nothing" if path.is_symlink() else NOT_THERE) from None
    except OSError as error:
        raise ValueError(_NO_FILE if error.errno == errno.ENXIO else f"can't be read: {error.strerror}") from None


def is_readable(path: Path) -> bool:
    """Whether the path is a regular file that can be read."""
    try:
        return path.is_file() and os.access(path, os.R_OK, effective_ids=True)
    except OSError:  # a directory on the way that is closed to us
        return False


def is_readable_directory(path: Path) -> bool:
    """Whether the path is a directory that can be listed and entered."""
    try:
        return path.is_dir() and os.access(path, os.R_OK | os.X_OK, effective_ids=True)
    except (OSError, ValueError):  # as above; a null can't be part of a path
        return False


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
