"""Drafts: a mail as its caller asked for it. A draft checks its fields when it is made, so every draft is good.

No value of a draft can add a header or a recipient. Addresses come parsed: see `address.parse_mailboxes`.
"""

import re
from collections.abc import Mapping
from dataclasses import InitVar, field

from otpmail.address import (
    Address,
    control_characters,
    refuse_control_characters,
    refuse_control_characters_in_steps,
)
from otpmail.cooperate import Steps, finish
from otpmail.errors import InvalidArgument
from otpmail.values import frozen

MAX_SUBJECT = 998  # RFC 5322, 2.1.1
MAX_HEADERS = 50
MAX_HEADER_NAME = 64
MAX_HEADER_VALUE = 4096
MAX_ATTACHMENTS = 50
MAX_FILENAME = 255
OCTETS_OF_A_LINE = 57
"""Octets that a line of base64 holds, in 76 characters (RFC 2045, 6.8)."""

LARGE = 64 << 10
"""Characters and octets from which on a mail is checked and written in steps: at once it would take milliseconds."""

# The cost of writing a part of a mail, in characters of text that take as long.
_RECIPIENT_COST = 256
_FILE_COST = 1024
_FILENAME_COST = 8  # for each character

_HEADER_NAME = re.compile(r"[!-9;-~]+")  # RFC 5322, 3.6.8
_CONTENT_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,64}/[A-Za-z0-9!#$&^_.+-]{1,64}")  # RFC 6838, 4.2
_CONTENT_ID = re.compile(r"[A-Za-z0-9!#$%&'*+/=^_`{|}~.@-]{1,128}")
_NOT_IN_A_VALUE = control_characters(but="\t")
_NOT_IN_A_BODY = control_characters(but="\t\r\n\f\x85\u2028\u2029")
_PLAIN = bytes(range(32, 127)) + b"\t\r\n"

# The service writes these, or relays on the way do, or they name further recipients. "Auto-Submitted" is not among
# them: a caller may say that its mail is automatic.
OWN_HEADERS = frozenset(
    {
        *("from", "sender", "to", "cc", "bcc", "reply-to", "subject", "date", "message-id", "mime-version"),
        *("return-path", "received", "dkim-signature", "resent-to", "resent-cc", "resent-bcc", "resent-from"),
        *("resent-sender", "resent-date", "resent-message-id", "delivered-to", "apparently-to"),
    }
)


@frozen()
class Limits:
    """The largest mail that is accepted: `size` in octets as it goes to the relay, `recipients` in number."""

    size: int
    recipients: int


@frozen()
class Attachment:
    """A file in a mail. With `content_id` it is inline, for the HTML part to show as `cid:...`."""

    filename: str
    content_type: str
    content: bytes = field(repr=False)
    content_id: str = ""


@frozen(kw_only=True)
class Draft:
    """A mail as its caller asked for it, with every field within `limits`; without a `sender` it is from EMAIL_FROM.

    `automatic` marks it as sent by a program, so that no holiday reply comes back (RFC 3834, 5). `bodies_checked` says
    that `check_bodies` has checked text and HTML, which takes milliseconds where they are large. `code` is the one that
    the content holds, if it is the mail of a code. The constructor raises InvalidArgument, which names the first field
    that is not good.
    """

    limits: InitVar[Limits]
    bodies_checked: InitVar[bool] = False
    to: tuple[Address, ...] = ()
    cc: tuple[Address, ...] = ()
    bcc: tuple[Address, ...] = ()
    subject: str = field(default="", repr=False)  # these may hold a code
    text: str = field(default="", repr=False)
    html: str = field(default="", repr=False)
    sender: Address | None = None
    reply_to: Address | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    attachments: tuple[Attachment, ...] = ()
    automatic: bool = False
    code: str = field(default="", repr=False)
    is_large: bool = field(default=False, init=False, compare=False, repr=False)
    """Whether it takes more than a millisecond to write."""
    recipients: tuple[str, ...] = field(default=(), init=False, compare=False, repr=False)
    """Everybody the mail goes to, each once, in wire form."""

    def __post_init__(self, limits: Limits, bodies_checked: bool) -> None:
        """Check every field except the addresses, which were checked when they were parsed."""
        everybody = (*self.to, *self.cc, *self.bcc)
        if not everybody:
            raise InvalidArgument("to", "recipient email is required")
        if len(everybody) > limits.recipients:
            raise InvalidArgument("to", f"there are more than {limits.recipients} recipients with cc and bcc")
        if len(self.subject) > MAX_SUBJECT:
            raise InvalidArgument("subject", f"is longer than {MAX_SUBJECT} characters")
        # fast path: a printable subject needs no search, 0.1 us; held to the full path by tests/compose/test_draft.py
        if not self.subject.isprintable():
            refuse_control_characters(self.subject, "subject", _NOT_IN_A_VALUE)
        if not bodies_checked:
            _check_body(self.text, "text", limits)
            if self.html:
                _check_body(self.html, "html", limits)
        recipients = tuple(dict.fromkeys([address.spec for address in everybody]))
        object.__setattr__(self, "recipients", recipients)
        if self.headers or self.attachments or len(everybody) > 1 or len(self.text) + len(self.html) > LARGE:
            self._check_further(limits)

    def _check_further(self, limits: Limits) -> None:
        """Check what a small mail without headers and files lacks."""
        _check_headers(self.headers)
        _check_attachments(self.attachments)
        refuse_hopeless(self, limits)
        object.__setattr__(self, "is_large", _cost(self) > LARGE)


def check_bodies(text: str, html: str, limits: Limits) -> Steps[None]:
    """Check text and HTML of any length for a draft of them with `bodies_checked`.

    Raises InvalidArgument, which names the first of them that is not good.
    """
    yield from _check_body_in_steps(text, "text", limits)
    yield from _check_body_in_steps(html, "html", limits)


def refuse_hopeless(draft: Draft, limits: Limits) -> None:
    """Raise InvalidArgument, naming the largest part, where the mail is sure to be too large however it is written."""
    least = len(draft.text) + len(draft.html) + sum([base64_size(len(file.content)) for file in draft.attachments])
    if least > limits.size:
        raise InvalidArgument(largest_part(draft), f"makes the mail larger than {limits.size} octets")


def largest_part(draft: Draft) -> str:
    """The field that an error about the size of the whole names."""
    sizes = {
        "text": len(draft.text),
        "html": len(draft.html),
        "attachments": sum(len(attachment.content) for attachment in draft.attachments),
    }
    return max(sizes, key=sizes.__getitem__)


def base64_size(octets: int) -> int:
    """The size of so many octets in base64, in lines with their CRLF (RFC 2045, 6.8)."""
    return (octets + 2) // 3 * 4 + 2 * -(-octets // OCTETS_OF_A_LINE)


def _cost(draft: Draft) -> int:
    """How long a mail takes to write, in characters of text that take as long."""
    files = [_FILE_COST + _FILENAME_COST * len(file.filename) + len(file.content) for file in draft.attachments]
    shown = _RECIPIENT_COST * (len(draft.to) + len(draft.cc))
    return len(draft.text) + len(draft.html) + sum(map(len, draft.headers.values())) + sum(files) + shown


def _check_body(body: str, name: str, limits: Limits) -> None:
    if len(body) > LARGE or len(body) > limits.size:
        finish(_check_body_in_steps(body, name, limits))
    # fast path: visible ASCII, blanks and line ends need no search, 0.7 us a mail; held to the full path by
    # tests/compose/test_draft.py
    elif not (body.isascii() and not body.encode().translate(None, _PLAIN)):
        refuse_control_characters(body, name, _NOT_IN_A_BODY)


def _check_body_in_steps(body: str, name: str, limits: Limits) -> Steps[None]:
    if len(body) > limits.size:
        raise InvalidArgument(name, f"makes the mail larger than {limits.size} octets")
    yield from refuse_control_characters_in_steps(body, name, _NOT_IN_A_BODY)


def _check_headers(headers: Mapping[str, str]) -> None:
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


def _check_attachments(attachments: tuple[Attachment, ...]) -> None:
    if len(attachments) > MAX_ATTACHMENTS:
        raise InvalidArgument("attachments", f"there are more than {MAX_ATTACHMENTS}")
    for place, attachment in enumerate(attachments):
        _check_attachment(attachment, f"attachments[{place}]")


def _check_attachment(attachment: Attachment, where: str) -> None:
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
