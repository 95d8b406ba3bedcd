"""Finds the line of a key in a TOML file: tomllib knows the lines of its own errors alone."""

import re
import tomllib
from ast import literal_eval
from collections.abc import Iterator

from otpmail.callers import head_of

_HEADER = re.compile(r"\s*\[{1,2}(?P<key>.+?)\]{1,2}\s*(?:#.*)?")
_PAIR = re.compile(r"""\s*(?P<key>(?:[A-Za-z0-9_.\s-]|"[^"]*"|'[^']*')+?)\s*=""")
# The parts of TOML: texts of four kinds, comments, brackets and commas, line ends, and other values.
_PIECE = re.compile(
    r"""\"{3}(?:\\.|[^\\])*?\"{3}|'{3}.*?'{3}|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|\#[^\n]*|[\[\]{},\n]|[^\s\[\]{},\#"']+""",
    re.DOTALL,
)
_LONG_QUOTES = ('"""', "'''")
_LONGEST_NUMBER = 4300  # digits that Python reads
_TWICE = re.compile(r"Cannot declare (?P<path>\(.+\)) twice")
_AT_LINE = re.compile(r" \(at (?:line (?P<line>[0-9]+), column [0-9]+|end of document)\)$")

Path = tuple[str, ...]


class TomlLines:
    """The line of each key in a text, by its path through the tables."""

    def __init__(self, text: str) -> None:
        self._lines: dict[Path, int] = {}
        for path, number in _keys(_PIECE.sub(_without_lines, text)):
            self._lines.setdefault(path, number)

    def __repr__(self) -> str:
        return f"<TomlLines {len(self._lines)} keys>"

    def find(self, *path: str) -> int:
        """Return the line of a key, else that of the nearest table around it; 0 where none is found.

        An item of a list has the name of its key with its place, as in `tokens[0]`.
        """
        while path:
            if path in self._lines:
                return self._lines[path]
            *table, key = path
            plain = key.partition("[")[0]
            path = (*table, plain) if plain != key else tuple(table)
        return 0


def split_error(error: tomllib.TOMLDecodeError, text: str) -> tuple[int, str]:
    """Return the line of an error, and what is wrong there."""
    said = str(error)
    match = _AT_LINE.search(said)
    if match is None:
        return 0, said
    line = int(match["line"]) if match["line"] else text.count("\n") + 1
    return line, _in_words(said[: match.start()])


def _in_words(said: str) -> str:
    """Return what is wrong in words of ours, where tomllib has those of its own code."""
    if match := _TWICE.fullmatch(said):
        return f"{head_of(*literal_eval(match['path']))} is there twice"
    return "this key is there already" if said == "Cannot overwrite a value" else said


def line_beyond_bounds(text: str) -> int:
    """Return the line of the first number that is too long to be read, else where lists are nested the most."""
    number, depth, deepest, found = 1, 0, 0, 1
    for match in _PIECE.finditer(text):
        piece = match[0]
        if piece in {"[", "{"}:
            depth += 1
        elif piece in {"]", "}"}:
            depth -= 1
        elif len(piece) > _LONGEST_NUMBER and piece.isdecimal():
            return number
        if depth > deepest:
            deepest, found = depth, number
        number += piece.count("\n")
    return found


def _without_lines(piece: re.Match[str]) -> str:
    """Return a part of a file, an empty text for one of several lines, which may hold what looks like a table."""
    text = piece[0]
    return '""' + "\n" * text.count("\n") if text.startswith(_LONG_QUOTES) else text


def _keys(text: str) -> Iterator[tuple[Path, int]]:
    table: Path = ()
    start = 0
    for number, line in enumerate(text.split("\n"), 1):
        if match := _HEADER.fullmatch(line):
            table = _parts(match["key"])
            yield from ((table[:end], number) for end in range(len(table), 0, -1))
        elif match := _PAIR.match(line):
            path = table + _parts(match["key"])
            yield from ((path[:end], number) for end in range(len(path), len(table), -1))
            if path and line[match.end() :].lstrip().startswith("["):
                yield from _items(text, start + match.end(), path, number)
        start += len(line) + 1


def _items(text: str, start: int, path: Path, number: int) -> Iterator[tuple[Path, int]]:
    """Yield each item of the list behind a key: its path ends in the key with the place, as in `tokens[0]`."""
    depth = place = 0
    is_new = False
    for match in _PIECE.finditer(text, start):
        piece = match[0]
        if piece in {"]", "}"}:
            depth -= 1
            if not depth:
                return
        elif piece == "," and depth == 1:
            place, is_new = place + 1, True
        elif is_new and piece != "\n" and not piece.startswith("#"):
            yield (*path[:-1], f"{path[-1]}[{place}]"), number
            is_new = False
        if piece in {"[", "{"}:
            depth += 1
            is_new = is_new or depth == 1
        number += piece.count("\n")


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
