"""The contract of the original server (package `mail`), with the answers and messages that its clients expect."""

from otpmail.address import parse_mailbox
from otpmail.api.calls import Context, call_from
from otpmail.api.status import trailers_of
from otpmail.blanks import trim
from otpmail.compose.draft import LARGE, Draft, check_bodies
from otpmail.errors import (
    CallerError,
    FailedPrecondition,
    InvalidArgument,
    LimitExceeded,
    MemoryFull,
    QueueFull,
    Unavailable,
)
from otpmail.mail.service import MailService
from otpmail.mail.submission import Submission
from otpmail.model import CheckResult, Mail, MailState, RecipientResult
from otpmail.original import mail_pb2, mail_pb2_grpc
from otpmail.otp.request import MAX_CODE, CheckRequest, CodeRequest
from otpmail.otp.service import OtpService
from otpmail.smtp.reply_kind import refuses_mail

_FIELDS = {"text": "body"}
_NO_RECIPIENT = "recipient email is required"  # the original's whole text, which its clients may compare
_ENDS = {
    MailState.FAILED: "the mail could not be sent; try again later",
    MailState.EXPIRED: "the mail was not sent in time; try again later",
    MailState.CANCELLED: "the mail was cancelled before it was sent",
    MailState.UNCERTAIN: "the relay may have accepted the mail, but its reply was lost; another try may send it twice",
}


class CompatOtpServicer(mail_pb2_grpc.OtpServiceServicer):
    """mail.OtpService."""

    def __init__(self, codes: OtpService) -> None:
        self._codes = codes

    async def SendCode(self, request: mail_pb2.SendCodeRequest, context: Context) -> mail_pb2.SendCodeResponse:
        """Issue a code and mail it. Answers FAILED with gRPC status OK for a mail that no relay has accepted.

        A text that is no address is FAILED too, since no relay can accept a mail to it. So is an address whose wrong
        codes are too many, with the time to wait in the trailers. These clients need not wait between two mails: the
        original server let them call ten times at once.
        """
        try:
            sent = await self._codes.send_code(call_from(context), CodeRequest(email=request.email, compat=True))
        except Unavailable:
            return mail_pb2.SendCodeResponse(status=mail_pb2.FAILED)
        except (QueueFull, MemoryFull):
            raise
        except LimitExceeded as error:
            context.set_trailing_metadata(trailers_of(error))
            return mail_pb2.SendCodeResponse(status=mail_pb2.FAILED)
        except InvalidArgument as error:
            if error.field != "email":
                raise
            return mail_pb2.SendCodeResponse(status=mail_pb2.FAILED)
        if sent.mail.state is not MailState.RELAYED:
            return mail_pb2.SendCodeResponse(status=mail_pb2.FAILED)
        return mail_pb2.SendCodeResponse(status=mail_pb2.SUCCESS, otpCode=sent.code)

    async def ValidateCode(
        self, request: mail_pb2.ValidateCodeRequest, context: Context
    ) -> mail_pb2.ValidateCodeResponse:
        """Check a code; SUCCESS says that there was one to compare with, not that it matched.

        A text that is no address has no code, and one that is too long is as wrong as an empty one.
        """
        typed = request.otpCode if len(request.otpCode) <= MAX_CODE else ""
        try:
            checked = await self._codes.validate_code(
                call_from(context), CheckRequest(email=request.email, code=typed, compat=True)
            )
        except InvalidArgument:
            return mail_pb2.ValidateCodeResponse(status=mail_pb2.FAILED)
        except LimitExceeded as error:
            context.set_trailing_metadata(trailers_of(error))
            return mail_pb2.ValidateCodeResponse(status=mail_pb2.FAILED)
        result = checked.check.result
        if checked.refusal is not None:
            context.set_trailing_metadata(trailers_of(checked.refusal))
        compared = result in {CheckResult.VALID, CheckResult.WRONG_CODE}
        return mail_pb2.ValidateCodeResponse(
            status=mail_pb2.SUCCESS if compared else mail_pb2.FAILED, isValid=result is CheckResult.VALID
        )


class CompatMailServicer(mail_pb2_grpc.MailServiceServicer):
    """mail.MailService."""

    def __init__(self, mails: MailService) -> None:
        self._mails = mails

    async def SendMail(self, request: mail_pb2.SendEmailRequest, context: Context) -> mail_pb2.SendEmailResponse:
        """Send one text mail; any failure is a gRPC error.

        A mail that goes on without its caller is FAILED with OK. UNAVAILABLE would let clients and proxies with a retry
        policy send it twice.
        """
        if not trim(request.to):
            raise InvalidArgument("to", _NO_RECIPIENT, text=_NO_RECIPIENT)
        try:
            sending = self._mails.send(call_from(context), Submission(draft=await self._draft(request)))
            del request  # which may be large, and the relay slow
            mail = await sending
        except InvalidArgument as error:
            raise _in_their_words(error) from None
        if not mail.state.final:
            return mail_pb2.SendEmailResponse(status=mail_pb2.FAILED)
        if mail.state is not MailState.RELAYED:
            raise _failure(mail)
        return mail_pb2.SendEmailResponse(status=mail_pb2.SUCCESS)

    async def _draft(self, request: mail_pb2.SendEmailRequest) -> Draft:
        to, body = parse_mailbox(request.to, "to"), request.body
        limits, is_large = self._mails.limits, len(body) > LARGE
        if is_large:
            await self._mails.cooperator.run(check_bodies(body, "", limits))
        return Draft(limits=limits, bodies_checked=is_large, to=(to,), subject=request.subject, text=body)


def _in_their_words(error: InvalidArgument) -> InvalidArgument:
    """The error with the field's name as this contract has it."""
    return InvalidArgument(_FIELDS.get(error.field, error.field), error.description)


def _failure(mail: Mail) -> CallerError:
    """The error for a mail that is not sent. A permanent rejection is FailedPrecondition: a retry makes no sense."""
    result = mail.recipients[0] if mail.recipients else RecipientResult("")
    if result.suppression is not None:
        return FailedPrecondition(f"the relay refused this address before: {result.suppression.reason}")
    if refuses_mail(result) and mail.state is MailState.FAILED:  # an uncertain one's earlier copy may have arrived
        return FailedPrecondition(f"the relay refused the mail: {result.said}")
    return Unavailable(f"{_ENDS[mail.state]}: {result.said or 'the relay gave no answer'}")
