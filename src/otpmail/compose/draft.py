"""What a caller wants said, checked: every field has its limits, and no value can add a header or a recipient."""

import re
from collections.abc import Mapping
from dataclasses import field

from otpmail.address import Address, control_characters, parse_mailbox, refuse_control_characters
from otpmail.errors import InvalidArgument
from otpmail.values import frozen

MAX_SUBJECT = 998  # RFC 5322, 2.1.1
MAX_HEADERS = 50
MAX_HEADER_NAME = 64
MAX_HEADER_VALUE = 4096
MAX_ATTACHMENTS = 50
MAX_FILENAME = 255

_HEADER_NAME = re.compile(r"[!-9;-~]+")  # RFC 5322, 3.6.8
_CONTENT_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,64}/[A-Za-z0-9!#$&^_.+-]{1,64}")  # RFC 6838, 4.2
_CONTENT_ID = re.compile(r"[A-Za-z0-9!#$%&'*+/=^_`{|}~.@-]{1,128}")
_NOT_IN_A_VALUE = control_characters(but="\t")
_NOT_IN_A_BODY = control_characters(but="\t\r\n\f\x85\u2028\u2029")
_PLAIN = bytes(range(32, 127)) + b"\t\r\n"  # what most bodies are made of, told without the pattern

# Written by the service, or by the relays on the way, or able to say who else a mail goes to. "Auto-Submitted" is not
# among them: a caller may say that its mail is automatic.
OWN_HEADERS = frozenset(
    {
        *("from", "sender", "to", "cc", "bcc", "reply-to", "subject", "date", "message-id", "mime-version"),
        *("return-path", "received", "dkim-signature", "resent-to", "resent-cc", "resent-bcc", "resent-from"),
        *("resent-sender", "resent-date", "resent-message-id", "delivered-to", "apparently-to"),
    }
)


@frozen()
class Attachment:
    """A file in a mail. With `content_id` it is inline, for the HTML part to show as `cid:...`."""

    filename: str
    content_type: str
    content: bytes
    content_id: str = ""


@frozen(kw_only=True)
class Draft:
    """A mail as it was asked for: addresses as text, bodies as text, nothing checked yet.

    `automatic`: it says that a program sent it, so that no holiday reply comes back (RFC 3834, 5).
    """

    to: tuple[str, ...] = ()
    cc: tuple[str, ...] = ()
    bcc: tuple[str, ...] = ()
    subject: str = field(default="", repr=False)  # these may hold a code
    text: str = field(default="", repr=False)
    html: str = field(default="", repr=False)
    from_: str = ""
    reply_to: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    attachments: tuple[Attachment, ...] = ()
    automatic: bool = False

    @property
    def size(self) -> int:
        """About how much there is to write, in characters and octets."""
        files = sum([len(attachment.content) for attachment in self.attachments]) if self.attachments else 0
        return len(self.text) + len(self.html) + files


@frozen()
class Limits:
    """What a mail may be at most: `size` in octets as it goes to the relay, `recipients` in number."""

    size: int
    recipients: int


@frozen()
class CheckedDraft:
    """A draft whose every field is known to be good, with its addresses read."""

    sender: Address
    to: tuple[Address, ...]
    cc: tuple[Address, ...]
    bcc: tuple[Address, ...]
    reply_to: Address | None
    draft: Draft

    @property
    def recipients(self) -> tuple[str, ...]:
        """Everybody the mail goes to, each once, in wire form."""
        return tuple(dict.fromkeys([address.spec for address in (*self.to, *self.cc, *self.bcc)]))

    @property
    def needs_smtputf8(self) -> bool:
        """Whether an address has a local part that only SMTPUTF8 can carry."""
        shown = (self.sender, *self.to, *self.cc, *self.bcc, *((self.reply_to,) if self.reply_to else ()))
        return not "".join([address.spec for address in shown]).isascii()


def check(draft: Draft, *, sender: Address, limits: Limits) -> CheckedDraft:
    """Check every field of `draft`. Raises InvalidArgument, which names the first field that is not good."""
    to = _mailboxes(draft.to, "to", limits)
    cc = _mailboxes(draft.cc, "cc", limits)
    bcc = _mailboxes(draft.bcc, "bcc", limits)
    if not (to or cc or bcc):
        raise InvalidArgument("to", "recipient email is required")
    if len(to) + len(cc) + len(bcc) > limits.recipients:
        raise InvalidArgument("to", f"there are more than {limits.recipients} recipients with cc and bcc")
    reply_to = parse_mailbox(draft.reply_to, "reply_to") if draft.reply_to else None
    if len(draft.subject) > MAX_SUBJECT:
        raise InvalidArgument("subject", f"is longer than {MAX_SUBJECT} characters")
    refuse_control_characters(draft.subject, "subject", _NOT_IN_A_VALUE)
    check_body(draft.text, "text", limits)
    check_body(draft.html, "html", limits)
    check_headers(draft.headers)
    _check_attachments(draft.attachments, limits)
    return CheckedDraft(sender, to, cc, bcc, reply_to, draft)


def _mailboxes(texts: tuple[str, ...], name: str, limits: Limits) -> tuple[Address, ...]:
    if not texts:
        return ()
    if len(texts) > limits.recipients:  # before each of them is read
        raise InvalidArgument(name, f"holds more than {limits.recipients} recipients")
    return tuple([parse_mailbox(text, f"{name}[{place}]") for place, text in enumerate(texts)])


def is_plain(octets: bytes) -> bool:
    """Whether a body is made of what no line or reader could take amiss: visible ASCII, blanks and line ends."""
    return not octets.translate(None, _PLAIN)


def check_body(body: str, name: str, limits: Limits) -> None:
    """Raise InvalidArgument, naming the field, where a body is too long or holds a control character."""
    if len(body) > limits.size:
        raise InvalidArgument(name, f"makes the mail larger than {limits.size} octets")
    if not (body.isascii() and is_plain(body.encode())):
        refuse_control_characters(body, name, _NOT_IN_A_BODY)


def check_headers(headers: Mapping[str, str]) -> None:
    """Raise InvalidArgument where a header is not a caller's to add, or could add another."""
    if len(headers) > MAX_HEADERS:
        raise InvalidArgument("headers", f"there are more than {MAX_HEADERS}")
    for name, value in headers.items():
        where = f"headers[{name[:MAX_HEADER_NAME]!r}]"
        if len(name) > MAX_HEADER_NAME or not _HEADER_NAME.fullmatch(name):
            raise InvalidArgument(where, "is not a header name (RFC 5322, 3.6.8)")
        if name.lower() in OWN_HEADERS or name.lower().startswith("content-"):
            raise InvalidArgument(where, "is written by the service itself")
        if len(value) > MAX_HEADER_VALUE:
            raise InvalidArgument(where, f"is longer than {MAX_HEADER_VALUE} characters")
        refuse_control_characters(value, where, _NOT_IN_A_VALUE)


def _check_attachments(attachments: tuple[Attachment, ...], limits: Limits) -> None:
    if len(attachments) > MAX_ATTACHMENTS:
        raise InvalidArgument("attachments", f"there are more than {MAX_ATTACHMENTS}")
    if sum(len(attachment.content) for attachment in attachments) > limits.size:
        raise InvalidArgument("attachments", f"make the mail larger than {limits.size} octets")
    for place, attachment in enumerate(attachments):
        where = f"attachments[{place}]"
        if len(attachment.filename) > MAX_FILENAME:
            raise InvalidArgument(f"{where}.filename", f"is longer than {MAX_FILENAME} characters")
        refuse_control_characters(attachment.filename, f"{where}.filename")
        if attachment.content_type and not _CONTENT_TYPE.fullmatch(attachment.content_type):
            raise InvalidArgument(f"{where}.content_type", "is not a media type such as application/pdf")
        if attachment.content_type.lower().startswith(("multipart/", "message/")):
            raise InvalidArgument(f"{where}.content_type", "is a composite type, which a file can't have")
        if attachment.content_id and not _CONTENT_ID.fullmatch(attachment.content_id):
            raise InvalidArgument(
                f"{where}.content_id", "is not a content id: letters, digits, @ and the like (RFC 2045, 7)"
            )
