"""The client: send and check codes, send mails, ask for health. Answers for people, or with --json for programs."""

import json
import mimetypes
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import grpc
import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console
from rich.markup import escape

from otpmail.cli import target
from otpmail.errors import SettingsError
from otpmail.otp.codes import normalize
from otpmail.v1 import mail_pb2, mail_pb2_grpc, otp_pb2, otp_pb2_grpc

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3

AnswerT = TypeVar("AnswerT", bound=Message)

_TIMEOUT_SECONDS = 60.0
_HEALTH_TIMEOUT_SECONDS = 5.0
_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)

code = typer.Typer(help="Send and check one-time codes.", no_args_is_help=True)
mail = typer.Typer(help="Send mails.", no_args_is_help=True)

Server = Annotated[
    str, typer.Option(envvar="OTPMAIL_SERVER", help="host:port or unix:PATH; else what HOST and PORT name here.")
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
        _print_json(answer)
    else:
        _print_mail(answer.mail)
        shown = f", code {answer.otp_code}" if answer.otp_code else ""
        _out.print(f"reference {answer.reference}, valid until {answer.expire_time.ToJsonString()}{shown}")
    _exit_unless(answer.mail.state == mail_pb2.Mail.RELAYED)


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
        raise _wrong_usage("CODE: is not a code, which has digits only")
    request = otp_pb2.ValidateCodeRequest(email=email, code=typed, purpose=purpose)
    answer = _call(server, lambda channel: otp_pb2_grpc.OtpServiceStub(channel).ValidateCode, request)
    valid = answer.result == otp_pb2.ValidateCodeResponse.VALID
    if as_json:
        _print_json(answer)
    else:
        _out.print(_checked(answer), style="green" if valid else "red")
    _exit_unless(valid)


@mail.command("send")
def send_mail(
    *,
    to: Annotated[list[str], typer.Option(help="A recipient; may stand several times.")],
    subject: Annotated[str, typer.Option()] = "",
    text: Annotated[str, typer.Option(help="The text.")] = "",
    html: Annotated[str, typer.Option(help="The HTML.")] = "",
    cc: Annotated[list[str] | None, typer.Option()] = None,
    bcc: Annotated[list[str] | None, typer.Option()] = None,
    sender: Annotated[str, typer.Option("--from", help="Who it is from; EMAIL_FROM when left out.")] = "",
    reply_to: Annotated[str, typer.Option()] = "",
    attach: Annotated[list[Path] | None, typer.Option(exists=True, dir_okay=False, help="A file to attach.")] = None,
    queue: Annotated[bool, typer.Option("--queue", help="Do not wait for the relay, only for the promise.")] = False,
    server: Server = "",
    as_json: Json = False,
) -> None:
    """Send a mail."""
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
        _print_json(answer)
    else:
        _print_mail(answer.mail)
    _exit_unless(answer.mail.state == (mail_pb2.Mail.QUEUED if queue else mail_pb2.Mail.RELAYED))


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
        _print_json(answer)
    else:
        name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        _out.print(name, style="green" if serving else "red")
    _exit_unless(serving)


def _call(
    server: str,
    method: Callable[[grpc.Channel], Callable[..., AnswerT]],
    request: Message,
    timeout: float = _TIMEOUT_SECONDS,
) -> AnswerT:
    try:
        address = server or target.own_address()
    except SettingsError as error:
        raise _wrong_usage(str(error)) from None
    with grpc.insecure_channel(address) as channel:
        try:
            return method(channel)(request, timeout=timeout)
        except grpc.RpcError as error:
            code, said = error.code(), _in_words(error, address, timeout)
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        raise _wrong_usage(said)
    _err.print(escape(said), style="red")
    raise typer.Exit(EXIT_UNREACHABLE)


def _in_words(error: grpc.RpcError, address: str, timeout: float) -> str:
    """What the service said; in our own words where it was gRPC on this side that spoke, not the service."""
    details: Any = error.trailing_metadata()  # pairs, which the stubs do not know
    from_service = any(key == "grpc-status-details-bin" for key, _ in details or ())
    if error.code() is grpc.StatusCode.UNAVAILABLE and not from_service:
        return target.unreachable(address)
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and not from_service:
        return f"no answer from {address} within {timeout:g} s"
    return f"{error.code().name}: {error.details() or ''}"


def _wrong_usage(problem: str) -> typer.Exit:
    _err.print(escape(problem), style="red")
    return typer.Exit(EXIT_USAGE)


def _checked(answer: otp_pb2.ValidateCodeResponse) -> str:
    result = otp_pb2.ValidateCodeResponse.Result.Name(answer.result).lower().replace("_", " ")
    if answer.result != otp_pb2.ValidateCodeResponse.WRONG_CODE:
        return result
    return f"{result}, {answer.attempts_left} {'attempt' if answer.attempts_left == 1 else 'attempts'} left"


def _attachment(path: Path) -> mail_pb2.Attachment:
    content_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return mail_pb2.Attachment(filename=path.name, content_type=content_type, content=path.read_bytes())


def _print_json(answer: Message) -> None:
    print(json.dumps(MessageToDict(answer, preserving_proto_field_name=True)))  # noqa: T201  for programs: no markup


def _print_mail(answer: mail_pb2.Mail) -> None:
    good = answer.state in {mail_pb2.Mail.RELAYED, mail_pb2.Mail.QUEUED}
    _out.print(f"mail {answer.id}: {mail_pb2.Mail.State.Name(answer.state).lower()}", style="green" if good else "red")
    for result in answer.recipients:
        said = " ".join(filter(None, (str(result.code or ""), result.enhanced_code, result.reply)))
        _out.print(f"  {escape(result.address)}: {escape(said) or 'no answer yet'}")


def _exit_unless(good: bool) -> NoReturn:  # noqa: FBT001  reads as a sentence
    raise typer.Exit(0 if good else EXIT_FAILED)
