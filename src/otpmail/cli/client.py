"""The client: send and check codes, send mails, ask for health. Answers for people, or with --json for programs."""

import mimetypes
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import grpc
import typer
from google.protobuf.message import Message
from rich.markup import escape

from otpmail.cli import endpoint
from otpmail.cli.output import (
    EXIT_UNREACHABLE,
    address_of,
    err,
    exit_unless,
    in_words,
    out,
    print_json,
    print_mail,
    wrong_usage,
)
from otpmail.errors import SettingsError
from otpmail.otp.codes import normalize
from otpmail.v1 import mail_pb2, mail_pb2_grpc, otp_pb2, otp_pb2_grpc

AnswerT = TypeVar("AnswerT", bound=Message)

_TIMEOUT_SECONDS = 60.0
_HEALTH_TIMEOUT_SECONDS = 5.0

_FROM_FILE = (
    "A CSV file in UTF-8 whose first row names its columns: email, and variables for --template. One mail for each "
    "further row. Mails that are the same are sent once, also when the file is sent again: --journal says who got it."
)
_TEMPLATE = (
    "With --from-file: a folder with subject.txt, and body.txt, body.html or both. $name stands for a column, "
    "$$ for a dollar sign; values are escaped in the HTML."
)
_ERRORS = "With --from-file: where mails that were not relayed are listed; FILE.errors.csv beside it when left out."

_JOURNAL = (
    "With --from-file: where it is noted who got the mail, and so gets it no second time; FILE.journal beside it when "
    "left out. To start over, delete it; for a day, or until it is restarted, the service itself remembers, too."
)

code = typer.Typer(help="Send and check one-time codes.", no_args_is_help=True)
mail = typer.Typer(help="Send mails.", no_args_is_help=True)


def _well_formed(server: str) -> str:
    try:
        return server and endpoint.well_formed(server, "--server")
    except SettingsError as error:
        raise wrong_usage(str(error)) from None


