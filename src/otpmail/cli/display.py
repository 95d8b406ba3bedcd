"""How far a mail merge has come: a bar on a terminal, a line every few seconds elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from otpmail.cli.answers import err

_EVERY_SECONDS = 5.0


class Shown(Protocol):
    """What is shown."""

    failed: int

    @property
    def settled(self) -> int:
        """How many mails have their results."""


class _Rate(TextColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.0f}/s")


@contextmanager
def display(total: int) -> Iterator[Callable[[Shown], None]]:
    """A function to be told how far it has come, as often as one likes."""
    if not err.is_terminal:
        yield _Lines(total)
        return
    columns = (TextColumn("mails"), BarColumn(), MofNCompleteColumn(), _Rate(""), TextColumn("{task.fields[failed]}"))
    with Progress(*columns, TimeRemainingColumn(), console=err) as bar:
        task = bar.add_task("", total=total, failed="")

        def show(now: Shown) -> None:
            bar.update(task, completed=now.settled, failed=f"{now.failed} failed" if now.failed else "")

        yield show


class _Lines:
    def __init__(self, total: int) -> None:
        self._total = total
        self._last = time.monotonic()
        self._settled = 0

    def __call__(self, now: Shown) -> None:
        passed = time.monotonic() - self._last
        if passed < _EVERY_SECONDS:
            return
        rate = (now.settled - self._settled) / passed
        err.print(f"{now.settled} of {self._total} mails, {rate:.0f} a second, {now.failed} failed")
        self._last += passed
        self._settled = now.settled
