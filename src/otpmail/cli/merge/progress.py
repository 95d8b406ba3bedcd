"""Shows how far a merge has come: a bar on a terminal, a line every few seconds elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from otpmail.cli.output import err
from otpmail.counts import mails

_EVERY_SECONDS = 5.0


class Shown(Protocol):
    """The counts that are shown."""

    @property
    def failed(self) -> int:
        """How many mails were not relayed."""

    @property
    def settled(self) -> int:
        """How many mails have a result."""

    @property
    def known(self) -> int:
        """How many of them had their result before this run."""


class _Rate(TextColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.0f}/s")


@contextmanager
def display(
    total: int, settled: int = 0, *, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[Shown], None]]:
    """A function that shows the counts; it may be called as often as results come.

    `settled` is how many mails have their result at the start. `clock` is in seconds.
    """
    if not err.is_terminal:
        yield _Lines(total, settled, clock)
        return
    columns = (TextColumn("mails"), BarColumn(), MofNCompleteColumn(), _Rate(""), TextColumn("{task.fields[more]}"))
    with Progress(*columns, TimeRemainingColumn(), console=err) as bar:
        task = bar.add_task("", total=total, completed=settled, more="")

        def show(now: Shown) -> None:
            """Move the bar to where the merge is now."""
            bar.update(task, completed=now.settled, more=", ".join(_more(now)))

        yield show


def _more(now: Shown) -> list[str]:
    return [
        *([f"{now.failed} failed"] if now.failed else []),
        *([f"{now.known} known already"] if now.known else []),
    ]


class _Lines:
    def __init__(self, total: int, settled: int, clock: Callable[[], float]) -> None:
        self._total = total
        self._clock = clock
        self._last = clock()
        self._settled = settled

    def __call__(self, now: Shown) -> None:
        passed = self._clock() - self._last
        if passed < _EVERY_SECONDS:
            return
        rate = (now.settled - self._settled) / passed
        err.print(", ".join([f"{now.settled} of {mails(self._total)}", f"{rate:.0f} a second", *_more(now)]))
        self._last += passed
        self._settled = now.settled
