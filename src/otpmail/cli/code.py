"""`otpmail code`: sends a one-time code to a mailbox, checks the code that the person typed, and revokes it."""

from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import uuid4

import typer
from rich.markup import escape

from otpmail.cli.call import call
from otpmail.cli.help import Command, Group
from otpmail.cli.options import Json, Server, pairs
from otpmail.cli.output import exit_unless, out, print_json, print_mail, spoken, utc, wrong_usage
from otpmail.counts import counted
from otpmail.model import ALPHABET, LONG
from otpmail.otp.codes import normalize
from otpmail.otp.request import DEFAULT_PURPOSE
from otpmail.v1 import mail_pb2, otp_pb2, otp_pb2_grpc

code = typer.Typer(cls=Group, help="Send, check and revoke one-time codes.", no_args_is_help=True)

Email = Annotated[str, typer.Argument(metavar="EMAIL", help="The mailbox, such as ada@example.org.")]
Purpose = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help=f"The purpose of the code. A code for one purpose is wrong for another. Default: {DEFAULT_PURPOSE}.",
    ),
]
Session = Annotated[
    str, typer.Option(metavar="ID", help="The person's session. A code of one session is wrong for another.")
]
DeviceToken = Annotated[
    str,
    typer.Option(metavar="TOKEN", help="The token of the person's device, which a valid check prints with --json."),
]
ClientIp = Annotated[
    str, typer.Option(metavar="ADDRESS", help="The person's IP address, for the limits of mails to many addresses.")
]

Variables = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="A value for the mail's template. May be given several times."),
]
RequestId = Annotated[
    str, typer.Option(metavar="ID", help="A name for this check: repeated within a minute it has the same answer.")
]

_GOT_BY_NOBODY = frozenset({mail_pb2.Mail.STATE_FAILED, mail_pb2.Mail.STATE_EXPIRED, mail_pb2.Mail.STATE_CANCELLED})
"""The states of a mail whose code no person has. After UNCERTAIN the mail may arrive."""


@code.command("send", cls=Command)
def send_code(
    email: Email,
    *,
    purpose: Purpose = "",
    locale: Annotated[str, typer.Option(metavar="LANGUAGE", help="The mail's language, such as de or pt-BR.")] = "",
    request_id: Annotated[
        str,
        typer.Option(metavar="ID", help="A name for this mail: the same command with it sends one mail and one code."),
    ] = "",
    session: Session = "",
    device_token: DeviceToken = "",
    client_ip: ClientIp = "",
    var: Variables = None,
    server: Server = "",
    as_json: Json = False,
) -> None:
    """Mail a one-time code."""
    request = otp_pb2.SendCodeRequest(
        email=email,
        purpose=purpose,
        locale=locale,
        request_id=request_id or uuid4().hex,  # to watch the mail by it
        session=session,
        device_token=device_token,
        client_ip=client_ip,
        variables=pairs("--var", var or (), "--var product=Acme"),
    )
    method = lambda channel: otp_pb2_grpc.OtpServiceStub(channel).SendCode  # noqa: E731
    answer = call(server, method, request, waits_for=request.request_id)
    if as_json:
        print_json(answer)
    else:
        print_mail(answer.mail)
    if answer.challenge_id and not as_json and answer.mail.state not in _GOT_BY_NOBODY:
        shown = f", code {answer.otp_code}" if answer.otp_code else ""
        shows = "in the mail too, unless OTP_SHOW_REFERENCE is false"
        out.print(f"reference {answer.reference} ({shows}), valid for {_life(answer)}{shown}")
    exit_unless(answer.mail.state == mail_pb2.Mail.STATE_RELAYED)


@code.command("validate", cls=Command)
def validate_code(
    email: Email,
    typed: Annotated[str, typer.Argument(metavar="CODE", help="The code as the person typed it.")],
    *,
    purpose: Purpose = "",
    session: Session = "",
    device_token: DeviceToken = "",
    challenge_id: Annotated[
        str, typer.Option(metavar="ID", help="Only the code of this one is valid. Default: whichever is live.")
    ] = "",
    request_id: RequestId = "",
    server: Server = "",
    as_json: Json = False,
) -> None:
    """Check a code. A valid code is valid once. With --json the answer has the token of the person's device."""
    characters = normalize(typed)
    if not characters:
        raise wrong_usage("CODE: is empty; give the code as the person typed it")
    is_number = characters.isascii() and characters.isdecimal()
    if not (is_number or (len(characters) <= LONG and set(characters.upper()) <= set(ALPHABET))):
        # It says more than "wrong code".
        raise wrong_usage(f"{typed!r} is not a code: a code has digits only, or at most {LONG} letters of {ALPHABET}")
    request = otp_pb2.ValidateCodeRequest(
        email=email,
        code=typed,
        purpose=purpose,
        session=session,
        device_token=device_token,
        challenge_id=challenge_id,
        request_id=request_id,
    )
    answer = call(server, lambda channel: otp_pb2_grpc.OtpServiceStub(channel).ValidateCode, request)
    valid = answer.result == otp_pb2.ValidateCodeResponse.RESULT_VALID
    if as_json:
        print_json(answer)
    else:
        out.print(_describe(answer), style="green" if valid else "red")
    exit_unless(valid)


@code.command("revoke", cls=Command)
def revoke_code(
    email: Email,
    *,
    purpose: Purpose = "",
    challenge_id: Annotated[
        str, typer.Option(metavar="ID", help="End the code only if it is this one. Default: whichever is live.")
    ] = "",
    session: Session = "",
    server: Server = "",
    as_json: Json = False,
) -> None:
    """End a live code, so that it is not valid any more. Without a live code it does nothing."""
    request = otp_pb2.RevokeCodeRequest(email=email, purpose=purpose, challenge_id=challenge_id, session=session)
    answer = call(server, lambda channel: otp_pb2_grpc.OtpServiceStub(channel).RevokeCode, request)
    if as_json:
        print_json(answer)
    else:
        what = f"for {escape(email)} and the purpose {escape(purpose or DEFAULT_PURPOSE)}"
        ended = f"that code is not valid {what} now" if challenge_id else f"no code {what} is valid now"
        out.print(f"{ended}; codes for other purposes are left alone", style="green")


def _life(answer: otp_pb2.SendCodeResponse) -> str:
    """Return for how long a code is valid from its mail on: both times are of the service's clock."""
    life = answer.expire_time.ToDatetime(UTC) - answer.mail.create_time.ToDatetime(UTC)
    return f"{spoken(life.total_seconds())} (until {utc(answer.expire_time)})"


def _describe(answer: otp_pb2.ValidateCodeResponse) -> str:
    result = otp_pb2.ValidateCodeResponse.Result.Name(answer.result)
    result = result.removeprefix("RESULT_").lower().replace("_", " ")
    if answer.result == otp_pb2.ValidateCodeResponse.RESULT_TOO_MANY_ATTEMPTS and answer.HasField("retry_time"):
        if answer.retry_time.ToDatetime(UTC) < datetime.now(UTC) + timedelta(seconds=1):
            return f"{result}, ask for a new code"
        return f"{result}, a new code may be sent from {utc(answer.retry_time)} on"
    if answer.result != otp_pb2.ValidateCodeResponse.RESULT_WRONG_CODE:
        return result
    return f"{result}, {counted(answer.attempts_left, 'attempt')} left"
