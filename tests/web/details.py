"""The details of an error over HTTP."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import Message

if TYPE_CHECKING:
    from http1 import Answer

DetailT = TypeVar("DetailT", bound=Message)


def detail_of(answer: Answer, kind: type[DetailT]) -> DetailT:
    """Return the one detail of this kind."""
    (found,) = [detail for detail in answer.json["details"] if detail["type"] == kind.DESCRIPTOR.full_name]
    value = found["value"]
    return kind.FromString(base64.b64decode(value + "=" * (-len(value) % 4)))
