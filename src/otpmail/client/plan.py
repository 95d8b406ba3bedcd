"""A call as both clients make it: its request, and how to read the answer."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, ParamSpec, TypeVar
from uuid import uuid4

from google.protobuf.message import Message

from otpmail.client.arguments import named
from otpmail.client.errors import Error
from otpmail.client.values import WaitFor
from otpmail.v1 import mail_pb2

P = ParamSpec("P")
ResultT = TypeVar("ResultT")
RequestT = TypeVar("RequestT")

Octets = Mapping[str, Callable[[Any], Any]]
"""The arguments of a channel's methods that turn messages into octets and back."""

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
    def octets(self) -> Octets:
        """How gRPC makes octets of the request, and an answer of octets."""
        return _octets(type(self.request), self.response)


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """A call that streams requests and answers: its method, and the message of each."""

    method: str
    request: type[Message] = field(repr=False)
    response: type[Message]

    @property
    def octets(self) -> Octets:
        """How gRPC makes octets of each request, and each answer of octets."""
        return _octets(self.request, self.response)


def _octets(request: type[Message], response: type[Message]) -> Octets:
    return {"request_serializer": request.SerializeToString, "response_deserializer": response.FromString}


def built(build: Callable[P, RequestT], /, *args: P.args, **options: P.kwargs) -> RequestT:
    """Return what `build` makes of a caller's values. Raises TypeError or InvalidRequest for what no request can have.

    Both name the value.
    """
    try:
        return build(*args, **options)
    except Error:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        signature = inspect.signature(build)
        try:
            values = signature.bind(*args, **options).arguments
        except TypeError:  # Python's own words for a call that lacks an argument, or has one too many
            raise error from None
        kinds = {name: each.annotation for name, each in signature.parameters.items()}
        raise named(error, values, kinds) from None


def new_request_id() -> str:
    """Return a name for a request that is made again with the same name."""
    return uuid4().hex


def wait_for_value(wait_for: WaitFor) -> mail_pb2.WaitFor.ValueType:
    """Return the field of a request for this. Raises ValueError for another word."""
    return mail_pb2.WaitFor.Value(f"WAIT_FOR_{wait_for}")


def nothing(_: Message) -> None:
    """Read an answer that says nothing."""


def raise_if(wanted: bool, error: Error | None) -> None:  # noqa: FBT001  reads as a sentence
    """Raise the error, if there is one and the caller wants it."""
    if wanted and error is not None:
        raise error
