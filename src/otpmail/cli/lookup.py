"""`otpmail mail get`, `watch`, `cancel` and `list`: ask the running service about mails that it has accepted."""

from collections.abc import Mapping
from datetime import UTC
from types import MappingProxyType
from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp

from otpmail.cli.call import call, call_stream
from otpmail.cli.help import Command
from otpmail.cli.options import Json, Server, value_of
from otpmail.cli.output import err, exit_unless, out, print_json, print_mail, wrong_usage
from otpmail.counts import counted
from otpmail.standard_streams import is_read
from otpmail.v1 import mail_pb2, mail_pb2_grpc

_PAGE = 1000
_STATES: Mapping[str, mail_pb2.Mail.State.ValueType] = MappingProxyType(
    {name.removeprefix("STATE_").lower(): value for name, value in mail_pb2.Mail.State.items() if value}
)

MailId = Annotated[str, typer.Argument(metavar="ID", help="The mail's id, as the log and `mail send` print it.")]
OfRequest = Annotated[
    str, typer.Option("--request-id", metavar="ID", help="The request id with which it was sent, in place of its id.")
]


def add_to(mail: typer.Typer) -> None:
    """Add the commands to `otpmail mail`."""
    commands = (("get", get_mail), ("watch", watch_mail), ("cancel", cancel_mail), ("list", list_mails))
    for name, command in commands:
        mail.command(name, cls=Command)(command)


def get_mail(mail_id: MailId = "", *, request_id: OfRequest = "", server: Server = "", as_json: Json = False) -> None:
    """Print the state of a mail, while the service remembers it."""
    _check(mail_id, request_id)
    request = mail_pb2.GetMailRequest(id=mail_id, request_id=request_id)
    print_state(call(server, lambda channel: mail_pb2_grpc.MailServiceStub(channel).GetMail, request), as_json=as_json)


def watch_mail(mail_id: MailId = "", *, request_id: OfRequest = "", server: Server = "", as_json: Json = False) -> None:
    """Print the state of a mail now and at each change, until it settles."""
    _check(mail_id, request_id)
    request = mail_pb2.WatchMailRequest(id=mail_id, request_id=request_id)
    state = mail_pb2.Mail.STATE_UNSPECIFIED
    for answer in call_stream(server, lambda channel: mail_pb2_grpc.MailServiceStub(channel).WatchMail, request):
        print_state(answer, as_json=as_json)
        state = answer.state
    exit_unless(state == mail_pb2.Mail.STATE_RELAYED)


def cancel_mail(
    mail_id: MailId = "", *, request_id: OfRequest = "", server: Server = "", as_json: Json = False
) -> None:
    """Cancel a mail that is not with the relay yet."""
    _check(mail_id, request_id)
    request = mail_pb2.CancelMailRequest(id=mail_id, request_id=request_id)
    print_state(
        call(server, lambda channel: mail_pb2_grpc.MailServiceStub(channel).CancelMail, request), as_json=as_json
    )


def list_mails(
    *,
    state: Annotated[
        str, typer.Option(metavar="STATE", help=f"Only mails in this state. There are {', '.join(_STATES)}.")
    ] = "",
    to: Annotated[str, typer.Option(metavar="EMAIL", help="Only mails to this address.")] = "",
    request_id: Annotated[str, typer.Option(metavar="ID", help="Only mails that were sent with this id.")] = "",
    most: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="The most mails to print.")] = 100,
    server: Server = "",
    as_json: Json = False,
) -> None:
    """Print the mails that the service has, newest first: those that have not settled, and those that it remembers."""
    request = mail_pb2.ListMailsRequest(recipient=to, request_id=request_id, state=_state(state))
    left = most
    while left and is_read():  # `head` may have gone with its ten lines
        request.page_size = min(left, _PAGE)
        answer = call(server, lambda channel: mail_pb2_grpc.MailServiceStub(channel).ListMails, request)
        for mail in answer.mails:
            print_state(mail, as_json=as_json)
        left -= len(answer.mails)
        request.page_token = answer.next_page_token
        if not request.page_token:
            break
    if left == most and not as_json:
        err.print("no such mails")


def _state(text: str) -> mail_pb2.Mail.State.ValueType:
    if not text:
        return mail_pb2.Mail.STATE_UNSPECIFIED
    return value_of("--state", text, _STATES)


def _check(mail_id: str, request_id: str) -> None:
    if bool(mail_id) is bool(request_id):
        raise wrong_usage("ID: give the id of the mail, or its request id by --request-id")


def print_state(answer: mail_pb2.Mail, *, as_json: bool) -> None:
    """Print a mail with its replies and times, or as JSON."""
    if as_json:
        print_json(answer)
        return
    print_mail(answer)
    words = [f"accepted {_time(answer.create_time)}", counted(answer.attempts, "attempt")]
    if answer.HasField("settle_time"):
        words.append(f"settled {_time(answer.settle_time)}")
    if answer.HasField("next_attempt_time"):
        words.append(f"next attempt {_time(answer.next_attempt_time)}")
    out.print(f"  {', '.join(words)}")


def _time(stamp: Timestamp) -> str:
    return f"{stamp.ToDatetime(UTC):%Y-%m-%d %H:%M:%S} UTC"
