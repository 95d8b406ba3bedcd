"""A call as both clients make it: its request, and how to read the answer."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, ParamSpec, TypeVar
from uuid import uuid4

from google.protobuf.message import Message

from otpmail.client.errors import Error, InvalidRequest
from otpmail.client.values import Attachment, WaitFor
from otpmail.v1 import mail_pb2

P = ParamSpec("P")
ResultT = TypeVar("ResultT")
RequestT = TypeVar("RequestT")

QUICK_SECONDS = 10.0
RELAY_SECONDS = 75.0
"""For calls that wait for the relay: more than the service's MAIL_WAIT_SECONDS, so that the service answers first."""


@dataclass(frozen=True, slots=True)
class Plan(Generic[ResultT]):
    """A call: its method, the request, and what makes a result of the answer, or raises.

    `timeout` is in seconds for the call with its retries, None for that of the client, else `usual`, where None is any
    time. `is_repeatable` says whether the call may be made again after one whose answer was lost.
    """

    method: str
    request: Message = field(repr=False)
    response: type[Message]
    read: Callable[[Any], ResultT]
    timeout: float | None
    usual: float | None = QUICK_SECONDS
    is_repeatable: bool = True

    @property
    def octets(self) -> Mapping[str, Callable[[Any], Any]]:
        """How gRPC makes octets of the request, and an answer of octets."""
        return {
            "request_serializer": type(self.request).SerializeToString,
            "response_deserializer": self.response.FromString,
        }


def built(build: Callable[P, RequestT], /, *args: P.args, **options: P.kwargs) -> RequestT:
    """Return what `build` makes of a caller's values. Raises InvalidRequest for text that no request can have."""
    try:
        return build(*args, **options)
    except UnicodeEncodeError as error:
        raise unwritable(error, inspect.signature(build).bind(*args, **options).arguments) from None


def unwritable(error: UnicodeEncodeError, values: Mapping[str, object]) -> InvalidRequest:
    """Return the error for text that no request can have, with the name of the value that holds it."""
    field = next((name.rstrip("_") for name, value in values.items() if _holds(value, error.object)), "")
    said = f"holds {error.object[error.start]!a}, which is no character"
    return InvalidRequest(f"{field or 'text'}: {said}", field=field, description=said)


def _holds(value: object, text: str) -> bool:
    match value:
        case str():
            return value == text
        case Attachment():
            return text in (value.filename, value.content_type, value.content_id)
        case Mapping():
            return text in value or text in value.values()
        case Sequence():
            return any(_holds(each, text) for each in value)
    return False


def new_request_id() -> str:
    """Return a name for a request that is made again with the same name."""
    return uuid4().hex


def wait_for_value(wait_for: WaitFor) -> mail_pb2.WaitFor.ValueType:
    """Return the field of a request for this."""
    return mail_pb2.WAIT_FOR_QUEUE if wait_for == WaitFor.QUEUE else mail_pb2.WAIT_FOR_RELAY


def nothing(_: Message) -> None:
    """Read an answer that says nothing."""


def raise_if(wanted: bool, error: Error | None) -> None:  # noqa: FBT001  reads as a sentence
    """Raise the error, if there is one and the caller wants it."""
    if wanted and error is not None:
        raise error
