"""Another user of this machine, for tests of permissions: root, as whom CI may run, is denied nothing."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534
"""The user of that name on Debian, who owns nothing."""


@contextmanager
def as_another_user() -> Iterator[None]:
    """Give up root's rights to all files meanwhile, if the tests have them."""
    own = os.geteuid()
    if own == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(own)


@contextmanager
def folder_for_all() -> Iterator[Path]:
    """Make a folder that every user may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="otpmail-test-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path
        for folder in (path, *(inner for inner in path.iterdir() if inner.is_dir())):
            folder.chmod(0o755)  # so that it can be removed
