"""The calls that callers in Python make, by the names of their methods: each raises unless it succeeded."""

from __future__ import annotations  # generated stubs name types that exist for the type checker alone

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc.aio

from benchmarks.load.sample_mail import SUBJECT, recipient, text
from otpmail.original import mail_pb2, mail_pb2_grpc
from otpmail.v1 import mail_pb2 as v1_mail_pb2
from otpmail.v1 import mail_pb2_grpc as v1_mail_pb2_grpc
from otpmail.v1 import otp_pb2, otp_pb2_grpc

Call = Callable[[int], Awaitable[None]]
"""Makes the call with this number."""

Metadata = tuple[tuple[str, str], ...]

REPEATABLE = "SendMail with a request_id"

ANY_CODE = "123456"  # where the server only echoes


def request(number: int) -> mail_pb2.SendEmailRequest:
    """The request of `mail.MailService/SendMail` for the mail with this number."""
    return mail_pb2.SendEmailRequest(to=recipient(number), subject=SUBJECT, body=text(number))


def holder(number: int) -> str:
    """The address that gets the code with this number; each its own, since OTP_RESEND_SECONDS delays a second code."""
    return f"holder.{number}@example.org"


async def send_code(codes: otp_pb2_grpc.OtpServiceAsyncStub, number: int, metadata: Metadata = ()) -> str:
    """Have the code with this number mailed, and return it where OTP_RETURN_CODE is set."""
    sent = await codes.SendCode(otp_pb2.SendCodeRequest(email=holder(number)), metadata=metadata)
    if sent.mail.state != v1_mail_pb2.Mail.STATE_RELAYED:
        raise RuntimeError(f"the mail of a code is not RELAYED: {sent.mail}")
    return sent.otp_code


async def validate_code(
    codes: otp_pb2_grpc.OtpServiceAsyncStub, number: int, code: str, metadata: Metadata = ()
) -> None:
    """Validate the code with this number. Raises RuntimeError unless it is valid."""
    wanted = otp_pb2.ValidateCodeRequest(email=holder(number), code=code)
    check = await codes.ValidateCode(wanted, metadata=metadata)
    if check.result != otp_pb2.ValidateCodeResponse.RESULT_VALID:
        raise RuntimeError(f"code {number} is not valid: {check}")


def _send_mail(channel: grpc.aio.Channel, _: list[str], metadata: Metadata) -> Call:
    mails: mail_pb2_grpc.MailServiceAsyncStub = mail_pb2_grpc.MailServiceStub(channel)

    async def call(number: int) -> None:
        await mails.SendMail(request(number), metadata=metadata)

    return call


def _send_repeatable_mail(channel: grpc.aio.Channel, _: list[str], metadata: Metadata) -> Call:
    mails: v1_mail_pb2_grpc.MailServiceAsyncStub = v1_mail_pb2_grpc.MailServiceStub(channel)

    async def call(number: int) -> None:
        asked = v1_mail_pb2.SendMailRequest(
            to=[recipient(number)], subject=SUBJECT, text=text(number), request_id=f"r{number}"
        )
        sent = await mails.SendMail(asked, metadata=metadata)
        if sent.mail.state != v1_mail_pb2.Mail.STATE_RELAYED:
            raise RuntimeError(f"a mail is not RELAYED: {sent.mail}")

    return call


def _send_code(channel: grpc.aio.Channel, _: list[str], metadata: Metadata) -> Call:
    codes: otp_pb2_grpc.OtpServiceAsyncStub = otp_pb2_grpc.OtpServiceStub(channel)

    async def call(number: int) -> None:
        await send_code(codes, number, metadata)

    return call


def _validate_code(channel: grpc.aio.Channel, issued: list[str], metadata: Metadata) -> Call:
    codes: otp_pb2_grpc.OtpServiceAsyncStub = otp_pb2_grpc.OtpServiceStub(channel)

    async def call(number: int) -> None:
        await validate_code(codes, number, issued[number] if issued else ANY_CODE, metadata)

    return call


METHODS: dict[str, Callable[[grpc.aio.Channel, list[str], Metadata], Call]] = {
    "SendMail": _send_mail,  # of the original contract
    REPEATABLE: _send_repeatable_mail,
    "SendCode": _send_code,
    "ValidateCode": _validate_code,
}


def metadata_of(token: str) -> Metadata:
    """Return the metadata of a caller with this token, if there is one."""
    return (("authorization", f"Bearer {token}"),) if token else ()


def make_call(method: str, channel: grpc.aio.Channel, codes_file: Path | None = None, token: str = "") -> Call:
    """Return the call of this method, with a token if there is one.

    `codes_file` has the codes to validate as a JSON list, from number 0 on.
    """
    issued = json.loads(codes_file.read_text(encoding="utf-8")) if codes_file else []
    return METHODS[method](channel, issued, metadata_of(token))
