"""Parses the octets of requests: the only place where octets that are no request become an error for the caller.

gRPC does not parse requests itself: it would answer UNKNOWN with Python's words, and log a traceback.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, Final, TypeVar

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from otpmail.api.bounds import Bounds
from otpmail.api.wire import MalformedError, read_fields
from otpmail.errors import InvalidArgument

SMALL: Final = 64 << 10
"""Octets of a request up to which protobuf parses it in a millisecond, without a look at its fields."""

MessageT = TypeVar("MessageT", bound=Message)
Parser = Callable[[bytes], Message]
"""Makes a message of its octets. Raises InvalidArgument."""


def parse(octets: bytes, kind: type[MessageT], bounds: Bounds | None = None, field: str = "request") -> MessageT:
    """Parse the octets of a message. One over SMALL octets must keep its `bounds`; without bounds it is too large.

    Raises InvalidArgument: it names `field` where the octets are no message of this kind.
    """
    try:
        if len(octets) > SMALL:
            if bounds is None:
                raise InvalidArgument(_largest_field(octets, kind), f"makes the request larger than {SMALL} octets")
            bounds.check(octets)
        return kind.FromString(octets)
    except (DecodeError, MalformedError):
        raise no_message(kind, field) from None


def no_message(kind: type[Message], field: str) -> InvalidArgument:
    """Return the error for octets that are no message of this kind."""
    return InvalidArgument(field, f"is no {kind.DESCRIPTOR.full_name}")


def parsers(services: Iterable[ServiceDescriptor], bounds: Iterable[Bounds]) -> Mapping[str, Parser]:
    """Return a parser for each method of the services that takes one request, by the method's path.

    Requests over SMALL octets are parsed where their kind of message has `bounds`.
    """
    bounds_of = {one.message.full_name: one for one in bounds}
    found: dict[str, Parser] = {}
    for service in services:
        for method in service.methods:
            if not method.client_streaming:
                kind: Any = GetMessageClass(method.input_type)
                one = bounds_of.get(method.input_type.full_name)
                found[f"/{service.full_name}/{method.name}"] = partial(parse, kind=kind, bounds=one)
    return found


def _largest_field(octets: bytes, kind: type[Message]) -> str:
    """The name of the field with most of the octets, or of the message where that is a field it does not have."""
    sizes: Counter[int] = Counter()
    with suppress(MalformedError):
        for tag, start, end in islice(read_fields(octets, 0, len(octets)), 1000):
            sizes[tag >> 3] += end - start
    ((number, _),) = sizes.most_common(1) or ((0, 0),)
    field = kind.DESCRIPTOR.fields_by_number.get(number)
    return kind.DESCRIPTOR.name if field is None else field.name
