"""How the client's commands speak: to people in colour, to programs in JSON, and to both by their exit codes."""

import json
from typing import Any, NoReturn

import grpc
import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console
from rich.markup import escape

from otpmail.cli import endpoint
from otpmail.errors import SettingsError
from otpmail.v1 import mail_pb2

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def address_of(server: str) -> str:
    """The service to call: the one that is named, else the one whose settings are found here."""
    try:
        return server or endpoint.own_address()
    except SettingsError as error:
        raise wrong_usage(str(error)) from None


def in_words(error: grpc.RpcError, address: str, timeout: float) -> str:
    """What the service said; in our own words where it was gRPC on this side that spoke, not the service."""
    details: Any = error.trailing_metadata()  # pairs, which the stubs do not know
    from_service = any(key == "grpc-status-details-bin" for key, _ in details or ())
    if error.code() is grpc.StatusCode.UNAVAILABLE and not from_service:
        return endpoint.unreachable(address)
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and not from_service:
        return f"no answer from {address} within {timeout:g} s"
    return f"{error.code().name}: {error.details() or ''}"


def wrong_usage(*problems: str) -> typer.Exit:
    """Print a line for each problem; the exit to raise."""
    for problem in problems:
        err.print(escape(problem), style="red")
    return typer.Exit(EXIT_USAGE)


def print_json(answer: Message) -> None:
    """Print it as one line."""
    print(json.dumps(MessageToDict(answer, preserving_proto_field_name=True)))  # noqa: T201  for programs: no markup


def print_mail(answer: mail_pb2.Mail) -> None:
    """Print how a mail ended, and what the relay said about each recipient."""
    good = answer.state in {mail_pb2.Mail.RELAYED, mail_pb2.Mail.QUEUED}
    out.print(f"mail {answer.id}: {mail_pb2.Mail.State.Name(answer.state).lower()}", style="green" if good else "red")
    for result in answer.recipients:
        out.print(f"  {escape(result.address)}: {escape(relay_said(result)) or 'no answer yet'}")


def relay_said(result: mail_pb2.RecipientResult) -> str:
    """The relay's reply, in one line."""
    return " ".join(filter(None, (str(result.code or ""), result.enhanced_code, result.reply)))


def exit_unless(good: bool) -> NoReturn:  # noqa: FBT001  reads as a sentence
    """Exit with 0 or EXIT_FAILED."""
    raise typer.Exit(0 if good else EXIT_FAILED)
