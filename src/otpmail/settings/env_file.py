"""`.env` in the working directory: whether it can be read, and what it holds. What that means is `load`'s to know."""

from io import StringIO
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import Original, parse_stream

from otpmail.errors import SettingsError

NAME = ".env"


def read() -> dict[str, str]:
    """The values by their names, upper-case; an empty one stands for none. No file is an empty one.

    Raises SettingsError when it is no text, and with a line for each line that is neither an assignment nor a comment:
    alone, since what the rest comes to can't be known without it. None shows what it says, which may be a secret.
    """
    try:
        text = Path(NAME).read_text("utf-8")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        raise SettingsError(f"{NAME}: is not text in UTF-8") from None
    except OSError as error:
        raise SettingsError(f"{NAME}: can't be read: {error.strerror}") from None
    unreadable = [binding.original for binding in parse_stream(StringIO(text)) if binding.error]
    if unreadable:
        raise SettingsError(*(f"{NAME}: line {_number(line)}: {_fault(line.string)}" for line in unreadable))
    return {name.upper(): value or "" for name, value in dotenv_values(stream=StringIO(text)).items()}


def _number(line: Original) -> int:
    """Where it stands: the parser counts from the end of what it read before, blank lines included."""
    return line.line + line.string[: -len(line.string.lstrip())].count("\n")


def _fault(line: str) -> str:
    _, assigned, value = line.partition("=")
    if assigned and value.lstrip().startswith(("'", '"')):
        return "its quote is not closed, or has more behind it"
    return "is neither NAME=value nor a comment, which begins with #"
