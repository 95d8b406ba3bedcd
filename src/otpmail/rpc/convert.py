"""From the model to the messages of otpmail.v1 and back."""

import hashlib
from functools import cache

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from otpmail.errors import InvalidArgument
from otpmail.model import Mail, MailState, Priority, WaitFor
from otpmail.v1 import mail_pb2

_STATES = {state: mail_pb2.Mail.State.Value(state.name) for state in MailState}
_PRIORITIES: dict[int, Priority] = {
    mail_pb2.PRIORITY_UNSPECIFIED: Priority.NORMAL,
    mail_pb2.PRIORITY_NORMAL: Priority.NORMAL,
    mail_pb2.PRIORITY_BULK: Priority.BULK,
    mail_pb2.PRIORITY_URGENT: Priority.URGENT,
}
_WAIT_FOR: dict[int, WaitFor] = {
    mail_pb2.WAIT_FOR_UNSPECIFIED: WaitFor.RELAY,
    mail_pb2.WAIT_FOR_RELAY: WaitFor.RELAY,
    mail_pb2.WAIT_FOR_QUEUE: WaitFor.QUEUE,
}


def timestamp(seconds: float) -> Timestamp:
    """Seconds since the epoch as a Timestamp, to the microsecond."""
    stamp = Timestamp()
    fill_timestamp(stamp, seconds)
    return stamp


def fill_timestamp(stamp: Timestamp, seconds: float) -> None:
    """Write the same into an empty one, which may be part of a message: putting it there later would copy it."""
    microseconds = int(seconds * 1_000_000 + 0.5)
    stamp.seconds = microseconds // 1_000_000
    stamp.nanos = microseconds % 1_000_000 * 1000


def mail_message(mail: Mail) -> mail_pb2.Mail:
    """A mail as otpmail.v1.Mail."""
    message = mail_pb2.Mail()
    fill_mail(message, mail)
    return message


def fill_mail(message: mail_pb2.Mail, mail: Mail) -> None:
    """Write a mail into an empty message, which may be part of another, as with `fill_timestamp`."""
    message.id = mail.id
    message.state = _STATES[mail.state]
    for known in mail.recipients:
        result = message.recipients.add()
        result.address, result.code = known.address, known.code
        result.enhanced_code, result.reply = known.enhanced_code, known.reply
    message.attempts = mail.attempts
    fill_timestamp(message.create_time, mail.create_time)
    if mail.settle_time is not None:
        fill_timestamp(message.settle_time, mail.settle_time)
    message.message_id = mail.message_id
    message.request_id = mail.request_id


def priority(value: int) -> Priority:
    """A request's priority. Raises InvalidArgument for a number the contract does not have."""
    try:
        return _PRIORITIES[value]
    except KeyError:
        raise InvalidArgument("priority", f"{value} is not a Priority") from None


def wait_for(value: int) -> WaitFor:
    """What a request's answer waits for. Raises InvalidArgument for a number the contract does not have."""
    try:
        return _WAIT_FOR[value]
    except KeyError:
        raise InvalidArgument("wait_for", f"{value} is not a WaitFor") from None


def seconds(duration: Duration) -> float:
    """A Duration in seconds. Raises InvalidArgument naming `ttl` when it is none (duration.proto gives its range)."""
    if abs(duration.seconds) > 315_576_000_000 or abs(duration.nanos) > 999_999_999:
        raise InvalidArgument("ttl", "is not a Duration")
    return duration.seconds + duration.nanos / 1e9


def fingerprint(request: Message) -> bytes:
    """What tells whether a repeated request id means the same request, its kind included."""
    kind = _kind(type(request))  # type: ignore[arg-type]  # a class is hashable, whatever its objects are
    return hashlib.sha256(kind + request.SerializeToString(deterministic=True)).digest()


@cache
def _kind(message: type[Message]) -> bytes:
    return message.DESCRIPTOR.full_name.encode() + b"\0"
