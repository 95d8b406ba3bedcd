"""Files that are read at the start, and again when they change, with the folders that they name."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from math import inf
from pathlib import Path
from typing import Any, Generic, TypeVar

from otpmail.errors import SettingsError
from otpmail.threads import start_daemon

_FRESH_NS = 2_000_000_000  # a file may change again within the tick of its clock, and look the same
_RETRY_SECONDS = 5.0  # until files are read again that could not be read, or had a mistake
_LEVELS = 3  # of folders with templates: a locale, a purpose, the files
_MOST_PATHS = 2000  # of a folder, which may be any

Look = Mapping[Path, object]
ValueT = TypeVar("ValueT")


class WatchedFiles(Generic[ValueT]):
    """Files that are read together, whenever they change. `read` raises SettingsError; `value` is its last result.

    A file that is being written, or exchanged with others, could be read half. Half a file of callers may be a good
    one, with some of them. So files are read once they have looked the same twice, and again if they changed meanwhile.
    Those that could not be read are read again after `retry_seconds`, however they look. Their permissions may be
    mended, or there may be a free descriptor. `folders` are those that the last reading has read too.
    """

    def __init__(
        self,
        setting: str,
        paths: Collection[Path],
        read: Callable[[], ValueT],
        folders: Callable[[], Collection[Path]] = tuple,
        *,
        retry_seconds: float = _RETRY_SECONDS,
    ) -> None:
        self.setting = setting
        self._retry_seconds = retry_seconds
        self._retry_at = inf  # on the monotonic clock
        self._paths = paths
        self._read = read
        self._folders = folders
        self._seen: Look
        look, is_fresh = self._look(paths)
        self.value = read()
        self._note_seen(look, is_fresh=is_fresh)
        self._last = self._seen
        self._faulty: Look = {}
        self.problems: tuple[str, ...] = ()
        """The mistakes that the last reading found."""
        self.is_other_fault = False
        """Whether the last mistakes were found in files that have changed since those before, if only by an edit."""
        self.rests_until = 0.0
        """Until when no look is taken unless it is requested, on the clock of the loop."""

    def __repr__(self) -> str:
        return f"<WatchedFiles {self.setting} {self.problems}>"

    def may_differ(self) -> bool:
        """Whether the files look as if they were to be read again. Nothing changes by it. Runs in a thread."""
        is_due = self._was_fresh or time.monotonic() >= self._retry_at
        return is_due or self._look(self._all_paths())[0] != self._seen

    def read_if_changed(self, *, always: bool) -> ValueT | None:
        """Read the files again if they have changed. Returns what they hold, None if nothing is new.

        With `always` it does not wait for a second look. Raises SettingsError. Runs in a thread.
        """
        look, is_fresh = self._look(self._all_paths())
        is_still, self._last = look == self._last, look
        may_differ = look != self._seen or self._was_fresh or time.monotonic() >= self._retry_at
        if not (always or (may_differ and is_still)):
            return None
        try:
            value = self._read()
        except SettingsError:
            self._retry_at = time.monotonic() + self._retry_seconds
            if self._is_whole(look, is_fresh=is_fresh):
                self.is_other_fault, self._faulty = look != self._faulty, look
                raise
            return None
        if not self._is_whole(look, is_fresh=is_fresh):
            return None
        self._retry_at = inf
        return value if value != self.value or self.problems else None

    def _is_whole(self, look: Look, *, is_fresh: bool) -> bool:
        """Whether the files still look as before they were read. If not, a later look reads them again."""
        if self._look(look)[0] != look:
            return False
        self._note_seen(look, is_fresh=is_fresh)
        return True

    def _note_seen(self, look: Look, *, is_fresh: bool) -> None:
        """Note how the files looked before they were read, and how others look that were read for the first time."""
        now, is_other_fresh = self._look(self._all_paths())
        self._seen = {path: look.get(path, mark) for path, mark in now.items()}
        self._was_fresh = is_fresh or is_other_fresh

    def _all_paths(self) -> Iterator[Path]:
        yield from self._paths
        for folder in list(self._folders()):
            yield from islice(_paths_in(folder, _LEVELS), _MOST_PATHS)

    @staticmethod
    def _look(paths: Iterable[Path]) -> tuple[Look, bool]:
        """Return marks of the files, and whether one changed so lately that a change could leave the same."""
        now = time.time_ns()
        look: dict[Path, object] = {}
        is_fresh = False
        for path in paths:
            try:
                found = os.stat(path)  # noqa: PTH116  a link is followed: Kubernetes changes what it leads to
            except OSError as error:
                look[path] = error.errno
                continue
            is_fresh = is_fresh or abs(now - found.st_mtime_ns) < _FRESH_NS
            look[path] = (found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev)
        return look, is_fresh


class ChangeWatch:
    """Looks at files in one thread, and calls `on_change` in the loop where some may differ from what was read.

    A thread for each look, and a wake-up of the loop for its answer, would cost ten times as much. After `on_change` it
    looks no more until `resume`, while others read the files.
    """

    def __init__(
        self, files: Sequence[WatchedFiles[Any]], on_change: Callable[[], None], *, look_seconds: float
    ) -> None:
        self._files = files
        self._on_change = on_change
        self._look_seconds = look_seconds
        self._loop = asyncio.get_running_loop()
        self._stopped = threading.Event()
        self._rests = False

    def __repr__(self) -> str:
        return f"<ChangeWatch {', '.join(files.setting for files in self._files)}>"

    @contextmanager
    def running(self) -> Iterator[bool]:
        """Look within the block; yields False where no thread can be started, and nobody looks."""
        try:
            start_daemon(self._run, "changes of files")
            has_thread = True
        except RuntimeError:  # a limit on processes and threads
            has_thread = False
        try:
            yield has_thread
        finally:
            self._stopped.set()

    def resume(self) -> None:
        """Look again from now on."""
        self._rests = False

    def _run(self) -> None:
        while not self._stopped.wait(self._look_seconds):
            if self._rests or not self._may_differ():
                continue
            self._rests = True
            try:
                self._loop.call_soon_threadsafe(self._on_change)
            except RuntimeError:  # the loop has ended
                return

    def _may_differ(self) -> bool:
        try:
            return any(files.may_differ() for files in self._files)
        except Exception:  # noqa: BLE001  whatever it is, the reader will find it, and say so
            return True


def _paths_in(folder: Path, levels: int) -> Iterator[Path]:
    """Return a folder and what is in it, but for hidden files, which are no templates."""
    yield folder
    if levels:
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith((".", "__")):
                    continue
                if entry.is_dir():
                    yield from _paths_in(Path(entry.path), levels - 1)
                else:
                    yield Path(entry.path)
