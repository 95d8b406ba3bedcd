"""A call as both clients make it: its request, and how to read the answer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from uuid import uuid4

from google.protobuf.message import Message

from otpmail.client.errors import Error, InvalidRequest
from otpmail.client.values import WaitFor
from otpmail.v1 import mail_pb2

ResultT = TypeVar("ResultT")

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


@contextmanager
def writable() -> Iterator[None]:
    """Raise InvalidRequest where a value does not fit its field, such as text that no mail can have."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"text holds {error.object[error.start]!a}, which is no character") from None
    except OverflowError as error:
        raise InvalidRequest(f"a number is too large: {error}") from None


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
