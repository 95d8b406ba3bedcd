"""The bytes of a mail: headers and body as they go to the relay, with canonical CRLF line ends.

Only what `compose.draft` has checked comes here; what stands in a field is text, never structure.
"""

from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.utils import format_datetime
from functools import lru_cache

from otpmail.address import Address
from otpmail.compose import body
from otpmail.compose.draft import Attachment, Draft, Limits
from otpmail.compose.headers import mailboxes, unstructured
from otpmail.errors import InvalidArgument
from otpmail.model import Envelope

_AUTOMATIC = "Auto-Submitted: auto-generated\r\n"
_DEFAULT_TYPE = "application/octet-stream"
# 7bit: bodies that are not ASCII are encoded, as `compose.body` does.
_POLICY = policy.SMTP.clone(cte_type="7bit")
_WRITING = _POLICY.clone(max_line_length=900)  # for headers of parts: a folded Content-ID would be an encoded one


def compose(draft: Draft, sender: Address, message_id: str, now: float, limits: Limits) -> Envelope:
    """Write a draft as the envelope and bytes of a mail. `now` is seconds since the epoch, for its Date.

    RFC 5322 for the form, RFC 6532 for addresses that are not ASCII, RFC 2045 to 2047 for content. Every line end of a
    body becomes CRLF, and its last line gets one where it has none; the rest reaches the reader unchanged. Raises
    InvalidArgument, naming the largest part, when the mail as a whole is larger than the limit.
    """
    head = _headers(draft, sender, message_id, now)
    mime = _with_files(draft) if draft.attachments else body.written(draft.text, draft.html, message_id=message_id)
    content = head.encode() + mime
    if len(content) > limits.size:
        field = _largest_part(draft)
        raise InvalidArgument(field, f"makes the mail {len(content)} octets, more than the {limits.size} allowed")
    recipients = draft.recipients
    # Header values are ASCII, so only an address that is not brings other octets into the head; Bcc stands outside it.
    smtputf8 = not (head.isascii() and "".join(recipients).isascii())
    return Envelope(sender.spec, recipients, content, smtputf8)


def _headers(draft: Draft, sender: Address, message_id: str, now: float) -> str:
    """Every header but those that say how the content is written. Bcc is not among them."""
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


def _largest_part(draft: Draft) -> str:
    sizes = {
        "text": len(draft.text),
        "html": len(draft.html),
        "attachments": sum(len(attachment.content) for attachment in draft.attachments),
    }
    return max(sizes, key=sizes.__getitem__)


@lru_cache(maxsize=64)  # most mails are from the same few
def _from(sender: Address) -> str:
    return mailboxes("From", (sender,))


@lru_cache(maxsize=4)  # the mails of one second share theirs
def _date(second: int) -> str:
    return format_datetime(datetime.fromtimestamp(second, UTC))


def _with_files(draft: Draft) -> bytes:
    """The same by the standard library, which takes its time: mails with files are few."""
    message = EmailMessage(policy=_POLICY)
    if draft.text or not draft.html:
        message.set_content(draft.text)
        if draft.html:
            message.add_alternative(draft.html, subtype="html")
    else:
        message.set_content(draft.html, subtype="html")
    inline = [attachment for attachment in draft.attachments if attachment.content_id]
    if inline:
        html = message.get_body(("html",)) or message
        assert isinstance(html, EmailMessage)
        for attachment in inline:
            _attach(html, attachment)
    for attachment in draft.attachments:
        if not attachment.content_id:
            _attach(message, attachment)
    del message["MIME-Version"]
    return message.as_bytes(policy=_WRITING)


def _attach(part: EmailMessage, attachment: Attachment) -> None:
    maintype, _, subtype = (attachment.content_type or _DEFAULT_TYPE).lower().partition("/")
    # As a triple it is written as it is (RFC 2231); as a string, what looks like an encoded word would be decoded.
    filename = ("utf-8", "", attachment.filename or "attachment")
    if attachment.content_id:
        cid = f"<{attachment.content_id}>"
        part.add_related(attachment.content, maintype, subtype, filename=filename, cid=cid, disposition="inline")
    else:
        part.add_attachment(attachment.content, maintype, subtype, filename=filename)
