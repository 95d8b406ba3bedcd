"""Reads `.env` in the working directory, once, and says which of its lines can't be read. The rest is `loader`'s."""

from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import Binding, Original, parse_stream

NAME = ".env"


@dataclass(frozen=True, slots=True, repr=False)  # a repr would show secrets
class EnvFile:
    """The content of `.env`: values by their names in capitals, and a line for each part of it that can't be read.

    No such line shows the text of the file, which may be a secret.
    """

    values: Mapping[str, str]
    unreadable: tuple[str, ...] = ()


def read() -> EnvFile:
    """Read the file; without one nothing is set. After a faulty quote the values are unknown, and left out."""
    try:
        text = Path(NAME).read_text("utf-8")
    except FileNotFoundError:
        return EnvFile({})
    except UnicodeDecodeError:
        return EnvFile({}, (f"{NAME}: is not text in UTF-8",))
    except OSError as error:
        return EnvFile({}, (f"{NAME}: can't be read: {error.strerror}",))
    bindings = list(parse_stream(StringIO(text)))
    good = dotenv_values(stream=StringIO("".join(_assignments(bindings))))
    return EnvFile(
        {name.upper(): value or "" for name, value in good.items()},
        tuple(_fault(binding.original) for binding in bindings if binding.error),
    )


def _assignments(bindings: list[Binding]) -> list[str]:
    """The lines that can be read. Those after a quote that is not closed may belong to its value, a secret even."""
    lines: list[str] = []
    for binding in bindings:
        if not binding.error:
            lines.append(binding.original.string)
        elif _is_quoted(binding.original.string):
            break
    return lines


def _fault(line: Original) -> str:
    # The parser counts from the end of what it read before, blank lines included.
    number = line.line + line.string[: -len(line.string.lstrip())].count("\n")
    fault = (
        "its quote is not closed, or text follows it"
        if _is_quoted(line.string)
        else "is neither NAME=value nor a comment, which begins with #"
    )
    return f"{NAME}: line {number}: {fault}"


def _is_quoted(line: str) -> bool:
    _, assigned, value = line.partition("=")
    return bool(assigned) and value.lstrip().startswith(("'", '"'))
