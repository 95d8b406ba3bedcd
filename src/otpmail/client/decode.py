"""Reads the answers of the service: messages become values, and outcomes that are no success become errors."""

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from otpmail.client import errors
from otpmail.client.status import of_code
from otpmail.client.values import (
    Address,
    Budget,
    Checked,
    Mail,
    MailResult,
    RecipientResult,
    Result,
    SentCode,
    State,
    Suppression,
)
from otpmail.v1 import address_pb2, mail_pb2, otp_pb2

_STATES: Mapping[int, State] = MappingProxyType(
    {number: State(name.removeprefix("STATE_")) for name, number in mail_pb2.Mail.State.items()}
)
_RESULTS: Mapping[int, Result] = MappingProxyType(
    {number: Result(name.removeprefix("RESULT_")) for name, number in otp_pb2.ValidateCodeResponse.Result.items()}
)
_SCOPES: Mapping[int, str] = MappingProxyType(
    {number: name.removeprefix("SCOPE_") for name, number in mail_pb2.Suppression.Scope.items()}
)
_REFUSED_FOR_GOOD = 500
_UNAVAILABLE = 14

OF_A_STOP = frozenset({"the service is stopping", "the service stopped before the mail could be sent"})
"""The words for a mail of a stream that was not sent because the service stops. Its stream ends soon."""


def _time(message: Message, name: str) -> datetime | None:
    stamp: Timestamp = getattr(message, name)
    return stamp.ToDatetime(UTC) if message.HasField(name) else None


def suppression(message: mail_pb2.Suppression) -> Suppression:
    """Read why nothing is sent to an address."""
    scope = _SCOPES.get(message.scope, "UNSPECIFIED")
    return Suppression(message.reason, _time(message, "since"), _time(message, "until"), scope)


def mail(message: mail_pb2.Mail) -> Mail:
    """Read a mail."""
    return Mail(
        id=message.id,
        state=_STATES.get(message.state, State.UNSPECIFIED),
        recipients=tuple(map(_recipient, message.recipients)),
        attempts=message.attempts,
        create_time=_time(message, "create_time"),
        settle_time=_time(message, "settle_time"),
        next_attempt_time=_time(message, "next_attempt_time"),
        message_id=message.message_id,
        request_id=message.request_id,
        labels=dict(message.labels),
        caller=message.caller,
    )


def _recipient(message: mail_pb2.RecipientResult) -> RecipientResult:
    kept = suppression(message.suppression) if message.HasField("suppression") else None
    return RecipientResult(message.address, message.code, message.enhanced_code, message.reply, kept)


def outcome(settled: Mail) -> errors.NotSent | None:
    """Return the error for how a mail ended, None where all is well or it has not ended."""
    whose = ", ".join(recipient.address for recipient in settled.recipients) or settled.id
    match settled.state:
        case State.FAILED:
            return _failure(settled, whose)
        case State.PARTIAL:
            refused = [found for found in settled.recipients if found.code >= _REFUSED_FOR_GOOD or found.suppression]
            names = ", ".join(found.address for found in refused)
            return errors.PartlySent(f"the mail was relayed, but not to {names}", settled)
        case State.EXPIRED:
            return errors.Expired(f"the mail to {whose} was not sent in its time{_last_reply(settled)}", settled)
        case State.CANCELLED:
            return errors.Cancelled(f"the mail to {whose} was cancelled", settled)
        case State.UNCERTAIN:
            return errors.Uncertain(f"the relay's reply was lost: the mail to {whose} may arrive", settled)
    return None


def _failure(settled: Mail, whose: str) -> errors.NotSent:
    for recipient in settled.recipients:
        if recipient.suppression is not None:
            reason, until = recipient.suppression.reason, recipient.suppression.until
            ends = "" if until is None else f" until {until:%Y-%m-%d %H:%M} UTC"
            text = f"nothing is sent to {recipient.address}{ends}: {reason}"
            return errors.Suppressed(text, settled, reason=reason, until=until)
    for recipient in settled.recipients:
        if recipient.code >= _REFUSED_FOR_GOOD:
            return errors.Refused(f"the relay refused {recipient.address}: {_reply(recipient)}", settled, recipient)
    return errors.NotSent(f"the mail to {whose} was not sent{_last_reply(settled)}", settled)


def _reply(recipient: RecipientResult) -> str:
    return " ".join(filter(None, (str(recipient.code), recipient.enhanced_code, recipient.reply)))


def _last_reply(settled: Mail) -> str:
    """Return the words for the last failure of a mail that reached nobody, empty where nothing is known.

    Without a code it was no reply to the recipient, and the service has worded it.
    """
    found = next((recipient for recipient in settled.recipients if recipient.reply), None)
    if found is None:
        return ""
    return f"; the relay said: {_reply(found)}" if found.code else f"; {found.reply}"


def sent_code(answer: otp_pb2.SendCodeResponse) -> SentCode:
    """Read the answer to SendCode."""
    return SentCode(
        challenge_id=answer.challenge_id,
        reference=answer.reference,
        expire_time=_time(answer, "expire_time"),
        next_send_time=_time(answer, "next_send_time"),
        mail=mail(answer.mail),
        code_length=answer.code_length,
        code_is_numeric=answer.code_is_numeric,
        otp_code=answer.otp_code,
    )


def checked(answer: otp_pb2.ValidateCodeResponse) -> Checked:
    """Read the answer to ValidateCode."""
    result = _RESULTS.get(answer.result, Result.UNSPECIFIED)
    return Checked(result, answer.attempts_left, _time(answer, "retry_time"), answer.device_token)


def not_valid(found: Checked) -> errors.NotValid | None:
    """Return the error for the outcome of a check, None for a valid code."""
    match found.result:
        case Result.VALID:
            return None
        case Result.WRONG_CODE:
            left = found.attempts_left
            return errors.WrongCode(f"the code is wrong; attempts left: {left}", attempts_left=left)
        case Result.NO_LIVE_CODE:
            return errors.NoLiveCode("no code is live for this address: request a new one")
        case Result.TOO_MANY_ATTEMPTS:
            return errors.TooManyAttempts("no attempts are left", retry_time=found.retry_time)
    return errors.NotValid("the service's answer is not known to this version of the client")


def address(answer: address_pb2.GetAddressResponse) -> Address:
    """Read the answer to GetAddress."""
    kept = suppression(answer.suppression) if answer.HasField("suppression") else None
    budgets = [Budget(found.name, found.spent, found.limit, _time(found, "reset_time")) for found in answer.budgets]
    return Address(kept, tuple(budgets))


def is_unavailable(message: mail_pb2.SendMailsResponse.Result) -> bool:
    """Whether the service could not take a mail at this time. It can be sent again by its request_id."""
    return message.code == _UNAVAILABLE


def is_of_a_stop(message: mail_pb2.SendMailsResponse.Result) -> bool:
    """Whether a mail was not sent because the service stops, so that it can be sent by the next process."""
    return is_unavailable(message) and message.message in OF_A_STOP


def result(message: mail_pb2.SendMailsResponse.Result) -> MailResult:
    """Read the result of one mail of a stream. Its error is of the mail's outcome, or of the refusal of the mail."""
    if message.code:
        return MailResult(message.request_id, None, of_code(message.code, message.message))
    settled = mail(message.mail)
    return MailResult(message.request_id, settled, outcome(settled))
