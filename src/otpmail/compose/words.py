"""The words of the mails of codes in one language: phrases by the kind of a purpose, and times with their plurals.

They stand in a file of TOML for each language. A phrase has holes such as `{code}`; a part in square brackets is left
out where the product has no name.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import field
from difflib import get_close_matches
from typing import Any
from unicodedata import bidirectional

from otpmail.compose.plurals import CATEGORIES, rule_of
from otpmail.compose.purposes import ALL_KINDS
from otpmail.compose.time_left import HOUR, MINUTE, SECOND, in_units, whole_minutes
from otpmail.values import frozen

OF_A_KIND = ("subject", "title", "lead", "ignore")
OF_ALL = ("valid", "phone", "reference", "support")
UNITS = (HOUR, MINUTE, SECOND)

_FIXED = ("product", "support")
_HOLES = frozenset({"code", "time", "reference", *_FIXED})
_DIRECTIONS = ("ltr", "rtl")
_HOLE = re.compile(r"\{([^{}]*)\}")
_OPTIONAL = re.compile(r"\[([^\[\]]*)\]")
_STRAY = re.compile(r"[{}\[\]]")
_PARTS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("direction", *OF_ALL), ()),
    **dict.fromkeys(ALL_KINDS, OF_A_KIND),
    **dict.fromkeys(UNITS, CATEGORIES),
}
"""The parts of a file of words, each with its own parts."""

_RIGHT_TO_LEFT = frozenset({"R", "AL"})
_LEFT_MARK = "\u200e"


class TimeWords:
    """A time in the words of a language: "2 hours", "10 minutes", "90 seconds" (`compose.time_left`)."""

    def __init__(self, language: str, forms: Mapping[str, Mapping[str, str]]) -> None:
        self._rule, _ = rule_of(language)
        self._forms = forms
        self._known: dict[tuple[str, int], str] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TimeWords) and self._forms == other._forms

    def __hash__(self) -> int:
        return hash(tuple(self._forms))

    def __repr__(self) -> str:
        return f"<TimeWords {self.values(600.0)['valid_for']}>"

    def values(self, seconds: float) -> dict[str, str]:
        """Return `valid_for` and `minutes` of a time that is left, never zero."""
        whole = max(1, round(seconds))
        span = in_units(whole)
        # fast path: a time is put into words once, 1 us; there are fewer than 300 of them in a day
        words = self._known.get(span)
        if words is None:
            unit, number = span
            words = self._forms[unit][self._rule(number)].replace("{n}", str(number))
            self._known[span] = words
        return {"valid_for": words, "minutes": str(whole_minutes(whole))}


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
    """Read the words of a language. Raises ValueError for a table that lacks one, or has a part that is unknown."""
    _refuse_unknown(table)
    if (direction := table.get("direction", _DIRECTIONS[0])) not in _DIRECTIONS:
        raise ValueError('direction must be "ltr" or "rtl"')
    common = {name: _phrase(table, name) for name in OF_ALL}
    phrases = {
        kind: {**common, **{name: _phrase(table.get(kind), name, kind) for name in OF_A_KIND}} for kind in ALL_KINDS
    }
    language = tag.partition("-")[0]
    _, needed = rule_of(language)
    forms = {unit: {form: _phrase(table.get(unit), form, unit, holes={"n"}) for form in needed} for unit in UNITS}
    return Words(tag, direction == _DIRECTIONS[1], phrases, TimeWords(language, forms))


def _refuse_unknown(table: Mapping[str, Any]) -> None:
    """Raise ValueError for a part that no mail has: it would be without effect, and is a slip of the pen."""
    for name, own in table.items():
        _refuse_unless_in(_PARTS, name)
        for part in own if isinstance(own, dict) else ():
            _refuse_unless_in([f"{name}.{known}" for known in _PARTS[name]], f"{name}.{part}")


def _refuse_unless_in(known: Collection[str], place: str) -> None:
    if place not in known:
        nearest = get_close_matches(place, known, n=1)
        raise ValueError(f"has an unknown part, {place}{f'; did you mean {nearest[0]}?' if nearest else ''}")


def _phrase(table: object, name: str, where: str = "", *, holes: frozenset[str] | set[str] = _HOLES) -> str:
    phrase = table.get(name) if isinstance(table, dict) else None
    place = f"{where}.{name}" if where else name
    if not isinstance(phrase, str) or not phrase.strip():
        raise ValueError(f"lacks {place}, a text in quotes")
    if unknown := {hole for hole in _HOLE.findall(phrase) if hole not in holes}:
        raise ValueError(
            f"{place} has {{{min(unknown)}}}; there are {', '.join(f'{{{hole}}}' for hole in sorted(holes))}"
        )
    if stray := _STRAY.search(_HOLE.sub("", _OPTIONAL.sub(r"\1", phrase))):
        raise ValueError(f"{place} has a {stray[0]} without its other one")
    if name == "subject" and "\n" in phrase.strip():
        raise ValueError(f"{place} has more than one line")
    return phrase
