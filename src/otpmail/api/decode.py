"""Decodes requests of otpmail.v1 into submissions, and their fields into the model."""

import hashlib
from collections.abc import Sequence
from functools import cache
from itertools import chain

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from otpmail.address import Address, parse_mailbox, parse_mailboxes, parse_mailboxes_in_steps, parse_return_path
from otpmail.compose.attachment import MAX_ATTACHMENTS, Attachment
from otpmail.compose.draft import LARGE, MAX_REPLY_TO, Draft, Limits, check_bodies
from otpmail.compose.fields import MAX_HEADERS, bare_message_id
from otpmail.cooperate import Cooperator, Steps
from otpmail.errors import InvalidArgument
from otpmail.mail.labels import checked_labels
from otpmail.mail.submission import Submission
from otpmail.model import MailState, Priority, WaitFor
from otpmail.v1 import mail_pb2

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
_STATES: dict[int, MailState | None] = {
    mail_pb2.Mail.STATE_UNSPECIFIED: None,
    **{mail_pb2.Mail.State.Value(f"STATE_{state.name}"): state for state in MailState},
}
_FEW = 10  # recipients who are read at once, whatever their addresses are like
_HASHED_AT_ONCE = 256 << 10  # characters or octets, in less than a millisecond

Lists = tuple[Sequence[str], Sequence[str], Sequence[str]]
Recipients = tuple[tuple[Address, ...], tuple[Address, ...], tuple[Address, ...]]
Content = tuple[str, str, tuple[Attachment, ...]]


async def submission_from(request: mail_pb2.SendMailRequest, limits: Limits, cooperator: Cooperator) -> Submission:
    """Decode a request for a mail and check its draft; the `cooperator` runs what takes long.

    Raises InvalidArgument, which names the first field that is not good.
    """
    priority, wait_for = priority_from(request.priority), wait_for_from(request.wait_for)
    text, html = request.text, request.html
    files = _files(request) if request.attachments else ()
    size = len(text) + len(html)
    if files:
        size += sum([len(file.content) for file in files])
    is_large = size > LARGE
    lists = to, cc, bcc = request.to, request.cc, request.bcc
    has_copies, request_id = bool(cc or bcc), request.request_id
    is_slow = (has_copies or len(to) > _FEW) and _are_slow(lists, limits)
    if is_large or is_slow:
        steps = _read_in_steps(request, lists, (text, html, files), limits, is_large=is_large)
        draft, fingerprint = await cooperator.run(steps)
    else:
        most = limits.recipients
        recipients = (
            parse_mailboxes(to[:], "to", most=most),  # a slice is copied in C, in half the time
            parse_mailboxes(cc[:], "cc", most=most) if has_copies else (),
            parse_mailboxes(bcc[:], "bcc", most=most) if has_copies else (),
        )
        draft = _draft(request, recipients, (text, html, files), limits)
        fingerprint = fingerprint_of(request) if request_id else b""
    return Submission(
        draft=draft,
        priority=priority,
        wait_for=wait_for,
        ttl=ttl_from(request.ttl) if request.HasField("ttl") else None,
        request_id=request_id,
        fingerprint=fingerprint,
        labels=checked_labels(labels) if (labels := request.labels) else (),
    )


def _are_slow(lists: Lists, limits: Limits) -> bool:
    """Whether recipients may take long to read. Raises InvalidArgument for too many, before any is read."""
    count = sum(map(len, lists))
    if count <= _FEW:
        return False
    most = limits.recipients
    if count > most:
        for addresses, field in zip(lists, ("to", "cc", "bcc"), strict=True):
            if len(addresses) > most:
                raise InvalidArgument(field, f"holds more than {most} recipients")
        raise InvalidArgument("to", f"there are more than {most} recipients with cc and bcc")
    return not all(map(str.isascii, chain(*lists)))


def _read_in_steps(
    request: mail_pb2.SendMailRequest, lists: Lists, content: Content, limits: Limits, *, is_large: bool
) -> Steps[tuple[Draft, bytes]]:
    """Return the draft, and the fingerprint where the request has an id."""
    text, html, _ = content
    most = limits.recipients
    to = yield from parse_mailboxes_in_steps(lists[0][:], "to", most=most)
    cc = yield from parse_mailboxes_in_steps(lists[1][:], "cc", most=most)
    bcc = yield from parse_mailboxes_in_steps(lists[2][:], "bcc", most=most)
    yield from check_bodies(text, html, limits)
    draft = _draft(request, (to, cc, bcc), content, limits, bodies_checked=True)
    if not request.request_id:
        return draft, b""
    if not is_large:
        return draft, fingerprint_of(request)
    fingerprint = yield from _fingerprint_in_steps(request, content)
    return draft, fingerprint


