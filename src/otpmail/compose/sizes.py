"""How large a value of a template is, and an upper bound of what an operation makes of it. Pure."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

MOST_CHARACTERS = 1_000_000
"""The characters that a template may make for one mail, in all. A mail of a code has some thousands."""

MULTIPLYING = frozenset(
    [
        *("batch", "center", "expandtabs", "groupby", "indent", "join", "ljust", "replace", "rjust", "round", "slice"),
        *("to_bytes", "tojson", "translate", "urlize", "wordwrap", "xmlattr", "zfill"),
    ]
)
"""The filters and methods that may make the product of their values: a width, a number, or a text for each place."""

_FORMATTING = frozenset({"format", "format_map"})
_AT_MOST = {"striptags": 50_000}
"""Filters whose time grows by the square of a text."""

_NUMBER = re.compile(r"\d+")
_WIDTH_BY_VALUE = re.compile(r"\{[^{}]*\{|%[^a-zA-Z%]*\*")


def size(value: Any) -> int:
    """Return about how many characters a value prints, or some number over MOST_CHARACTERS."""
    count, waiting = 0, [value]
    while waiting and count <= MOST_CHARACTERS:
        one = waiting.pop()
        count += 1
        if isinstance(one, str | bytes):
            count += len(one)
        elif isinstance(one, int):
            count += one.bit_length() // 3
        elif isinstance(one, Mapping):
            waiting += (*one, *one.values())
        elif isinstance(one, list | tuple | set | frozenset):
            waiting += one
    return count


def most_made(name: str, value: Any, others: Collection[Any]) -> int:
    """Return an upper bound of what a filter or a method makes of a value, where it makes more than all of them."""
    if name in _FORMATTING:
        return most_formatted(value, others)
    if name in MULTIPLYING:
        # A width at which words are wrapped makes no text longer.
        return size(value) * (1 + sum(size(one) if name == "wordwrap" else _reach(one) for one in others))
    if name == "sum" and any(isinstance(one, list | tuple) for one in others):
        return size(value) ** 2  # each list is copied with all before it
    most = _AT_MOST.get(name)
    return MOST_CHARACTERS + 1 if most is not None and size(value) > most else 0


def most_formatted(form: Any, values: Iterable[Any]) -> int:
    """Return an upper bound of what a format for `%`, or of `format`, makes of values."""
    text = str(form)
    widths = sum(int(number) if len(number) < 8 else MOST_CHARACTERS for number in _NUMBER.findall(text))
    by_value = _WIDTH_BY_VALUE.search(text) is not None
    longest = max((_reach(one) if by_value else size(one) for one in values), default=1)
    return len(text) + widths + (text.count("%") + text.count("{")) * longest


def _reach(value: Any) -> int:
    """Return a number itself, which may be a width, and the largest one in a collection; else the size."""
    if isinstance(value, int):
        return abs(value)
    if isinstance(value, Mapping):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple):
        return max(size(value), *(one for one in value if isinstance(one, int)), 0)
    return size(value)
