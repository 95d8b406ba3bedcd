"""Says what is wrong with a body in JSON: which field, and what it takes. No value of the body is in the words."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from otpmail.errors import InvalidArgument

# json_format's text of an error begins with the fields that lead to the value.
_FIELDS = re.compile(r"(?:Failed to parse \w{1,64} field: )*")
_FIELD = re.compile(r"Failed to parse (\w{1,64}) field")
_UNKNOWN_FIELD = re.compile(r'Message type "([\w.]{1,128})" has no field named "(\w{1,64})"')
_HALF = "Unpaired surrogate"

_FULL_NAMES: Final = {
    "google.protobuf.Duration": ("seconds such as 1.5s, in quotes",) * 2,
    "google.protobuf.Timestamp": ("a time such as 2026-01-31T12:00:00Z, in quotes",) * 2,
}
_TYPES: Final = {
    FieldDescriptor.CPPTYPE_STRING: ("text", "texts"),
    FieldDescriptor.CPPTYPE_BOOL: ("true or false", "true or false"),
    FieldDescriptor.CPPTYPE_INT32: ("a whole number of 32 bits", "whole numbers of 32 bits"),
    FieldDescriptor.CPPTYPE_UINT32: ("a whole number from 0 on, of 32 bits", "whole numbers from 0 on, of 32 bits"),
    FieldDescriptor.CPPTYPE_INT64: ("a whole number of 64 bits", "whole numbers of 64 bits"),
    FieldDescriptor.CPPTYPE_UINT64: ("a whole number from 0 on, of 64 bits", "whole numbers from 0 on, of 64 bits"),
    FieldDescriptor.CPPTYPE_DOUBLE: ("a number", "numbers"),
    FieldDescriptor.CPPTYPE_FLOAT: ("a number", "numbers"),
}


class Mistake(ValueError):
    """A fault in JSON that json reads. `name` is one that comes twice.

    `path` are the fields that lead to it, None where that is not known, and `kind` the message there.
    """

    def __init__(self, words: str, name: str = "", path: tuple[str, ...] | None = None, kind: Any = None) -> None:
        super().__init__(words)
        self.name, self.path, self.kind = name, path, kind

    def field_in(self, kind: Any) -> str:
        """Return the field that comes twice in a message, with those that lead to it; empty where it can't be told."""
        inner = (field.message_type for field in kind.fields if field.message_type is not None)
        if self.path is None and any(_field_of(self.name, each) for each in inner):
            return ""  # it may be in either
        field = _field_of(self.name, self.kind or kind)
        return ".".join((*(self.path or ()), field)) if field else ""


def what_it_takes(field: Any) -> str:
    """Return what a field must be in JSON."""
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        return f"must be an object with {_words(kind.fields_by_name['value'])[1]}"
    one, many = _words(field)
    return f"must be a list of {many}" if field.is_repeated else f"must be {one}"


def _words(field: Any) -> tuple[str, str]:
    """Return the words for one value of a field, and for many."""
    if field.message_type is not None:
        return _FULL_NAMES.get(field.message_type.full_name, ("an object", "objects"))
    if field.enum_type is not None:
        names = ", ".join(value.name for value in field.enum_type.values)
        return f"one of {names}", f"any of {names}"
    return ("base64", "base64") if field.type == FieldDescriptor.TYPE_BYTES else _TYPES[field.cpp_type]


@contextmanager
def mistakes_in(kind: type[Message]) -> Iterator[None]:
    """Raise InvalidArgument for what is wrong in JSON. It names a field, or the message."""
    name = kind.DESCRIPTOR.full_name
    try:
        yield
    except InvalidArgument:
        raise
    except json_format.ParseError as error:
        raise _of_parse_error(str(error), kind.DESCRIPTOR) from None
    except (ValueError, RecursionError, TypeError, AttributeError) as error:
        if isinstance(error, Mistake) and (field := error.field_in(kind.DESCRIPTOR)):
            raise InvalidArgument(field, "comes twice in JSON") from None
        raise InvalidArgument("request", f"is no {name} in JSON{_reason_of(error)}") from None


def _of_parse_error(text: str, kind: Any) -> InvalidArgument:
    """Return the error of a text of json_format: its names are looked up, since values of the body stand there too."""
    leading = _FIELDS.match(text)
    end = leading.end() if leading else 0
    path, field = _path_to(_FIELD.findall(text[:end]), kind)
    if (unknown := _UNKNOWN_FIELD.match(text, end)) is not None:
        return InvalidArgument(".".join((*path, unknown[2])), f"is no field of {unknown[1]}")
    if field is None:
        return InvalidArgument("request", f"is no {kind.full_name} in JSON")
    words = "has half of a character" if text.startswith(_HALF, end) else what_it_takes(field)
    return InvalidArgument(".".join(path), f"{words} in JSON")


def _path_to(names: list[str], kind: Any) -> tuple[list[str], Any]:
    """Return the names that lead to a field, and the field; None without one."""
    field, path = None, list[str]()
    for name in names:
        found = None if kind is None else kind.fields_by_name.get(name) or kind.fields_by_camelcase_name.get(name)
        if found is None:
            break
        field, kind = found, found.message_type
        path.append(name)
    return path, field


def _field_of(name: str, kind: Any) -> str:
    """Return the field that a name means, by its letters alone, or nothing: other names are the caller's own."""
    letters = name.replace("_", "").lower()
    return next((field.name for field in kind.fields if field.name.replace("_", "") == letters), "")


def _reason_of(error: Exception) -> str:
    """Return why a body is no JSON, and where. No word is of the body: those of json.JSONDecodeError are fixed."""
    match error:
        case json.JSONDecodeError(msg=words, lineno=line, colno=column):
            return f": {words[:1].lower()}{words[1:].removesuffix(' at')} at line {line}, column {column}"
        case UnicodeDecodeError(start=start):
            return f": octet {start + 1} is not UTF-8"
        case Mistake():
            return f": {error}"
        case RecursionError():
            return ": it is nested too deeply"
        case _:
            return ""
