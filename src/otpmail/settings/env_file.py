"""Reads `.env` in the working directory, once, and says which of its lines can't be read. The rest is `loader`'s."""

import re
from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from dotenv.parser import Binding, Original, parse_stream
from dotenv.variables import Variable, parse_variables

from otpmail.settings.spoilt import ASCII_SPACE, fault_at_ends

NAME = ".env"
_MOST_OCTETS = 1 << 20
_COMMENT = re.compile(r"\s#")


@dataclass(frozen=True, slots=True, repr=False)  # a repr would show secrets
class EnvFile:
    """The content of `.env`: values by their names in capitals, and a line for each part of it that can't be read.

    No such line shows the text of the file, which may be a secret.
    """

    values: Mapping[str, str]
    unreadable: tuple[str, ...] = ()
    comments: Mapping[str, int] = field(default_factory=dict)
    """The line of each value without quotes that a comment follows: it may be the rest of the value."""
    faults: Mapping[str, str] = field(default_factory=dict)
    """The fault of a value, by its name in capitals."""
    lines: Mapping[str, int] = field(default_factory=dict)
    """The line that sets a name in capitals, the last one if there are several."""


def read(environment: Mapping[str, str]) -> EnvFile:
    """Read the file; without one nothing is set. After a faulty quote the values are unknown, and left out.

    `${NAME}` and `${NAME:-default}` are references to earlier lines and to `environment`, but not in single quotes.
    """
    try:
        with Path(NAME).open("rb") as file:
            octets = file.read(_MOST_OCTETS + 1)
        if len(octets) > _MOST_OCTETS:
            return EnvFile({}, (f"{NAME}: is larger than {_MOST_OCTETS >> 20} MiB, which is no file of settings",))
        text = octets.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        return EnvFile({})
    except UnicodeDecodeError:
        return EnvFile({}, (f"{NAME}: is not text in UTF-8",))
    except OSError as error:
        return EnvFile({}, (f"{NAME}: can't be read: {error.strerror}",))
    bindings = list(parse_stream(StringIO(text)))
    found = _Values(environment)
    for binding in _assignments(bindings):
        found.add(binding)
    return EnvFile(
        {name.upper(): value for name, value in found.values.items()},
        tuple(_fault(binding.original) for binding in bindings if binding.error),
        found.comments,
        found.faults,
        found.lines,
    )


class _Values:
    """The values so far. A later line for a name replaces an earlier one, with what was wrong with it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.values: dict[str, str] = {}
        self.comments: dict[str, int] = {}
        self.faults: dict[str, str] = {}
        self.lines: dict[str, int] = {}
        self._environment = environment

    def add(self, binding: Binding) -> None:
        """Take the value of one line."""
        if binding.key is None:
            return
        name, value, line = binding.key.upper(), binding.value or "", _number(binding.original)
        self.lines[name] = line
        self.comments.pop(name, None)
        self.faults.pop(name, None)
        written = binding.original.string.partition("=")[2]
        if not _is_quoted(binding.original.string):
            if _COMMENT.search(written):
                self.comments[name] = line
            # The parser drops white space of every kind from the ends, and Docker's keeps what is not ASCII.
            elif text := written.strip(ASCII_SPACE):
                self._note(name, fault_at_ends(text))
        if not written.lstrip().startswith("'"):
            value, unknown = self._expand(value)
            if unknown:
                self._note(
                    name,
                    f"line {line} of {NAME} refers by ${{}} to a name that is not set; single quotes keep a $",
                )
        self.values[binding.key] = value

    def _note(self, name: str, fault: str | None) -> None:
        if fault is not None:
            self.faults.setdefault(name, fault)

    def _expand(self, text: str) -> tuple[str, bool]:
        """Replace the references in a value; the second is whether one of them refers to nothing."""
        if "$" not in text:
            return text, False
        known = ChainMap(self.values, dict(self._environment))
        parts = list(parse_variables(text))
        unknown = any(isinstance(p, Variable) and p.name not in known and p.default is None for p in parts)
        return "".join(part.resolve(known) for part in parts), unknown


def _assignments(bindings: list[Binding]) -> Iterator[Binding]:
    """The lines that can be read. Those after a quote that is not closed may belong to its value, a secret even."""
    for binding in bindings:
        if not binding.error:
            yield binding
        elif _is_quoted(binding.original.string):
            break


def _fault(line: Original) -> str:
    fault = (
        "its quote is not closed, or text follows it"
        if _is_quoted(line.string)
        else "is neither NAME=value nor a comment, which begins with #"
    )
    return f"{NAME}: line {_number(line)}: {fault}"


def _number(line: Original) -> int:
    # The parser counts from the end of what it read before, blank lines included.
    return line.line + line.string[: -len(line.string.lstrip())].count("\n")


def _is_quoted(line: str) -> bool:
    _, assigned, value = line.partition("=")
    return bool(assigned) and value.lstrip().startswith(("'", '"'))
