"""Reads messages in JSON as the octets of protobuf: small ones at once, large ones in steps of a few milliseconds."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from otpmail.errors import InvalidArgument
from otpmail.limits.memory import LARGE, READ_FACTOR, Memory
from otpmail.mail.turns import Turn
from otpmail.web.json_mistakes import Mistake, mistakes_in, what_it_takes

_SIGNS = (b",", b"[", b"{")  # one of them is before each value, and others may be in texts
_MOST_VALUES = 100_000  # that are read in 20 ms, since nothing else runs meanwhile
_BASE64 = (
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_ \t\r\n"  # of both kinds (RFC 4648), in lines
)


def from_json(body: bytes, kind: type[Message]) -> bytes:
    """Return the octets of a message in JSON. Raises InvalidArgument, with no value of the body in its words."""
    _check_values(body)
    with mistakes_in(kind):
        value = _load(body)
        if _looked_into(kind.DESCRIPTOR):
            _look_into(value, kind.DESCRIPTOR)
        return json_format.ParseDict(value, kind()).SerializeToString()


async def from_large_json(body: bytes, kind: type[Message], memory: Memory, turn: Turn) -> bytes:
    """Do the same in steps, each in a turn of its own. Raises MemoryFull too, where the body does not fit.

    Its octets count here, since the guard weighs those of protobuf, which may be a sixth of them.
    """
    octets = READ_FACTOR * len(body)
    memory.make_room(octets)
    memory.reading += octets
    try:
        await turn()
        _check_values(body)
        await turn()
        with mistakes_in(kind):
            value = _load(body)
            await turn()
            _look_into(value, kind.DESCRIPTOR)
            await turn()
            texts = _take_texts(value, kind.DESCRIPTOR)
            message = json_format.ParseDict(value, kind())
            for name, text in texts.items():
                await turn()
                _set_text(message, name, text)
            await turn()
            return message.SerializeToString()
    finally:
        memory.reading -= octets


def _take_texts(value: dict[str, Any], kind: Any) -> dict[str, str]:
    """Take the large texts of a message out of its JSON, by the names of their fields.

    json_format looks for half characters in each text by a regular expression, which takes 150 ms for 9 MB. protobuf
    refuses them too, within a few.
    """
    texts = dict[str, str]()
    for key in [key for key, text in value.items() if isinstance(text, str) and len(text) >= LARGE]:
        field = kind.fields_by_name.get(key) or kind.fields_by_camelcase_name.get(key)
        if field is not None and field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated:
            texts[field.name] = value.pop(key)
    return texts


def _set_text(message: Message, name: str, text: str) -> None:
    try:
        setattr(message, name, text)
    except ValueError:
        raise json_format.ParseError(f"Failed to parse {name} field: Unpaired surrogate") from None


def _check_values(body: bytes) -> None:
    """Raise InvalidArgument for more values than are read in a step."""
    if sum(map(body.count, _SIGNS)) > _MOST_VALUES:
        raise InvalidArgument("request", f"has more than {_MOST_VALUES} values; send it as protobuf")


def _load(body: bytes) -> dict[str, Any]:
    """Return the object in a body. JSON is UTF-8 (RFC 8259, 8.1), whose mark at the start is passed over."""
    value = json.loads(body.decode().removeprefix("\ufeff"), object_pairs_hook=_once_each)
    if not isinstance(value, dict):
        raise Mistake("it is no object")
    _check_names(value)
    return value


def _check_names(value: dict[str, Any], path: tuple[str, ...] = (), kind: Any = None) -> None:
    """Raise Mistake where a field has both of its names."""
    if len({name.replace("_", "").lower() for name in value}) != len(value):
        raise Mistake("a name comes twice", _repeated(name.replace("_", "").lower() for name in value), path, kind)


def _repeated(names: Iterable[str]) -> str:
    return next((name for name, count in Counter(names).items() if count > 1), "")


@cache
def _looked_into(kind: Any) -> Mapping[str, Any]:
    """Return the fields that json_format reads too kindly, by both of their names.

    They are octets, enums, and messages with other fields.
    """
    found = dict[str, Any]()
    for field in kind.fields:
        inner = field.message_type
        is_ours = inner is not None and inner.file.package == kind.file.package and not inner.GetOptions().map_entry
        if is_ours or field.type in {FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_ENUM}:
            found[field.name] = found[field.json_name] = field
    return found


def _look_into(value: dict[str, Any], kind: Any, path: tuple[str, ...] = ()) -> None:
    """Raise InvalidArgument for octets that are no base64, and Mistake where an inner field has both of its names.

    json_format passes over what is no base64, so that a URL of data, say, would become other octets. Of two names it
    takes one. As the number of an enum it takes true, and what is before the point of 1.5. `path` leads to the message.
    """
    fields = _looked_into(kind)
    for name in fields.keys() & value.keys():
        field, given = fields[name], value[name]
        if given is None:  # as if the field were not there, by the mapping of protobuf to JSON
            continue
        place = *path, field.name
        for part in given if isinstance(given, list) else [given]:
            if field.type == FieldDescriptor.TYPE_BYTES:
                if not isinstance(part, str) or part.encode().rstrip(b"=\r\n").translate(None, _BASE64):
                    raise InvalidArgument(".".join(place), "is not base64")
            elif field.type == FieldDescriptor.TYPE_ENUM:
                if isinstance(part, bool) or (isinstance(part, float) and not part.is_integer()):
                    raise InvalidArgument(".".join(place), f"{what_it_takes(field)} in JSON")
            elif isinstance(part, dict):
                _check_names(part, place, field.message_type)
                _look_into(part, field.message_type, place)


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON. Raises Mistake where a name comes twice: readers differ in which one counts."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Mistake("a name comes twice", _repeated(name for name, _ in pairs))
    return found
