"""The bytes of a mail: headers and body as they go to the relay, with canonical CRLF line ends.

Only what `compose.draft` has checked comes here; what stands in a field is text, never structure.
"""

from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.utils import format_datetime
from functools import lru_cache

from otpmail.address import Address, is_usual
from otpmail.compose import body
from otpmail.compose.draft import (
    Attachment,
    CheckedDraft,
    Draft,
    Limits,
    check,
    check_body,
    check_headers,
    is_plain,
)
from otpmail.compose.headers import LINE, mailboxes, stands_as_it_is, unstructured
from otpmail.errors import InvalidArgument
from otpmail.model import Envelope

_SHORT_SUBJECT = LINE - len("Subject: ")
_PLAIN_TEXT = (
    b'MIME-Version: 1.0\r\nContent-Type: text/plain; charset="utf-8"\r\nContent-Transfer-Encoding: 7bit\r\n\r\n'
)
_AUTOMATIC = "Auto-Submitted: auto-generated\r\n"
_DEFAULT_TYPE = "application/octet-stream"
# 7bit: bodies that are not ASCII are encoded, as `compose.body` does.
_POLICY = policy.SMTP.clone(cte_type="7bit")
_WRITING = _POLICY.clone(max_line_length=900)  # for headers of parts: a folded Content-ID would be an encoded one


def write(draft: Draft, sender: Address, message_id: str, now: float, limits: Limits) -> Envelope:
    """Check a draft and compose it; raises InvalidArgument as `check` and `compose` do."""
    if _is_usual(draft) and sender.spec.isascii():
        envelope = _write_usual(draft, sender, message_id, now, limits)
        if len(envelope.content) <= limits.size:
            return envelope
    return compose(check(draft, sender=sender, limits=limits), message_id=message_id, now=now, limits=limits)


def _is_usual(draft: Draft) -> bool:
    """Whether it is for one recipient without a name, has a subject that fits its line, and no files: most mails are.

    Nothing of that has to be checked once more then, and it is written in one step.
    """
    return (
        len(draft.to) == 1
        and not (draft.cc or draft.bcc or draft.reply_to or draft.attachments)
        and len(draft.subject) <= _SHORT_SUBJECT
        and stands_as_it_is(draft.subject)
        and is_usual(draft.to[0])
    )


def _write_usual(draft: Draft, sender: Address, message_id: str, now: float, limits: Limits) -> Envelope:
    """What `check` and `compose` would make of it."""
    to, text, headers = draft.to, draft.text, draft.headers
    if not draft.html and len(text) <= body.LINE - 2 and text.isascii() and is_plain(octets := text.encode()):
        mime = _PLAIN_TEXT + body.canonical(octets)
    else:
        check_body(text, "text", limits)
        check_body(draft.html, "html", limits)
        mime = _without_files(draft, message_id)
    head = (
        f"{_from(sender)}To: {to[0]}\r\nSubject: {draft.subject}\r\n"
        f"Date: {_date(int(now))}\r\nMessage-ID: {message_id}\r\n"
    )
    if draft.automatic:
        head += _AUTOMATIC
    if headers:
        check_headers(headers)
        head += "".join([unstructured(name, value) for name, value in headers.items()])
    return Envelope(sender.spec, to, head.encode() + mime)


def compose(checked: CheckedDraft, *, message_id: str, now: float, limits: Limits) -> Envelope:
    """The envelope and bytes of a mail. `now` is seconds since the epoch, for its Date.

    RFC 5322 for the form, RFC 6532 for addresses that are not ASCII, RFC 2045 to 2047 for content. Every line end of a
    body becomes CRLF, and its last line gets one where it has none; the rest reaches the reader as it was given. Raises
    InvalidArgument, naming the largest part, when the mail as a whole is larger than the limit.
    """
    draft = checked.draft
    mime = _with_files(draft) if draft.attachments else _without_files(draft, message_id)
    content = _headers(checked, message_id, now).encode() + mime
    if len(content) > limits.size:
        field = _largest_part(draft)
        raise InvalidArgument(field, f"makes the mail {len(content)} octets, more than the {limits.size} allowed")
    return Envelope(checked.sender.spec, checked.recipients, content, checked.needs_smtputf8)


def _largest_part(draft: Draft) -> str:
    sizes = {
        "text": len(draft.text),
        "html": len(draft.html),
        "attachments": sum(len(attachment.content) for attachment in draft.attachments),
    }
    return max(sizes, key=sizes.__getitem__)


def _headers(checked: CheckedDraft, message_id: str, now: float) -> str:
    """Every header but those that say how the content is written. Bcc is none of them."""
    fields = [_from(checked.sender)]
    fields += [mailboxes(name, given) for name, given in (("To", checked.to), ("Cc", checked.cc)) if given]
    if checked.reply_to is not None:
        fields.append(mailboxes("Reply-To", (checked.reply_to,)))
    fields.append(unstructured("Subject", checked.draft.subject))
    fields.append(f"Date: {_date(int(now))}\r\nMessage-ID: {message_id}\r\n")
    if checked.draft.automatic:
        fields.append(_AUTOMATIC)
    fields += [unstructured(name, value) for name, value in checked.draft.headers.items()]
    return "".join(fields)


@lru_cache(maxsize=64)  # most mails are from the same few
def _from(sender: Address) -> str:
    return mailboxes("From", (sender,))


@lru_cache(maxsize=4)  # the mails of one second share theirs
def _date(second: int) -> str:
    return format_datetime(datetime.fromtimestamp(second, UTC))


def _without_files(draft: Draft, message_id: str) -> bytes:
    """MIME-Version, the content's own headers, the empty line, and the content."""
    return b"MIME-Version: 1.0\r\n" + body.written(draft.text, draft.html, message_id=message_id)


def _with_files(draft: Draft) -> bytes:
    """The same by the standard library, which takes its time: mails with files are few."""
    message = EmailMessage(policy=_POLICY)
    message["MIME-Version"] = "1.0"
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
