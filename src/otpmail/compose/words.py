"""The words of the mails of codes in one language: phrases by the kind of a purpose, and times with their plurals.

They stand in a file of TOML for each language. A phrase has holes such as `{code}`; a part in square brackets is left
out where the product has no name.
"""

import re
from collections.abc import Mapping
from dataclasses import field
from typing import Any
from unicodedata import bidirectional

from otpmail.compose.plurals import rule_of
from otpmail.compose.purposes import ALL_KINDS
from otpmail.values import frozen

OF_A_KIND = ("subject", "title", "lead", "ignore")
OF_ALL = ("valid", "phone", "reference", "support")
UNITS = ("hour", "minute", "second")

_FIXED = ("product", "support")
_HOLES = frozenset({"code", "time", "reference", *_FIXED})
_HOLE = re.compile(r"\{([^{}]*)\}")
_OPTIONAL = re.compile(r"\[([^\[\]]*)\]")
_RIGHT_TO_LEFT = frozenset({"R", "AL"})
_LEFT_MARK = "\u200e"
_IN_SECONDS_BELOW = 120
_IN_MINUTES_BELOW = 7200


class TimeWords:
    """A time in words, in the largest unit of which it has two: "2 hours", "10 minutes", "90 seconds"."""

    def __init__(self, language: str, forms: Mapping[str, Mapping[str, str]]) -> None:
        self._rule, _ = rule_of(language)
        self._forms = forms
        self._known: dict[int, str] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TimeWords) and self._forms == other._forms

    def __hash__(self) -> int:
        return hash(tuple(self._forms))

    def __repr__(self) -> str:
        return f"<TimeWords {self.values(600.0)['valid_for']}>"

    def values(self, seconds: float) -> dict[str, str]:
        """Return `valid_for` and `minutes` of a time that is left, never zero.

        Minutes are the nearest, so a mail that is repeated at once says the same. Seconds and hours are rounded down.
        The difference of two times may be a microsecond too short: a whole second is not lost by that.
        """
        whole = max(1, int(seconds + 0.001))
        minutes = (whole + 30 if whole >= _IN_SECONDS_BELOW else whole) // 60
        if whole >= _IN_SECONDS_BELOW:
            whole = minutes * 60 if whole < _IN_MINUTES_BELOW else whole // 3600 * 3600
        # fast path: a time is put into words once, 1 us; there are fewer than 300 of them in a day
        words = self._known.get(whole)
        if words is None:
            words = self._known[whole] = self._in_words(whole)
        return {"valid_for": words, "minutes": str(max(1, minutes))}

    def _in_words(self, whole: int) -> str:
        if whole < _IN_SECONDS_BELOW:
            unit, number = "second", whole
        elif whole < _IN_MINUTES_BELOW:
            unit, number = "minute", whole // 60
        else:
            unit, number = "hour", whole // 3600
        return self._forms[unit][self._rule(number)].replace("{n}", str(number))


@frozen()
class Words:
    """The words of a language. `phrases` are by kind, each with all phrases of a mail."""

    tag: str
    right_to_left: bool
    phrases: Mapping[str, Mapping[str, str]] = field(hash=False)
    times: TimeWords

    @property
    def direction(self) -> str:
        """The direction of its script, as HTML has it."""
        return "rtl" if self.right_to_left else "ltr"

    def of(self, kind: str, *, with_product: bool) -> dict[str, str]:
        """Return the phrases for a kind of purpose, with what they say of a product or without."""
        kept = r"\1" if with_product else ""
        return {name: _OPTIONAL.sub(kept, phrase) for name, phrase in self.phrases[kind].items()}


def kept_together(name: str) -> str:
    """Return a name for text that runs from right to left: signs at the ends of a Latin one stay at their ends.

    Without a mark, those of "C++" and "(Shop)" would go to the other side (Unicode UAX 9, N1 and N2).
    """
    if not name or any(bidirectional(letter) in _RIGHT_TO_LEFT for letter in name):
        return name
    return f"{'' if name[0].isalpha() else _LEFT_MARK}{name}{'' if name[-1].isalnum() else _LEFT_MARK}"


def fill(phrase: str, values: Mapping[str, str]) -> str:
    """Fill the holes of a phrase, all at once: what looks like a hole in a value is text."""
    return _HOLE.sub(lambda hole: values.get(hole[1], hole[0]), phrase)


def read_words(tag: str, table: Mapping[str, Any]) -> Words:
    """Read the words of a language. Raises ValueError for a table that lacks one, or has a hole that is unknown."""
    common = {name: _phrase(table, name) for name in OF_ALL}
    phrases = {
        kind: {**common, **{name: _phrase(table.get(kind), name, kind) for name in OF_A_KIND}} for kind in ALL_KINDS
    }
    language = tag.partition("-")[0]
    _, needed = rule_of(language)
    forms = {unit: {form: _phrase(table.get(unit), form, unit, holes={"n"}) for form in needed} for unit in UNITS}
    return Words(tag, table.get("direction") == "rtl", phrases, TimeWords(language, forms))


def _phrase(table: object, name: str, where: str = "", *, holes: frozenset[str] | set[str] = _HOLES) -> str:
    phrase = table.get(name) if isinstance(table, dict) else None
    place = f"{where}.{name}" if where else name
    if not isinstance(phrase, str) or not phrase.strip():
        raise ValueError(f"lacks {place}, a text in quotes")
    if unknown := {hole for hole in _HOLE.findall(phrase) if hole not in holes}:
        raise ValueError(
            f"{place} has {{{min(unknown)}}}; there are {', '.join(f'{{{hole}}}' for hole in sorted(holes))}"
        )
    return phrase