def _draft(
    request: mail_pb2.SendMailRequest,
    recipients: Recipients,
    content: Content,
    limits: Limits,
    *,
    bodies_checked: bool = False,
) -> Draft:
    to, cc, bcc = recipients
    text, html, files = content
    from_, sender, return_path = getattr(request, "from"), request.sender, request.return_path
    message_id, reply_to, headers = request.message_id, request.reply_to, request.headers
    # fast path: most mails have none of these, 0.4 us; held to the full path by tests/api/test_decode.py
    further = from_ or sender or return_path or message_id or reply_to or headers
    if not (further or cc or bcc or files or bodies_checked):
        return Draft(limits=limits, to=to, subject=request.subject, text=text, html=html)
    return Draft(
        limits=limits,
        bodies_checked=bodies_checked,
        to=to,
        cc=cc,
        bcc=bcc,
        subject=request.subject,
        text=text,
        html=html,
        from_=parse_mailbox(from_, "from") if from_ else None,
        sender=parse_mailbox(sender, "sender") if sender else None,
        return_path=parse_return_path(return_path, "return_path") if return_path else None,
        # A list is read to one item beyond its limit, which the draft then refuses.
        reply_to=parse_mailboxes(reply_to[: MAX_REPLY_TO + 1], "reply_to", most=MAX_REPLY_TO + 1) if reply_to else (),
        message_id=(bare_message_id(message_id) or message_id) if message_id else "",
        headers=tuple([(item.name, item.value) for item in headers[: MAX_HEADERS + 1]]) if headers else (),
        attachments=files,
    )


def _files(request: mail_pb2.SendMailRequest) -> tuple[Attachment, ...]:
    return tuple(
        [
            Attachment(item.filename, item.content_type, item.content, item.content_id, item.alternative)
            for item in request.attachments[: MAX_ATTACHMENTS + 1]
        ]
    )


def priority_from(value: int) -> Priority:
    """A request's priority. Raises InvalidArgument for a number the contract does not have."""
    try:
        return _PRIORITIES[value]
    except KeyError:
        raise InvalidArgument("priority", f"{value} is not a Priority") from None


def wait_for_from(value: int) -> WaitFor:
    """The event that a request's answer waits for. Raises InvalidArgument for a number the contract does not have."""
    try:
        return _WAIT_FOR[value]
    except KeyError:
        raise InvalidArgument("wait_for", f"{value} is not a WaitFor") from None


def state_from(value: int) -> MailState | None:
    """The state of the mails to list, None for any. Raises InvalidArgument as `wait_for_from` does."""
    try:
        return _STATES[value]
    except KeyError:
        raise InvalidArgument("state", f"{value} is not a Mail.State") from None


def ttl_from(duration: Duration) -> float:
    """A Duration in seconds. Raises InvalidArgument naming `ttl` for one that duration.proto does not allow."""
    seconds, nanos = duration.seconds, duration.nanos
    if abs(seconds) > 315_576_000_000 or abs(nanos) > 999_999_999 or seconds * nanos < 0:
        raise InvalidArgument("ttl", "is not a Duration")
    return seconds + nanos / 1e9


def fingerprint_of(request: Message) -> bytes:
    """A digest of a request and its kind, equal only where a repeated request id means the same request."""
    kind = _kind(type(request))  # type: ignore[arg-type]  # a class is hashable, even if its objects are not
    return hashlib.sha256(kind + request.SerializeToString(deterministic=True)).digest()


def _fingerprint_in_steps(request: mail_pb2.SendMailRequest, content: Content) -> Steps[bytes]:
    """Do as `fingerprint_of` for a large mail, whose content is taken out of the request and hashed by itself."""
    text, html, files = content
    request.ClearField("text")
    request.ClearField("html")
    for item in request.attachments:
        item.ClearField("content")
    rest = request.SerializeToString(deterministic=True)
    digest = hashlib.sha256(_kind(type(request)))  # type: ignore[arg-type]  # as above
    parts: tuple[str | bytes, ...] = (rest, text, html, *[file.content for file in files])
    for part in parts:
        digest.update(b"%d\0" % len(part))
        for start in range(0, len(part), _HASHED_AT_ONCE):
            piece = part[start : start + _HASHED_AT_ONCE]
            digest.update(piece if isinstance(piece, bytes) else piece.encode())
            yield
    return digest.digest()


@cache
def _kind(message: type[Message]) -> bytes:
    return message.DESCRIPTOR.full_name.encode() + b"\0"
