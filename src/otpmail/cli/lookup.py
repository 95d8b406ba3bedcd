"""`otpmail mail get`, `watch` and `cancel`: ask the running service about a mail that it has accepted."""

from typing import Annotated

import typer

from otpmail.cli.call import call, call_stream
from otpmail.cli.help import Command
from otpmail.cli.options import ALL, AllCallers, Json, OfCaller, Server, whose
from otpmail.cli.output import exit_unless, out, print_json, print_mail, utc, wrong_usage
from otpmail.counts import counted
from otpmail.v1 import mail_pb2, mail_pb2_grpc

MailId = Annotated[str, typer.Argument(metavar="ID", help="The mail's id, as the log and `mail send` print it.")]
OfRequest = Annotated[
    str, typer.Option("--request-id", metavar="ID", help="The request id with which it was sent, in place of its id.")
]


def add_to(mail: typer.Typer) -> None:
    """Add the commands to `otpmail mail`."""
    commands = (("get", get_mail), ("watch", watch_mail), ("cancel", cancel_mail))
    for name, command in commands:
        mail.command(name, cls=Command)(command)


def get_mail(
    mail_id: MailId = "",
    *,
    request_id: OfRequest = "",
    caller: OfCaller = "",
    all_callers: AllCallers = False,
    server: Server = "",
    as_json: Json = False,
) -> None:
    """Print the state of a mail, while the service remembers it."""
    of = _check(mail_id, request_id, whose(caller, all_callers=all_callers))
    request = mail_pb2.GetMailRequest(id=mail_id, request_id=request_id, caller=of)
    print_state(call(server, lambda channel: mail_pb2_grpc.MailServiceStub(channel).GetMail, request), as_json=as_json)


def watch_mail(
    mail_id: MailId = "",
    *,
    request_id: OfRequest = "",
    caller: OfCaller = "",
    all_callers: AllCallers = False,
    server: Server = "",
    as_json: Json = False,
) -> None:
    """Print the state of a mail now and at each change, until it settles."""
    of = _check(mail_id, request_id, whose(caller, all_callers=all_callers))
    request = mail_pb2.WatchMailRequest(id=mail_id, request_id=request_id, caller=of)
    state = mail_pb2.Mail.STATE_UNSPECIFIED
    for answer in call_stream(server, lambda channel: mail_pb2_grpc.MailServiceStub(channel).WatchMail, request):
        print_state(answer, as_json=as_json)
        state = answer.state
    exit_unless(state == mail_pb2.Mail.STATE_RELAYED)


def cancel_mail(
    mail_id: MailId = "",
    *,
    request_id: OfRequest = "",
    caller: OfCaller = "",
    all_callers: AllCallers = False,
    server: Server = "",
    as_json: Json = False,
) -> None:
    """Cancel a mail that is not with the relay yet."""
    of = _check(mail_id, request_id, whose(caller, all_callers=all_callers))
    request = mail_pb2.CancelMailRequest(id=mail_id, request_id=request_id, caller=of)
    print_state(
        call(server, lambda channel: mail_pb2_grpc.MailServiceStub(channel).CancelMail, request), as_json=as_json
    )


def _check(mail_id: str, request_id: str, of: str) -> str:
    """Return `of`, the caller whose mail it is. Raises typer.Exit with 2 where that does not say which mail."""
    if bool(mail_id) is bool(request_id):
        raise wrong_usage("ID: give the id of the mail, or its request id by --request-id")
    if request_id and of == ALL:
        raise wrong_usage("--request-id: two callers may have used the same; name the one by --caller")
    return of


def print_state(answer: mail_pb2.Mail, *, as_json: bool) -> None:
    """Print a mail with its replies and times, or as JSON."""
    if as_json:
        print_json(answer)
        return
    print_mail(answer)
    words = [f"of {answer.caller}"] if answer.caller else []
    words += [f"accepted {utc(answer.create_time)}", counted(answer.attempts, "attempt")]
    if answer.HasField("settle_time"):
        words.append(f"settled {utc(answer.settle_time)}")
    if answer.HasField("next_attempt_time"):
        words.append(f"next attempt {utc(answer.next_attempt_time)}")
    out.print(f"  {', '.join(words)}")
