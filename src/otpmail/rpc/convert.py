"""From the model to the messages of otpmail.v1 and back."""

import hashlib

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from otpmail.errors import InvalidArgument
from otpmail.model import Mail, MailState, Priority, WaitFor
from otpmail.v1 import mail_pb2

_STATES = {state: mail_pb2.Mail.State.Value(state.name) for state in MailState}
_PRIORITIES = {
    mail_pb2.PRIORITY_UNSPECIFIED: Priority.NORMAL,
    mail_pb2.PRIORITY_NORMAL: Priority.NORMAL,
    mail_pb2.PRIORITY_BULK: Priority.BULK,
    mail_pb2.PRIORITY_URGENT: Priority.URGENT,
}
_WAIT_FOR = {
    mail_pb2.WAIT_FOR_UNSPECIFIED: WaitFor.RELAY,
    mail_pb2.WAIT_FOR_RELAY: WaitFor.RELAY,
    mail_pb2.WAIT_FOR_QUEUE: WaitFor.QUEUE,
}


def timestamp(seconds: float) -> Timestamp:
    """Seconds since the epoch as a Timestamp, to the microsecond."""
    stamp = Timestamp()
    stamp.FromMicroseconds(round(seconds * 1_000_000))
    return stamp


def mail_message(mail: Mail) -> mail_pb2.Mail:
    """A mail as otpmail.v1.Mail."""
    return mail_pb2.Mail(
        id=mail.id,
        state=_STATES[mail.state],
        recipients=[
            mail_pb2.RecipientResult(
                address=result.address, code=result.code, enhanced_code=result.enhanced_code, reply=result.reply
            )
            for result in mail.recipients
        ],
        attempts=mail.attempts,
        create_time=timestamp(mail.create_time),
        settle_time=None if mail.settle_time is None else timestamp(mail.settle_time),
        message_id=mail.message_id,
        request_id=mail.request_id,
    )


def priority(value: int) -> Priority:
    """A request's priority. Raises InvalidArgument for a number the contract does not have."""
    try:
        return _PRIORITIES[mail_pb2.Priority.ValueType(value)]
    except KeyError:
        raise InvalidArgument("priority", f"{value} is not a Priority") from None


def wait_for(value: int) -> WaitFor:
    """What a request's answer waits for. Raises InvalidArgument for a number the contract does not have."""
    try:
        return _WAIT_FOR[mail_pb2.WaitFor.ValueType(value)]
    except KeyError:
        raise InvalidArgument("wait_for", f"{value} is not a WaitFor") from None


def seconds(duration: Duration) -> float:
    """A Duration in seconds. Raises InvalidArgument naming `ttl` when it is none (duration.proto gives its range)."""
    if abs(duration.seconds) > 315_576_000_000 or abs(duration.nanos) > 999_999_999:
        raise InvalidArgument("ttl", "is not a Duration")
    return duration.seconds + duration.nanos / 1e9


def fingerprint(request: Message) -> bytes:
    """What tells whether a repeated request id means the same request, its kind included."""
    content = request.SerializeToString(deterministic=True)
    return hashlib.sha256(request.DESCRIPTOR.full_name.encode() + b"\0" + content).digest()
