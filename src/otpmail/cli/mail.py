"""`otpmail mail send`: sends one mail. `otpmail merge` sends one to each person in a file."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, NoReturn
from uuid import uuid4

import typer
from google.protobuf.duration_pb2 import Duration

from otpmail.cli.call import call
from otpmail.cli.help import Command, Group
from otpmail.cli.options import From, Json, Server, complete_from, pairs, value_of
from otpmail.cli.output import exit_unless, is_good, print_json, print_mail, wrong_usage
from otpmail.v1 import mail_pb2, mail_pb2_grpc

mail = typer.Typer(cls=Group, help="Send mails, and ask about them.", no_args_is_help=True)


_PRIORITIES: Mapping[str, mail_pb2.Priority.ValueType] = MappingProxyType(
    # Unspecified is normal, and is what the field has without the option: a request id then names the same mail.
    {"urgent": mail_pb2.PRIORITY_URGENT, "normal": mail_pb2.PRIORITY_UNSPECIFIED, "bulk": mail_pb2.PRIORITY_BULK}
)


def _moved(given: list[str] | None) -> None:
    if given:
        raise wrong_usage("mail send: sends one mail; for a file of recipients use: otpmail merge FILE --template NAME")


def _ttl(text: str) -> Duration:
    """Read a time as settings have it. Raises typer.Exit with 2 for another text."""
    from pydantic import TypeAdapter, ValidationError

    from otpmail.settings.duration import Seconds

    try:
        seconds = TypeAdapter(Seconds).validate_python(text)
    except ValidationError:
        raise wrong_usage(f"--ttl: {text!r} is not a time above 0 such as 90s, 5m or 1h30m") from None
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration


Tos = Annotated[
    list[str] | None, typer.Option("--to", metavar="EMAIL", help="A recipient. May be given several times.")
]
Ccs = Annotated[
    list[str] | None, typer.Option("--cc", metavar="EMAIL", help="A recipient of a copy. May be given several times.")
]
Bccs = Annotated[
    list[str] | None,
    typer.Option("--bcc", metavar="EMAIL", help="A recipient whom the others do not see. May be given several times."),
]
Attach = Annotated[
    list[Path] | None,
    typer.Option(exists=True, metavar="FILE", dir_okay=False, help="A file to attach. May be given several times."),
]
Sender = Annotated[
    str,
    typer.Option(metavar="EMAIL", help="The Sender header: the mailbox that sends the mail for the one in --from."),
]
ReturnPath = Annotated[
    str, typer.Option(metavar="EMAIL", help="Where bounces go; '<>' for nowhere. Default: to the address in --from.")
]
ReplyTos = Annotated[
    list[str] | None,
    typer.Option(
        "--reply-to",
        metavar="EMAIL",
        help="Where a person's reply goes. Default: to the address in --from. May be given several times.",
    ),
]
Headers = Annotated[
    list[str] | None,
    typer.Option(metavar="'NAME: VALUE'", help="A further header. May be given several times."),
]
MessageId = Annotated[
    str, typer.Option(metavar="ID", help="The Message-ID header. Default: one that the service makes.")
]
Labels = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="A note that stands in the result only. May be given several times."),
]
PriorityName = Annotated[
    str,
    typer.Option(
        metavar="|".join(_PRIORITIES),
        autocompletion=complete_from(_PRIORITIES),
        help="The lane of the mail: urgent ones go first where many wait for the relay.",
    ),
]
Ttl = Annotated[
    Duration | None,
    typer.Option(
        parser=_ttl,
        metavar="TIME",
        help="How long the service tries to send the mail, such as 90s or 5m. Default: MAIL_TTL.",
    ),
]
RequestId = Annotated[
    str, typer.Option(metavar="ID", help="A name for this mail: the same command with it sends the mail once.")
]
Queue = Annotated[
    bool,
    typer.Option(
        "--queue",
        help="Wait until the service has queued the mail, not for the relay (WAIT_FOR_QUEUE). It is guaranteed then: "
        "a durable store keeps it for the next start.",
    ),
]
Moved = Annotated[
    list[str] | None,
    typer.Option("--from-file", "--template", "--errors", "--journal", hidden=True, is_eager=True, callback=_moved),
]


@mail.command("send", cls=Command)
def send_mail(
    *,
    to: Tos = None,
    subject: Annotated[str, typer.Option(metavar="TEXT", help="The subject.")] = "",
    text: Annotated[str, typer.Option(metavar="TEXT", help="The text.")] = "",
    html: Annotated[str, typer.Option(metavar="HTML", help="The HTML.")] = "",
    cc: Ccs = None,
    bcc: Bccs = None,
    author: From = "",
    sender: Sender = "",
    return_path: ReturnPath = "",
    reply_to: ReplyTos = None,
    header: Headers = None,
    message_id: MessageId = "",
    attach: Attach = None,
    label: Labels = None,
    priority: PriorityName = "normal",
    ttl: Ttl = None,
    request_id: RequestId = "",
    queue: Queue = False,
    server: Server = "",
    as_json: Json = False,
    _: Moved = None,
) -> None:
    """Send one mail."""
    _check_given(to, text or html or attach)
    request = mail_pb2.SendMailRequest(to=to, cc=cc, bcc=bcc, reply_to=reply_to, sender=sender, return_path=return_path)
    setattr(request, "from", author)  # a keyword in Python
    request.subject, request.text, request.html, request.message_id = subject, text, html, message_id
    _add_parts(request, header or (), attach or (), label or ())
    request.priority, request.request_id = value_of("--priority", priority, _PRIORITIES), request_id
    request.wait_for = mail_pb2.WAIT_FOR_QUEUE if queue else mail_pb2.WAIT_FOR_RELAY
    if ttl is not None:
        request.ttl.CopyFrom(ttl)
    _send(request, server, as_json=as_json)


def _add_parts(
    request: mail_pb2.SendMailRequest, headers: Iterable[str], files: Iterable[Path], labels: Iterable[str]
) -> None:
    """Add the headers, the files and the labels. Raises typer.Exit with 2 for one that can't be read."""
    request.headers.extend(map(_header, headers))
    request.attachments.extend([mail_pb2.Attachment(filename=path.name, content=_content(path)) for path in files])
    request.labels.update(pairs("--label", labels, "--label campaign=spring"))


