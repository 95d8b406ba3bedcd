"""How far a mail merge has come: a bar on a terminal, a line every few seconds elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from otpmail.cli.output import err

_EVERY_SECONDS = 5.0


class Shown(Protocol):
    """What is shown."""

    failed: int
    before: int

    @property
    def settled(self) -> int:
        """How many mails have their results."""


class _Rate(TextColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.0f}/s")


@contextmanager
def display(total: int, before: int = 0) -> Iterator[Callable[[Shown], None]]:
    """A function to be told how far it has come, as often as one likes. `before`: how many are through at the start."""
    if not err.is_terminal:
        yield _Lines(total, before)
        return
    columns = (TextColumn("mails"), BarColumn(), MofNCompleteColumn(), _Rate(""), TextColumn("{task.fields[more]}"))
    with Progress(*columns, TimeRemainingColumn(), console=err) as bar:
        task = bar.add_task("", total=total, completed=before, more="")

        def show(now: Shown) -> None:
            bar.update(task, completed=now.settled, more=", ".join(_more(now)))

        yield show


def _more(now: Shown) -> list[str]:
    return [
        *([f"{now.failed} failed"] if now.failed else []),
        *([f"{now.before} before this run"] if now.before else []),
    ]


class _Lines:
    def __init__(self, total: int, before: int) -> None:
        self._total = total
        self._last = time.monotonic()
        self._settled = before

    def __call__(self, now: Shown) -> None:
        passed = time.monotonic() - self._last
        if passed < _EVERY_SECONDS:
            return
        rate = (now.settled - self._settled) / passed
        err.print(", ".join([f"{now.settled} of {self._total} mails", f"{rate:.0f} a second", *_more(now)]))
        self._last += passed
        self._settled = now.settled
