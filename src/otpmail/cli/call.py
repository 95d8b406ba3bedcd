"""One call to a service over a connection of its own. An error becomes one line and an exit code."""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import Any, TypeVar

import grpc
import typer
from google.protobuf.message import Message
from rich.markup import escape

from otpmail.cli.channel import open_channel
from otpmail.cli.deferrals import saying_deferrals
from otpmail.cli.output import (
    EXIT_UNREACHABLE,
    WRONG_ARGUMENT,
    describe_error,
    err,
    print_error,
    retry_after,
    service_of,
    wrong_usage,
)

_ABOUT_A_FIELD = re.compile(r"([a-z_]+)(?:\[([0-9]+)\])?(?=: (?:is|holds|looks) )")
_SEVERAL = re.compile(r"@[^@]*[,;][^@]*@")
_MOST_REPEATED = 80  # characters

AnswerT = TypeVar("AnswerT", bound=Message)

TIMEOUT_SECONDS = 75.0
"""How long a call waits: more than MAIL_WAIT_SECONDS, so that the service answers first."""


def call(
    server: str,
    method: Callable[[grpc.Channel], Callable[..., AnswerT]],
    request: Message,
    timeout: float = TIMEOUT_SECONDS,
    *,
    waits_for: str = "",
) -> AnswerT:
    """Call `method` of the service at `server`, by default the one that the settings name. `timeout` is in seconds.

    `waits_for` is the request_id of a mail: a line says each time that the relay defers it meanwhile.

    Raises typer.Exit with 2 for INVALID_ARGUMENT and NOT_FOUND, and 3 for any other error, after printing it in one
    line.
    """
    service = service_of(server)
    with open_channel(service) as channel:
        try:
            with saying_deferrals(channel, waits_for) if waits_for else nullcontext():
                return method(channel)(request, timeout=timeout)
        except grpc.RpcError as error:
            raise failure(error, service.address, timeout, request) from None


def call_stream(
    server: str, method: Callable[[grpc.Channel], Callable[..., Iterable[AnswerT]]], request: Message
) -> Iterator[AnswerT]:
    """Yield the answers of `method` until its stream ends, however long that takes. Raises as `call` does."""
    service = service_of(server)
    with open_channel(service) as channel:
        try:
            yield from method(channel)(request)
        except grpc.RpcError as error:
            raise failure(error, service.address, 0, request) from None


def failure(error: grpc.RpcError, address: str, timeout: float, request: Message) -> typer.Exit:
    """Print the error of a call in one line, and return the exit to raise: with 2 for a wrong argument, else with 3."""
    description = describe_error(error, address, timeout)
    code = error.code()
    trailers: Any = error.trailing_metadata()  # pairs, which the type stubs do not know
    field = match[1] if (match := _ABOUT_A_FIELD.match(description)) else ""
    if code in WRONG_ARGUMENT:
        return wrong_usage(_with_value(description, request), code=code.name, field=field)
    err.print(escape(description), style="red")
    print_error(code.name, description, retry_after=retry_after(trailers))
    return typer.Exit(EXIT_UNREACHABLE)


def _with_value(said: str, request: Message) -> str:
    """Return words about a field of a request with its value, which the service leaves out of its log."""
    match = _ABOUT_A_FIELD.match(said)
    value = getattr(request, match[1], "") if match else ""
    if match and match[2] and int(match[2]) < len(value):
        value = value[int(match[2])]
        if isinstance(value, str) and _SEVERAL.search(value):
            said += f"; give --{match[1].replace('_', '-')} once for each address"
    if match is None or not isinstance(value, str) or not 0 < len(value) <= _MOST_REPEATED:
        return said
    return f"{match[0]}: {value!r}{said[match.end() + 1 :]}"
