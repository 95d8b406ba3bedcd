"""Gathers what is wrong with the settings, so that one run names every mistake."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from otpmail.errors import SettingsError

_MOST_QUOTED = 100


def quoted(value: object) -> str:
    """Return a wrong value in quotes, escaped and cut: a variable may hold a whole file."""
    text = repr(value)
    return text if len(text) <= _MOST_QUOTED else f"{text[: _MOST_QUOTED - 4]}...{text[-1]}"


class Problem(NamedTuple):
    """One line for a person, which opens with the setting to change, and the names of all settings it is about."""

    line: str
    names: tuple[str, ...] = ()


class Problems:
    """The problems found so far. A wrong setting counts as its default meanwhile, and nothing is concluded from it."""

    def __init__(self) -> None:
        self._found: list[Problem] = []
        self._wrong: set[str] = set()
        self._conclusive = True

    def __repr__(self) -> str:
        return f"<Problems {len(self._found)}, {len(self._wrong)} settings wrong>"

    def __iter__(self) -> Iterator[Problem]:
        return iter(self._found)

    def add(self, problem: Problem) -> None:
        """Keep what is wrong by itself, whatever else is set."""
        self._found.append(problem)
        self._wrong.update(problem.names)

    def add_unreadable(self, lines: Iterable[str]) -> None:
        """Keep a line for each part of the sources that can't be read.

        The settings in that part are unknown, so no conclusion is drawn any more.
        """
        for line in lines:
            self._found.append(Problem(line))
            self._conclusive = False

    def conclude(self, problem: Problem) -> None:
        """Keep what does not go together, or is missing, unless one of its settings is unknown."""
        if self._conclusive and self.are_good(*problem.names):
            self._found.append(problem)

    def are_good(self, *names: str) -> bool:
        """Whether none of these settings is wrong by itself."""
        return self._wrong.isdisjoint(names)

    def raise_if_any(self) -> None:
        """Raise SettingsError with a line for each problem."""
        if self._found:
            raise SettingsError(*(problem.line for problem in self._found))
