"""Values: dataclasses that the type checker keeps from being changed once they are made."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(*, kw_only: bool = False) -> Callable[[type[T]], type[T]]:
    """Make a class of values: compared and hashed by their fields, in slots, frozen for the type checker alone.

    `dataclass(frozen=True)` checks at run time too, and sets each field of a new value by a call. A mail is about ten
    values, so that would cost each mail microseconds; see docs/decisions/025-values-frozen-for-the-type-checker.md.
    """
    return dataclass(slots=True, unsafe_hash=True, kw_only=kw_only)
