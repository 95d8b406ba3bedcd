"""How long a code is valid, for templates of the older form: in whole minutes, below two minutes in seconds."""

import re
from importlib.resources.abc import Traversable
from typing import Self

from otpmail.compose.template_files import read_text
from otpmail.compose.time_left import SECOND, in_units, whole_minutes
from otpmail.values import frozen

FILE = "valid_for.txt"
_FORMS = frozenset({"minutes", "second", "seconds"})
_LINE = re.compile(r"(?P<form>[a-z]+): *(?P<words>.*\S)")


@frozen()
class ValidityWords:
    """The words for a time, with `$n` for its number: two minutes or more, one second, and any other seconds.

    The defaults are the symbols of SI, which need neither a language nor a plural.
    """

    minutes: str = "$n min"
    second: str = "$n s"
    seconds: str = "$n s"

    @classmethod
    def read(cls, folder: Traversable) -> Self:
        """Read `valid_for.txt` of a template, with a line `form: words` for each form; the defaults without that file.

        Raises ValueError for a file that can't be read, lacks a form, has another one, or has one without `$n`.
        """
        text = read_text(folder, FILE)
        if text is None:
            return cls()
        lines = [_LINE.fullmatch(line.strip()) for line in text.splitlines() if line.strip()]
        words = {line["form"]: line["words"] for line in lines if line is not None}
        if len(words) != len(lines) or words.keys() != _FORMS:
            raise ValueError(
                f"{FILE} must have three lines: minutes, second and seconds, each with a colon and its words"
            )
        if not all("$n" in form for form in words.values()):
            raise ValueError(f"{FILE} must have $n in each line, which becomes the number")
        return cls(**words)

    def values(self, seconds: float) -> dict[str, str]:
        """Return `valid_for` and `minutes`, for a template to be filled in with, of a time that is left, never zero.

        A minute alone is 60 seconds: there is no word for one.
        """
        whole = max(1, round(seconds))
        unit, number = in_units(whole)
        minutes = whole_minutes(whole)
        if unit == SECOND or minutes == 1:
            number = number if unit == SECOND else 60
            words = (self.second if number == 1 else self.seconds).replace("$n", str(number))
        else:
            words = self.minutes.replace("$n", str(minutes))
        return {"valid_for": words, "minutes": str(minutes)}
