"""Words a wrong value for a person: pydantic's own messages are for programmers."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from pydantic_core import ErrorDetails

from otpmail.settings import duration
from otpmail.settings.problems import Problem, quoted
from otpmail.settings.section import RULE, Section

_OF_THE_VALUE = re.compile(r"(?:is|has|holds|lets|names|needs)\b")
"""The verb of a rule that goes on where the value stands, as in "'x' is neither ..."."""

_QUOTES = ("'", '"')
"""A rule that opens with one quotes the wrong entry of a list by itself, and the whole list would say it twice."""


def describe(section: type[Section], error: ErrorDetails, *, hidden: Collection[str] = ()) -> Problem:
    """Name the setting, what it may be, and what it was unless that is a secret, or its name is in `hidden`.

    For a list, the line quotes the wrong entry alone, where the rule does.
    """
    key = error["loc"][0]
    name, known_as = next(names for names in section.variables().items() if key in names)
    if error["type"] == RULE:
        rule = error["msg"]
    else:
        rule = f"must be {_allowed(section.model_json_schema()['properties'][known_as])}"
    if name in section.secrets() or name in hidden or rule.startswith(_QUOTES):
        shown = ""
    else:
        shown = f"{quoted(error['input'])} " if _OF_THE_VALUE.match(rule) else f"{quoted(error['input'])} is wrong: "
    return Problem(f"{name}: {shown}{rule}", (name,))


def _allowed(schema: Mapping[str, Any]) -> str:
    """Word the JSON schema of one value, to follow "must be"."""
    for alternative in schema.get("anyOf", ()):
        if alternative.get("type") != "null":  # null means "not set", which nobody types
            return _allowed(alternative)
    if "enum" in schema:
        *others, last = map(repr, schema["enum"])
        return f"{', '.join(others)} or {last}"
    match schema.get("type"):
        case "boolean":
            return "true or false"
        case "integer":
            return f"a whole number{_bounds(schema)}"
        case "number":
            is_time = schema.get("format") == duration.FORMAT
            form = "a time such as 90s, 5m or 1h30m, or a number of seconds" if is_time else "a number"
            return f"{form}{_bounds(schema)}"
    return "a text that is not empty" if schema.get("minLength") else "a text"


def _bounds(schema: Mapping[str, Any]) -> str:
    least, above, most = (schema.get(name) for name in ("minimum", "exclusiveMinimum", "maximum"))
    if least is not None and most is not None:
        return f" from {least} to {most}"
    if above is not None:
        return f" above {above}" + (f" and at most {most}" if most is not None else "")
    return f", {least} or more" if least is not None else ""
