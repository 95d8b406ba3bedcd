"""The bytes of a mail: headers and content as they go to the relay, with canonical CRLF line ends.

A draft's fields are good from its birth, so nothing is checked here but the size of the whole.
"""

from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache

from otpmail.address import Address
from otpmail.compose.body import write_content
from otpmail.compose.draft import Draft, Limits
from otpmail.compose.headers import mailboxes, unstructured
from otpmail.errors import InvalidArgument
from otpmail.model import Envelope

_AUTOMATIC = "Auto-Submitted: auto-generated\r\n"  # RFC 3834, 5


def compose(draft: Draft, sender: Address, message_id: str, now: float, limits: Limits) -> Envelope:
    """Write a draft as the envelope and bytes of a mail. `now` is seconds since the epoch, for its Date.

    RFC 5322 for the form, RFC 6532 for addresses that are not ASCII, RFC 2045 to 2047 for content. Raises
    InvalidArgument, naming the largest part, when the mail as a whole is larger than the limit.
    """
    head = _headers(draft, sender, message_id, now)
    content = head.encode() + write_content(draft.text, draft.html, draft.attachments, message_id=message_id)
    if len(content) > limits.size:
        field = _largest_part(draft)
        raise InvalidArgument(field, f"makes the mail {len(content)} octets, more than the {limits.size} allowed")
    recipients = draft.recipients
    # Header values are ASCII, so the head is ASCII unless an address in it is not; Bcc is not in it.
    smtputf8 = not (head.isascii() and "".join(recipients).isascii())
    return Envelope(sender.spec, recipients, content, smtputf8)


def _headers(draft: Draft, sender: Address, message_id: str, now: float) -> str:
    """Every header but those of the content; Bcc is not among them."""
    head = _from(sender)
    if draft.to:
        head += mailboxes("To", draft.to)
    if draft.cc:
        head += mailboxes("Cc", draft.cc)
    if draft.reply_to is not None:
        head += mailboxes("Reply-To", (draft.reply_to,))
    head += unstructured("Subject", draft.subject)
    head += f"Date: {_date(int(now))}\r\nMessage-ID: {message_id}\r\nMIME-Version: 1.0\r\n"
    if draft.automatic:
        head += _AUTOMATIC
    for name, value in draft.headers.items():
        head += unstructured(name, value)
    return head


@lru_cache(maxsize=64)  # few senders write most mails
def _from(sender: Address) -> str:
    return mailboxes("From", (sender,))


@lru_cache(maxsize=4)  # the mails of one second share it
def _date(second: int) -> str:
    return format_datetime(datetime.fromtimestamp(second, UTC))


def _largest_part(draft: Draft) -> str:
    sizes = {
        "text": len(draft.text),
        "html": len(draft.html),
        "attachments": sum(len(attachment.content) for attachment in draft.attachments),
    }
    return max(sizes, key=sizes.__getitem__)
