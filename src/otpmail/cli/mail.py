"""`otpmail mail`: sends one mail. `otpmail merge` sends one to each person in a file."""

import mimetypes
from pathlib import Path
from typing import Annotated

import typer

from otpmail.cli.call import call
from otpmail.cli.help import Command, Group
from otpmail.cli.options import From, Json, ReplyTo, Server
from otpmail.cli.output import exit_unless, print_json, print_mail, wrong_usage
from otpmail.v1 import mail_pb2, mail_pb2_grpc

mail = typer.Typer(cls=Group, help="Send mails.", no_args_is_help=True)


def _moved(given: list[str] | None) -> None:
    if given:
        raise wrong_usage("mail send: sends one mail; for a file of recipients use: otpmail merge FILE --template NAME")


Addresses = Annotated[list[str] | None, typer.Option(metavar="EMAIL", help="A recipient. May be given several times.")]
Attach = Annotated[
    list[Path] | None,
    typer.Option(exists=True, metavar="FILE", dir_okay=False, help="A file to attach. May be given several times."),
]
Queue = Annotated[bool, typer.Option("--queue", help="Wait until the service has queued the mail, not for the relay.")]
Moved = Annotated[
    list[str] | None,
    typer.Option("--from-file", "--template", "--errors", "--journal", hidden=True, is_eager=True, callback=_moved),
]


@mail.command("send", cls=Command)
def send_mail(
    *,
    to: Addresses = None,
    subject: Annotated[str, typer.Option(metavar="TEXT", help="The subject.")] = "",
    text: Annotated[str, typer.Option(metavar="TEXT", help="The text.")] = "",
    html: Annotated[str, typer.Option(metavar="HTML", help="The HTML.")] = "",
    cc: Addresses = None,
    bcc: Addresses = None,
    sender: From = "",
    reply_to: ReplyTo = "",
    attach: Attach = None,
    queue: Queue = False,
    server: Server = "",
    as_json: Json = False,
    _: Moved = None,
) -> None:
    """Send one mail."""
    if not to:
        raise wrong_usage("--to: is needed, as in --to ada@example.org")
    if not (text or html or attach):  # the service would send an empty mail; here a person forgot something
        raise wrong_usage("--text: is needed, as in --text 'Good morning', or --html or --attach: the mail is empty")
    wait_for = mail_pb2.WAIT_FOR_QUEUE if queue else mail_pb2.WAIT_FOR_RELAY
    request = mail_pb2.SendMailRequest(to=to, cc=cc, bcc=bcc, subject=subject, text=text, html=html, wait_for=wait_for)
    setattr(request, "from", sender)  # a keyword in Python
    request.reply_to = reply_to
    request.attachments.extend(map(_attachment, attach or ()))
    answer = call(server, lambda channel: mail_pb2_grpc.MailServiceStub(channel).SendMail, request)
    if as_json:
        print_json(answer)
    else:
        print_mail(answer.mail)
    exit_unless(answer.mail.state == (mail_pb2.Mail.STATE_QUEUED if queue else mail_pb2.Mail.STATE_RELAYED))


def _attachment(path: Path) -> mail_pb2.Attachment:
    content_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return mail_pb2.Attachment(filename=path.name, content_type=content_type, content=path.read_bytes())
