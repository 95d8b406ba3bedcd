"""Values: dataclasses that nobody changes once they are made, as the type checker sees to it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(*, kw_only: bool = False) -> Callable[[type[T]], type[T]]:
    """A class of values: compared and hashed by their fields, in slots, frozen for the type checker alone.

    `dataclass(frozen=True)` would check at run time too, and make each value field by field through a call, which
    shows where a mail is some ten of them.
    """
    return dataclass(slots=True, unsafe_hash=True, kw_only=kw_only)
