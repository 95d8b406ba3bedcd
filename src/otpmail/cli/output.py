"""How commands answer: words in colour for people, JSON for programs, and an exit code for both."""

import json
from collections.abc import Iterable
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC
from math import ceil
from typing import Any, NoReturn

import grpc
import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from rich.console import Console
from rich.markup import escape

from otpmail.cli import endpoint
from otpmail.cli.channel import unreachable
from otpmail.compose.time_left import in_units
from otpmail.counts import counted
from otpmail.errors import SettingsError
from otpmail.v1 import mail_pb2

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
EXIT_STORE = 5  # 4 is `standard_streams.EXIT_NOT_WRITTEN`

WRONG_ARGUMENT = frozenset({grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND})
"""The statuses of a call whose arguments are wrong, on which the service would always answer so."""

_OPEN = frozenset({mail_pb2.Mail.STATE_QUEUED, mail_pb2.Mail.STATE_SENDING})
_DETAILS_KEY = "grpc-status-details-bin"

AS_JSON: ContextVar[bool] = ContextVar("AS_JSON", default=False)
"""Whether the command was given --json: `options.Json` sets it before the other options are looked at."""

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def utc(stamp: Timestamp) -> str:
    """Return a time to the second, as commands show it."""
    return f"{stamp.ToDatetime(UTC):%Y-%m-%d %H:%M:%S} UTC"


def spoken(seconds: float) -> str:
    """Return a time in words, as mails have it."""
    unit, number = in_units(max(0, round(seconds)))
    return counted(number, unit)


def service_of(server: str) -> endpoint.Service:
    """The service to call: the one at `server` if that is given, else the one that the settings name.

    Raises typer.Exit with 2 after printing what is wrong with the settings.
    """
    try:
        return endpoint.find_service(server)
    except SettingsError as error:
        raise wrong_usage(*error.problems) from None


def describe_error(error: grpc.RpcError, address: str, timeout: float) -> str:
    """One line: the service's own message, or words of ours where gRPC on this side made the error.

    `timeout` is that of the call, in seconds.
    """
    details: Any = error.trailing_metadata()  # pairs, which the type stubs do not know
    from_service = any(key == _DETAILS_KEY for key, _ in details or ())
    if error.code() is grpc.StatusCode.UNAVAILABLE and not from_service:
        return unreachable(address, error.details() or "")
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and not from_service:
        return f"no answer from {address} within {timeout:g} s"
    said = error.details() or ""
    if error.code() in WRONG_ARGUMENT and said:
        return said  # names the field
    if error.code() is grpc.StatusCode.UNAUTHENTICATED:
        said += "; the commands read the token from OTPMAIL_TOKEN"
    return f"{error.code().name}: {said}{_when_to_retry(details)}"


def _when_to_retry(details: Iterable[tuple[str, str | bytes]] | None) -> str:
    """Return the words for the RetryInfo in the details of a status, empty without one."""
    seconds = retry_after(details)
    return "" if seconds is None else f"; try again in {max(1, ceil(seconds))} s"


def retry_after(details: Iterable[tuple[str, str | bytes]] | None) -> float | None:
    """Return the seconds in the RetryInfo of a status, None without one."""
    packed = next((value for key, value in details or () if key == _DETAILS_KEY and isinstance(value, bytes)), b"")
    retry = RetryInfo()
    with suppress(DecodeError):  # of a server that is not ours
        for detail in Status.FromString(packed).details:
            if detail.Unpack(retry):
                return float(retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9)
    return None


def wrong_usage(*problems: str, code: str = "USAGE", **details: object) -> typer.Exit:
    """Print one line for each problem, and return the exit with code 2 for the caller to raise."""
    for problem in problems:
        err.print(escape(problem), style="red")
    print_error(code, "; ".join(problems), **details)
    return typer.Exit(EXIT_USAGE)


def print_error(code: str, message: str, **details: object) -> None:
    """With --json, print an error as a line of JSON on standard output, where a program looks for the answer.

    `code` is the name of a status, or USAGE for a mistake that no service has seen. `details` that are empty are left
    out.
    """
    if AS_JSON.get():
        given = {name: value for name, value in details.items() if value not in (None, "")}
        error = {"code": code, "message": message, **given}
        print(json.dumps({"error": error}), flush=True)  # noqa: T201  programs read it


def print_json(answer: Message, **more: str) -> None:
    """Print an answer as one line of JSON, with `more` than its own fields."""
    text = json.dumps(MessageToDict(answer, preserving_proto_field_name=True) | more)
    print(text, flush=True)  # noqa: T201  programs read it, line by line where there are several


def print_mail(mail: mail_pb2.Mail) -> None:
    """Print a mail's state, and the relay's reply for each recipient."""
    out.print(f"mail {mail.id}: {state_of(mail).lower()}", style="green" if is_good(mail) else "red")
    without = "no reply yet" if mail.state in _OPEN else "no reply"
    for result in mail.recipients:
        out.print(f"  {escape(result.address)}: {escape(relay_reply(result)) or without}")


def is_good(mail: mail_pb2.Mail) -> bool:
    """Whether a mail has reached all of its recipients, or may reach them yet."""
    return mail.state in {*_OPEN, mail_pb2.Mail.STATE_RELAYED}


def state_of(mail: mail_pb2.Mail) -> str:
    """A mail's state as people read it, such as RELAYED; its number where only a newer service knows the state."""
    if mail.state not in mail_pb2.Mail.State.values():
        return str(mail.state)
    return mail_pb2.Mail.State.Name(mail.state).removeprefix("STATE_")


def relay_reply(result: mail_pb2.RecipientResult) -> str:
    """The relay's reply for one recipient, in one line; empty before the relay has replied."""
    return " ".join(filter(None, (str(result.code or ""), result.enhanced_code, result.reply)))


def exit_unless(good: bool) -> NoReturn:  # noqa: FBT001  reads as a sentence
    """End the command: with 0 if all is good, else with 1."""
    raise typer.Exit(0 if good else EXIT_FAILED)