Server = Annotated[
    str,
    typer.Option(
        callback=_well_formed,
        help="host:port or unix:PATH; else what OTPMAIL_SERVER names, or HOST and PORT do here.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
Purpose = Annotated[str, typer.Option(help="What the code is for; codes of one purpose fail for another.")]
Email = Annotated[str, typer.Argument(help="The mailbox, as ada@example.org.")]


@code.command("send")
def send_code(
    email: Email,
    *,
    purpose: Purpose = "",
    locale: Annotated[str, typer.Option(help="The mail's language, as de or pt-BR.")] = "",
    server: Server = "",
    as_json: Json = False,
) -> None:
    """Mail a one-time code."""
    request = otp_pb2.SendCodeRequest(email=email, purpose=purpose, locale=locale)
    answer = _call(server, lambda channel: otp_pb2_grpc.OtpServiceStub(channel).SendCode, request)
    if as_json:
        print_json(answer)
    else:
        print_mail(answer.mail)
        shown = f", code {answer.otp_code}" if answer.otp_code else ""
        out.print(f"reference {answer.reference}, valid until {answer.expire_time.ToJsonString()}{shown}")
    exit_unless(answer.mail.state == mail_pb2.Mail.RELAYED)


@code.command("validate")
def validate_code(
    email: Email,
    typed: Annotated[str, typer.Argument(metavar="CODE", help="The code as the person typed it.")],
    *,
    purpose: Purpose = "",
    server: Server = "",
    as_json: Json = False,
) -> None:
    """Check a code; a right one is used up."""
    meant = normalize(typed)
    if not (meant.isascii() and meant.isdecimal()):  # a slip here costs nothing; at the service it costs an attempt
        raise wrong_usage("CODE: is not a code, which has digits only")
    request = otp_pb2.ValidateCodeRequest(email=email, code=typed, purpose=purpose)
    answer = _call(server, lambda channel: otp_pb2_grpc.OtpServiceStub(channel).ValidateCode, request)
    valid = answer.result == otp_pb2.ValidateCodeResponse.VALID
    if as_json:
        print_json(answer)
    else:
        out.print(_checked(answer), style="green" if valid else "red")
    exit_unless(valid)


@mail.command("send")
def send_mail(
    *,
    to: Annotated[list[str] | None, typer.Option(help="A recipient; may stand several times.")] = None,
    subject: Annotated[str, typer.Option()] = "",
    text: Annotated[str, typer.Option(help="The text.")] = "",
    html: Annotated[str, typer.Option(help="The HTML.")] = "",
    cc: Annotated[list[str] | None, typer.Option()] = None,
    bcc: Annotated[list[str] | None, typer.Option()] = None,
    sender: Annotated[str, typer.Option("--from", help="Who it is from; EMAIL_FROM when left out.")] = "",
    reply_to: Annotated[str, typer.Option()] = "",
    attach: Annotated[list[Path] | None, typer.Option(exists=True, dir_okay=False, help="A file to attach.")] = None,
    queue: Annotated[bool, typer.Option("--queue", help="Do not wait for the relay, only for the promise.")] = False,
    from_file: Annotated[Path | None, typer.Option(dir_okay=False, help=_FROM_FILE)] = None,
    template: Annotated[Path | None, typer.Option(file_okay=False, help=_TEMPLATE)] = None,
    errors: Annotated[Path | None, typer.Option(dir_okay=False, help=_ERRORS)] = None,
    journal: Annotated[Path | None, typer.Option(dir_okay=False, help=_JOURNAL)] = None,
    server: Server = "",
    as_json: Json = False,
) -> None:
    """Send a mail; with --from-file, one to each recipient in a file, from a template."""
    if from_file is not None:
        own = {"--to": to, "--subject": subject, "--text": text, "--html": html, "--cc": cc, "--bcc": bcc}
        _refuse_beside("--from-file", own | {"--attach": attach, "--queue": queue})
        if template is None:
            raise wrong_usage("--template: is needed with --from-file")
        from otpmail.cli.merge.command import merge

        merge(
            from_file,
            template,
            errors=errors,
            journal=journal,
            sender=sender,
            reply_to=reply_to,
            server=server,
            as_json=as_json,
        )
    for option, value in (("--template", template), ("--errors", errors), ("--journal", journal)):
        if value is not None:
            raise wrong_usage(f"{option}: goes with --from-file only")
    if not to:
        raise wrong_usage("--to: is needed, or --from-file")
    if not (text or html or attach):  # the service would send it empty: some callers mean it, a person mostly forgot
        raise wrong_usage(
            "--text: is needed, as in --text 'Good morning', or --html or --attach: the mail has nothing in it"
        )
    request = mail_pb2.SendMailRequest(
        to=to,
        cc=cc or [],
        bcc=bcc or [],
        subject=subject,
        text=text,
        html=html,
        reply_to=reply_to,
        attachments=[_attachment(path) for path in attach or []],
        wait_for=mail_pb2.WAIT_FOR_QUEUE if queue else mail_pb2.WAIT_FOR_RELAY,
    )
    setattr(request, "from", sender)  # a keyword in Python
    answer = _call(server, lambda channel: mail_pb2_grpc.MailServiceStub(channel).SendMail, request)
    if as_json:
        print_json(answer)
    else:
        print_mail(answer.mail)
    exit_unless(answer.mail.state == (mail_pb2.Mail.QUEUED if queue else mail_pb2.Mail.RELAYED))


def _refuse_beside(option: str, others: dict[str, object]) -> None:
    given = [name for name, value in others.items() if value]
    if given:
        raise wrong_usage(*(f"{name}: can't stand beside {option}" for name in given))


def health(
    service: Annotated[str, typer.Argument(help="A service's full name; all of them when left out.")] = "",
    *,
    server: Server = "",
    as_json: Json = False,
) -> None:
    """Ask a running service whether it serves."""
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    def check(channel: grpc.Channel) -> Callable[..., health_pb2.HealthCheckResponse]:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # whose types know no methods
        method: Callable[..., health_pb2.HealthCheckResponse] = stub.Check
        return method

    answer = _call(server, check, health_pb2.HealthCheckRequest(service=service), _HEALTH_TIMEOUT_SECONDS)
    serving = answer.status == health_pb2.HealthCheckResponse.SERVING
    if as_json:
        print_json(answer)
    else:
        name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        out.print(name, style="green" if serving else "red")
    exit_unless(serving)


def _call(
    server: str,
    method: Callable[[grpc.Channel], Callable[..., AnswerT]],
    request: Message,
    timeout: float = _TIMEOUT_SECONDS,
) -> AnswerT:
    address = address_of(server)
    with grpc.insecure_channel(address) as channel:
        try:
            return method(channel)(request, timeout=timeout)
        except grpc.RpcError as error:
            code, said = error.code(), in_words(error, address, timeout)
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        raise wrong_usage(said)
    err.print(escape(said), style="red")
    raise typer.Exit(EXIT_UNREACHABLE)


def _checked(answer: otp_pb2.ValidateCodeResponse) -> str:
    result = otp_pb2.ValidateCodeResponse.Result.Name(answer.result).lower().replace("_", " ")
    if answer.result != otp_pb2.ValidateCodeResponse.WRONG_CODE:
        return result
    return f"{result}, {answer.attempts_left} {'attempt' if answer.attempts_left == 1 else 'attempts'} left"


def _attachment(path: Path) -> mail_pb2.Attachment:
    content_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return mail_pb2.Attachment(filename=path.name, content_type=content_type, content=path.read_bytes())
