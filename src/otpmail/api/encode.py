"""Encodes the model as messages of otpmail.v1."""

from google.protobuf.timestamp_pb2 import Timestamp

from otpmail.model import Mail, MailState
from otpmail.suppression import Suppression, SuppressionScope
from otpmail.v1 import mail_pb2

_SCOPES = {scope: mail_pb2.Suppression.Scope.Value(f"SCOPE_{scope.name}") for scope in SuppressionScope}
_STATES = {state: mail_pb2.Mail.State.Value(f"STATE_{state.name}") for state in MailState}


def timestamp(seconds: float) -> Timestamp:
    """Seconds since the epoch as a Timestamp, to the microsecond."""
    stamp = Timestamp()
    fill_timestamp(stamp, seconds)
    return stamp


def fill_timestamp(stamp: Timestamp, seconds: float) -> None:
    """Write it into an empty Timestamp. One that is part of a message is filled there: to set it later copies it."""
    stamp.seconds, microseconds = divmod(int(seconds * 1_000_000 + 0.5), 1_000_000)
    stamp.nanos = microseconds * 1000


def mail_message(mail: Mail) -> mail_pb2.Mail:
    """Encode a mail as otpmail.v1.Mail."""
    message = mail_pb2.Mail()
    fill_mail(message, mail)
    return message


def fill_mail(message: mail_pb2.Mail, mail: Mail) -> None:
    """Encode a mail into an empty message, for one that is part of another; see `fill_timestamp`."""
    message.id = mail.id
    message.state = _STATES[mail.state]
    for known in mail.recipients:
        result = message.recipients.add()
        result.address, result.code = known.address, known.code
        result.enhanced_code, result.reply = known.enhanced_code, known.reply
        if known.suppression is not None:
            fill_suppression(result.suppression, known.suppression)
    message.attempts = mail.attempts
    fill_timestamp(message.create_time, mail.create_time)
    if mail.settle_time is not None:
        fill_timestamp(message.settle_time, mail.settle_time)
    message.message_id = mail.message_id
    message.request_id = mail.request_id
    if mail.labels:
        message.labels.update(mail.labels)
    if mail.next_attempt_time is not None:
        fill_timestamp(message.next_attempt_time, mail.next_attempt_time)


def fill_suppression(message: mail_pb2.Suppression, suppression: Suppression) -> None:
    """Encode why nothing is sent to an address into an empty message; see `fill_timestamp`."""
    message.reason = suppression.reason
    fill_timestamp(message.since, suppression.since)
    fill_timestamp(message.until, suppression.until)
    message.scope = _SCOPES[suppression.scope]
