"""Finds the line of a key in a TOML file: tomllib knows the lines of its own errors alone."""

import re
import tomllib
from collections.abc import Iterator

_HEADER = re.compile(r"\s*\[{1,2}(?P<key>.+?)\]{1,2}\s*(?:#.*)?")
_PAIR = re.compile(r"""\s*(?P<key>(?:[A-Za-z0-9_.\s-]|"[^"]*"|'[^']*')+?)\s*=""")
_AT_LINE = re.compile(r" \(at (?:line (?P<line>[0-9]+), column [0-9]+|end of document)\)$")

Path = tuple[str, ...]


class TomlLines:
    """The line of each key in a text, by its path through the tables. A key in a text of several lines may be wrong."""

    def __init__(self, text: str) -> None:
        self._lines: dict[Path, int] = {}
        for path, number in _keys(text):
            self._lines.setdefault(path, number)

    def __repr__(self) -> str:
        return f"<TomlLines {len(self._lines)} keys>"

    def find(self, *path: str) -> int:
        """Return the line of a key, else that of the nearest table around it; 0 where none is found."""
        while path:
            if path in self._lines:
                return self._lines[path]
            path = path[:-1]
        return 0


def split_error(error: tomllib.TOMLDecodeError, text: str) -> tuple[int, str]:
    """Return the line of an error, and what is wrong there."""
    said = str(error)
    match = _AT_LINE.search(said)
    if match is None:
        return 0, said
    line = int(match["line"]) if match["line"] else text.count("\n") + 1
    return line, said[: match.start()]


def _keys(text: str) -> Iterator[tuple[Path, int]]:
    table: Path = ()
    for number, line in enumerate(text.splitlines(), 1):
        if match := _HEADER.fullmatch(line):
            table = _parts(match["key"])
            yield from ((table[:end], number) for end in range(len(table), 0, -1))
        elif match := _PAIR.match(line):
            path = table + _parts(match["key"])
            yield from ((path[:end], number) for end in range(len(path), len(table), -1))


def _parts(key: str) -> Path:
    """Return the parts of a dotted key, none for what is no key."""
    try:
        value: object = tomllib.loads(f"{key} = 0")
    except (ValueError, RecursionError):
        return ()
    parts = []
    while isinstance(value, dict):
        if len(value) != 1:  # a comment, in the place of a key
            return ()
        ((part, value),) = value.items()
        parts.append(part)
    return tuple(parts)
