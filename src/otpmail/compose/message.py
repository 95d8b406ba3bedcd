"""The bytes of a mail: headers and content as they go to the relay, with canonical CRLF line ends.

A draft's fields are good from its birth, so nothing is checked here but the size of the whole.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from io import BytesIO
from itertools import chain

from otpmail.address import Address
from otpmail.compose.body import write_content
from otpmail.compose.draft import Draft, Limits, largest_part, refuse_hopeless
from otpmail.compose.headers import as_ascii, extra, mailboxes, unstructured
from otpmail.compose.transfer import text_entity
from otpmail.cooperate import Steps
from otpmail.errors import InvalidArgument
from otpmail.model import AsciiHead, Envelope

_AUTOMATIC = "Auto-Submitted: auto-generated\r\n"  # RFC 3834, 5


def compose(
    draft: Draft,
    from_: Address,
    message_id: str,
    now: float,
    limits: Limits,
    *,
    mail_id: str = "",
    extra_header: str = "",
) -> Envelope:
    """Write a draft as the envelope and bytes of a mail. `now` is seconds since the epoch, for its Date.

    `mail_id` is for the envelope. `extra_header` is a header field of ASCII with its line end, which comes before those
    of the draft.

    RFC 5322 for the form, RFC 6532 for addresses that are not ASCII, RFC 2045 to 2047 for content. Raises
    InvalidArgument, naming the largest part, when the mail as a whole is larger than the limit.
    """
    head = _head(draft, from_, message_id, now) + extra_header
    if draft.headers:
        head += "".join([extra(name, value) for name, value in draft.headers])
    # fast path: a text alone is one entity, 0.2 us; held to the full path by tests/compose/test_message.py
    if draft.html or draft.attachments:
        content = write_content(draft.text, draft.html, draft.attachments, message_id=message_id)
    else:
        content = text_entity(b"plain", draft.text)
    octets = b"".join((head.encode(), *content))
    size = len(octets)
    if size > limits.size:
        raise InvalidArgument(largest_part(draft), f"makes the mail {size} octets, more than the {limits.size} allowed")
    recipients = draft.recipients
    # fast path: most mails are ASCII and bounce to their author, 0.1 us; held to the full path by
    # tests/compose/test_message.py
    if draft.return_path is None and head.isascii() and "".join(recipients).isascii():
        return Envelope(from_.spec, recipients, octets, code=draft.code, id=mail_id)
    return _envelope(draft, from_, head, octets, mail_id)


def compose_in_steps(
    draft: Draft,
    from_: Address,
    message_id: str,
    now: float,
    limits: Limits,
    *,
    mail_id: str = "",
    extra_header: str = "",
) -> Steps[Envelope]:
    """Do as `compose`, for a mail of any size. Its octets exist once, but for a slice."""
    refuse_hopeless(draft, limits)
    head = _head(draft, from_, message_id, now) + extra_header
    octets = BytesIO()
    content = write_content(draft.text, draft.html, draft.attachments, message_id=message_id)
    headers = (extra(name, value).encode() for name, value in draft.headers)
    for piece in chain((head.encode(),), headers, content):
        octets.write(piece)
        if octets.tell() > limits.size:
            raise InvalidArgument(largest_part(draft), f"makes the mail larger than {limits.size} octets")
        yield
    return _envelope(draft, from_, head, octets.getvalue(), mail_id)


def _envelope(draft: Draft, from_: Address, head: str, octets: bytes, mail_id: str) -> Envelope:
    return_path, recipients = draft.return_path, draft.recipients
    if return_path is None:
        return_path = from_.spec
    # Header values are ASCII, so the head is ASCII unless an address in it is not; Bcc is not in it.
    if head.isascii() and return_path.isascii() and "".join(recipients).isascii():
        return Envelope(return_path, recipients, octets, code=draft.code, id=mail_id)
    ascii_head = _ascii_head(draft, from_, return_path)
    return Envelope(return_path, recipients, octets, smtputf8=True, code=draft.code, ascii_head=ascii_head, id=mail_id)


def _ascii_head(draft: Draft, from_: Address, return_path: str) -> AsciiHead | None:
    """How the mail begins without SMTPUTF8; None where it is from one who needs that, or answers go there."""
    answerable = [from_, *draft.reply_to, *([draft.sender] if draft.sender else [])]
    if not return_path.isascii() or any(address.needs_smtputf8 for address in answerable):
        return None
    if not any(recipient.isascii() for recipient in draft.recipients):
        return None
    in_ascii = _people(draft, from_, as_ascii(draft.to), as_ascii(draft.cc))
    return AsciiHead(in_ascii.encode(), len(_people(draft, from_, draft.to, draft.cc).encode()))


def _people(draft: Draft, from_: Address, to: Sequence[Address], cc: Sequence[Address]) -> str:
    """The first headers: who the mail is from, and who it goes to; Bcc is not among them."""
    head = _from(from_.spec, from_.name)
    if draft.sender is not None and draft.sender.spec != from_.spec:  # RFC 5322, 3.6.2
        head += mailboxes("Sender", (draft.sender,))
    if to:
        head += mailboxes("To", to)
    if cc:
        head += mailboxes("Cc", cc)
    return head


def _head(draft: Draft, from_: Address, message_id: str, now: float) -> str:
    """The headers that the service writes into every mail, but those of the content."""
    head = _people(draft, from_, draft.to, draft.cc)
    if draft.reply_to:
        head += mailboxes("Reply-To", draft.reply_to)
    head += unstructured("Subject", draft.subject)
    head += f"Date: {_date(int(now))}\r\nMessage-ID: {message_id}\r\nMIME-Version: 1.0\r\n"
    if draft.automatic:
        head += _AUTOMATIC
    return head


@lru_cache(maxsize=64)  # few senders write most mails; by strings, since the hash of an address is written in Python
def _from(spec: str, name: str) -> str:
    return mailboxes("From", (Address(spec, name),))


@lru_cache(maxsize=4)  # the mails of one second share it
def _date(second: int) -> str:
    return format_datetime(datetime.fromtimestamp(second, UTC))