def _check_given(to: list[str] | None, content: object) -> None:
    """Raise typer.Exit with 2 for a mail to nobody, or one without content: the person forgot something."""
    if not to:
        raise wrong_usage("--to: is needed, as in --to ada@example.org")
    if not content:  # the service would send an empty mail
        raise wrong_usage("--text: is needed, as in --text 'Good morning', or --html or --attach: the mail is empty")


def _send(request: mail_pb2.SendMailRequest, server: str, *, as_json: bool) -> NoReturn:
    """Send the mail, print the answer, and end the command: with 0 if the mail has come as far as it was to."""
    request.request_id = request.request_id or uuid4().hex  # to watch the mail by it
    method = lambda channel: mail_pb2_grpc.MailServiceStub(channel).SendMail  # noqa: E731
    answer = call(server, method, request, waits_for=request.request_id)
    if as_json:
        print_json(answer)
    else:
        print_mail(answer.mail)
    # Without a wait for the relay the mail may be under way by now, or relayed.
    may_be_open = request.wait_for == mail_pb2.WAIT_FOR_QUEUE
    exit_unless(is_good(answer.mail) if may_be_open else answer.mail.state == mail_pb2.Mail.STATE_RELAYED)


def _header(text: str) -> mail_pb2.Header:
    name, colon, value = text.partition(":")
    if not colon:
        raise wrong_usage(f"--header: {text!r} has no colon; write it as in --header 'X-Campaign: spring'")
    return mail_pb2.Header(name=name.strip(), value=value.strip())


def _content(path: Path) -> bytes:
    try:
        if path.is_char_device():  # some of them never end
            raise wrong_usage(f"--attach: {path} is a device, and no file")
        return path.read_bytes()
    except OSError as error:
        raise wrong_usage(f"--attach: {path} can't be read: {error.strerror}") from None
