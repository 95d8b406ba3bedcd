"""What a value may be, as a person reads it: pydantic's own words are for programmers."""

from collections.abc import Mapping
from typing import Any


def may_be(schema: Mapping[str, Any]) -> str:
    """Say what the JSON schema of one value allows; what follows "must be"."""
    for alternative in schema.get("anyOf", ()):  # null, which stands for a value that is not set, is not to be typed
        if alternative.get("type") != "null":
            return may_be(alternative)
    if "enum" in schema:
        *others, last = map(repr, schema["enum"])
        return f"{', '.join(others)} or {last}"
    match schema.get("type"):
        case "boolean":
            return "true or false"
        case "integer":
            return f"a whole number{_bounds(schema)}"
        case "number":
            return f"a number{_bounds(schema)}"
    return "a text that is not empty" if schema.get("minLength") else "a text"


def _bounds(schema: Mapping[str, Any]) -> str:
    least, above, most = (schema.get(name) for name in ("minimum", "exclusiveMinimum", "maximum"))
    if least is not None and most is not None:
        return f" from {least} to {most}"
    if above is not None:
        return f" above {above}" + (f" and at most {most}" if most is not None else "")
    return f", {least} or more" if least is not None else ""
