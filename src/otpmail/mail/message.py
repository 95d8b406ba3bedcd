"""The bytes of a mail: headers and body as they go to the relay, with canonical CRLF line ends.

Only what `mail.draft` has checked comes here; what stands in a field is text, never structure.
"""

from datetime import UTC, datetime
from email import policy
from email.headerregistry import Address as HeaderAddress
from email.message import EmailMessage
from email.utils import format_datetime

from otpmail.address import Address
from otpmail.errors import InvalidArgument
from otpmail.mail.draft import Attachment, CheckedDraft, Limits
from otpmail.model import Envelope

_DEFAULT_TYPE = "application/octet-stream"
# 7bit: bodies that are not ASCII are encoded, so a mail never depends on the relay's 8BITMIME.
_ASCII_HEADERS = policy.SMTP.clone(cte_type="7bit")
_UTF8_HEADERS = policy.SMTPUTF8.clone(cte_type="7bit")


def compose(checked: CheckedDraft, *, message_id: str, now: float, limits: Limits) -> Envelope:
    """The envelope and bytes of a mail. `now` is seconds since the epoch, for its Date.

    Raises InvalidArgument when the mail as a whole is larger than the limit (RFC 5322 for the form, RFC 6531 for
    addresses that are not ASCII, RFC 2045 to 2047 for content).
    """
    draft = checked.draft
    message = EmailMessage(policy=_UTF8_HEADERS if checked.needs_smtputf8 else _ASCII_HEADERS)
    message["From"] = _shown(checked.sender)
    for name, addresses in (("To", checked.to), ("Cc", checked.cc)):
        if addresses:
            message[name] = [_shown(address) for address in addresses]
    if checked.reply_to is not None:
        message["Reply-To"] = _shown(checked.reply_to)
    message["Subject"] = draft.subject
    message["Date"] = format_datetime(datetime.fromtimestamp(now, UTC))
    message["Message-ID"] = message_id
    for name, value in draft.headers.items():
        message[name] = value
    _fill(message, checked)
    content = message.as_bytes()
    if len(content) > limits.size:
        raise InvalidArgument(
            "mail", f"is {len(content)} octets, more than the {limits.size} that MAIL_MAX_BYTES allows"
        )
    return Envelope(checked.sender.spec, checked.recipients, content, checked.needs_smtputf8)


def _shown(address: Address) -> HeaderAddress:
    local, _, domain = address.spec.rpartition("@")
    return HeaderAddress(address.name, local, domain)


def _fill(message: EmailMessage, checked: CheckedDraft) -> None:
    draft = checked.draft
    if draft.text or not draft.html:
        message.set_content(draft.text)
        if draft.html:
            message.add_alternative(draft.html, subtype="html")
    else:
        message.set_content(draft.html, subtype="html")
    inline = [attachment for attachment in draft.attachments if attachment.content_id]
    if inline:
        body = message.get_body(("html",)) or message
        assert isinstance(body, EmailMessage)
        for attachment in inline:
            _attach(body, attachment)
    for attachment in draft.attachments:
        if not attachment.content_id:
            _attach(message, attachment)


def _attach(part: EmailMessage, attachment: Attachment) -> None:
    maintype, _, subtype = (attachment.content_type or _DEFAULT_TYPE).lower().partition("/")
    filename = attachment.filename or None
    if attachment.content_id:
        part.add_related(
            attachment.content,
            maintype,
            subtype,
            filename=filename,
            cid=f"<{attachment.content_id}>",
            disposition="inline",
        )
    else:
        part.add_attachment(attachment.content, maintype, subtype, filename=filename or "attachment")
