"""Names the argument whose value no request can have, where one could not be written. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import StrEnum
from math import inf, isnan
from types import MappingProxyType, UnionType
from typing import Any, NamedTuple, get_args, get_origin

from otpmail.client.errors import InvalidRequest

_WORDS: Mapping[type, str] = MappingProxyType({str: "text", bytes: "bytes", float: "a number", bool: "true or false"})
_MOST_SHOWN = 40  # characters
_YEAR_SECONDS = 366 * 86_400.0


class _Misfit(NamedTuple):
    """A value that is not of its kind: where it stands, and what it should be."""

    place: str
    value: object
    kind: Any


def named(error: Exception, values: Mapping[str, object], kinds: Mapping[str, Any]) -> Exception:
    """Return the error that names the value which a request could not be written of, else `error` itself.

    A value of another type is a TypeError, since the program is wrong. An unknown word, and text with a surrogate, may
    come from elsewhere: they are InvalidRequest.
    """
    if isinstance(error, UnicodeEncodeError):
        return _unwritable(error, values)
    misfits = (_misfit(value, kinds[name], name.rstrip("_")) for name, value in values.items() if name in kinds)
    found = next((each for each in misfits if each is not None), None)
    if found is None:
        return error
    if _is_words(found.kind) and isinstance(found.value, str):
        said = f"must be {_described(found.kind)}, not {found.value[:_MOST_SHOWN]!r}"
        return InvalidRequest(f"{found.place}: {said}", field=found.place, description=said)
    return TypeError(f"{found.place}: must be {_described(found.kind)}, not {type(found.value).__name__}")


def seconds(value: object, name: str) -> float | None:
    """Return a timeout, infinite if it is more than a year, which gRPC can't count. Raises TypeError and ValueError."""
    if value is None:
        return None
    if not isinstance(value, int | float):
        raise TypeError(f"{name}: must be a number of seconds, not {type(value).__name__}")
    if isinstance(value, float) and isnan(value):
        raise ValueError(f"{name}: {value} is no time in seconds")
    return inf if value > _YEAR_SECONDS else value


def _unwritable(error: UnicodeEncodeError, values: Mapping[str, object]) -> InvalidRequest:
    field = next((name.rstrip("_") for name, value in values.items() if _holds(value, error.object)), "")
    said = f"holds {error.object[error.start]!a}, which is no character"
    return InvalidRequest(f"{field or 'text'}: {said}", field=field, description=said)


def _holds(value: object, text: str) -> bool:
    if isinstance(value, str):
        return value == text
    if isinstance(value, Mapping):
        return text in value or text in value.values()
    if is_dataclass(value):
        return any(_holds(getattr(value, each.name), text) for each in fields(value))
    return isinstance(value, Collection) and any(_holds(each, text) for each in value)


def _misfit(value: object, kind: Any, place: str) -> _Misfit | None:
    """Return the first value within this one that is not of its kind. None stands for text that is not given."""
    if isinstance(kind, UnionType):
        kinds = get_args(kind)
        found = [_misfit(value, each, place) for each in kinds]
        closest = next((each for each in found if each and (each.place != place or _is_words(each.kind))), None)
        return None if None in found else closest or _Misfit(place, value, kind)
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Mapping:
        inside = _of_mapping(value, parts, place) if isinstance(value, Mapping) else None
        return inside if isinstance(value, Mapping) else _Misfit(place, value, kind)
    if origin in (Sequence, tuple):
        return _of_sequence(value, kind, place)
    if is_dataclass(kind):
        return _of_dataclass(value, kind, place)
    return None if _is_of(value, kind) else _Misfit(place, value, kind)


def _misfit_inside(value: object, kind: Any, place: str) -> _Misfit | None:
    """Return the first value that is not of its kind, in a mapping or a sequence, where None is no value either."""
    return _Misfit(place, value, kind) if value is None else _misfit(value, kind, place)


def _of_mapping(value: Mapping[Any, Any], parts: tuple[Any, ...], place: str) -> _Misfit | None:
    for name, each in value.items():
        found = _misfit_inside(name, parts[0], f"{place}: a name") or _misfit_inside(
            each, parts[1], f"{place}[{name!r}]"
        )
        if found is not None:
            return found
    return None


def _of_sequence(value: object, kind: Any, place: str) -> _Misfit | None:
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
        return _Misfit(place, value, kind)
    parts = get_args(kind)
    if get_origin(kind) is tuple:
        if not isinstance(value, Sequence) or len(value) != len(parts):
            return _Misfit(place, value, kind)
        kinds = parts
    else:
        kinds = parts * len(value) if isinstance(value, Collection) else ()
    found = (
        _misfit_inside(each, part, f"{place}[{number}]")
        for number, (each, part) in enumerate(zip(value, kinds, strict=False))
    )
    return next((each for each in found if each is not None), None)


def _of_dataclass(value: object, kind: Any, place: str) -> _Misfit | None:
    if not isinstance(value, kind):
        return _Misfit(place, value, kind)
    found = (_misfit(getattr(value, each.name), each.type, f"{place}.{each.name}") for each in fields(kind))
    return next((each for each in found if each is not None), None)


def _is_words(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, StrEnum)


def _is_of(value: object, kind: Any) -> bool:
    if _is_words(kind):
        return isinstance(value, str) and value in list(kind)
    if kind is str:
        return value is None or isinstance(value, str)
    return isinstance(value, int | float if kind is float else kind)


def _described(kind: Any) -> str:
    if isinstance(kind, UnionType):
        return " or ".join(_described(each) for each in get_args(kind) if each is not type(None))
    origin, parts = get_origin(kind), get_args(kind)
    if origin is tuple:
        return "a pair of a name and a value"
    if origin is Mapping:
        return "a mapping of text to text"
    if origin is Sequence:
        return f"a sequence, each {_described(parts[0])}"
    return f"one of {', '.join(kind)}" if _is_words(kind) else _WORDS.get(kind) or f"an {kind.__name__}"
