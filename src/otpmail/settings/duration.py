"""Reads times: `90` and `1.5` are seconds, `500ms`, `90s`, `1h30m` and `2d` have units."""

import re
from typing import Annotated

from pydantic import Field, JsonValue, ValidatorFunctionWrapHandler, WrapValidator

FORMAT = "duration"
"""Marks such a setting in its JSON schema, for the words of an error (`describe`)."""

_UNITS = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_TERM = r"(?:(\d+(?:\.\d+)?) ?{})?"
_DURATION = re.compile(" ?".join(_TERM.format(unit) for unit in _UNITS), re.ASCII | re.IGNORECASE)
_LONGEST_SECONDS = 10 * 366 * 86_400  # clocks and timers overflow far beyond that


def parse_seconds(text: str) -> float:
    """Return the seconds of a time with units, from the largest to the smallest. Raises ValueError for other texts."""
    found = _DURATION.fullmatch(text)
    if not text or found is None:
        raise ValueError("is not a time such as 90s, 5m or 1h30m")
    return sum(float(count or 0) * unit for count, unit in zip(found.groups(), _UNITS.values(), strict=True))


def _with_units(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    """Judge a time with units by its seconds; all else, and a time that is out of bounds, as it was written."""
    try:
        return validate(parse_seconds(value.strip()) if isinstance(value, str) else value)
    except ValueError:  # pydantic's ValidationError too
        return validate(value)


_EXTRA: dict[str, JsonValue] = {"format": FORMAT}
_UNITS_TOO = WrapValidator(_with_units)

Seconds = Annotated[float, Field(gt=0, le=_LONGEST_SECONDS, json_schema_extra=_EXTRA), _UNITS_TOO]
"""A time above 0, at most ten years."""

SecondOrMore = Annotated[float, Field(ge=1, le=_LONGEST_SECONDS, json_schema_extra=_EXTRA), _UNITS_TOO]
"""A time from a second to ten years, for what is done again and again, and would take all of the processor."""

SecondToFiveMinutes = Annotated[float, Field(ge=1, le=300, json_schema_extra=_EXTRA), _UNITS_TOO]
"""A time from a second to five minutes."""

SecondsOrZero = Annotated[float, Field(ge=0, le=_LONGEST_SECONDS, json_schema_extra=_EXTRA), _UNITS_TOO]
"""A time of at most ten years."""

MinuteToMonth = Annotated[float, Field(ge=60, le=30 * 86_400, json_schema_extra=_EXTRA), _UNITS_TOO]
"""A time from a minute to thirty days."""

DayOrLess = Annotated[float, Field(gt=0, le=86_400, json_schema_extra=_EXTRA), _UNITS_TOO]
"""A time above 0, at most a day."""

DayOrLessOrZero = Annotated[float, Field(ge=0, le=86_400, json_schema_extra=_EXTRA), _UNITS_TOO]
"""A time of at most a day."""
