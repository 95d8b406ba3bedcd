"""Drafts: a mail as its caller asked for it. A draft checks its fields when it is made, so every draft is good.

No value of a draft can add a header or a recipient. Addresses come parsed: see `address.parse_mailboxes`.
"""

import re
from dataclasses import InitVar, field

from otpmail.address import Address, refuse_control_characters
from otpmail.compose.attachment import EMBEDDED, Attachment, check_attachments
from otpmail.compose.fields import NOT_IN_A_VALUE, check_headers, check_message_id
from otpmail.cooperate import Steps, finish
from otpmail.errors import InvalidArgument
from otpmail.values import frozen

MAX_SUBJECT = 998  # RFC 5322, 2.1.1
MAX_REPLY_TO = 10
OCTETS_OF_A_LINE = 57
"""Octets that a line of base64 holds, in 76 characters (RFC 2045, 6.8)."""

LARGE = 64 << 10
"""Characters and octets from which on a mail is checked and written in steps: at once it would take milliseconds."""

# The cost of writing a part of a mail, in characters of text that take as long.
_RECIPIENT_COST = 256
_FILE_COST = 1024
_FILENAME_COST = 8  # for each character
_FEW = 2  # addresses, of which a small mail is never large

_NOT_IN_A_BODY = re.compile("[\0\ud800-\udfff]")  # RFC 5322, 4: no NUL; UTF-8 holds no lone surrogate


@frozen()
class Limits:
    """The largest mail that is accepted: `size` in octets as it goes to the relay, `recipients` in number."""

    size: int
    recipients: int


@frozen(kw_only=True)
class Draft:
    """A mail as its caller asked for it, with every field within `limits`; without `from_` it is from EMAIL_FROM.

    `sender` is who sends it for the one that it is from (RFC 5322, 3.6.2). `return_path` is where bounces go, in wire
    form: "" is nowhere (RFC 5321, 4.5.5), None is to `from_`. `message_id` has no angle brackets; the service makes one
    where it is empty. `headers` are names and values in their order, and a name may come twice.

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
    from_: Address | None = None
    sender: Address | None = None
    return_path: str | None = None
    reply_to: tuple[Address, ...] = ()
    message_id: str = ""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    attachments: tuple[Attachment, ...] = ()
    automatic: bool = False
    code: str = field(default="", repr=False)
    is_large: bool = field(default=False, init=False, compare=False, repr=False)
    """Whether it takes more than a millisecond to write."""
    recipients: tuple[str, ...] = field(default=(), init=False, compare=False, repr=False)
    """Everybody the mail goes to, each once, in wire form."""

    def __post_init__(self, limits: Limits, bodies_checked: bool) -> None:
        """Check every field except the addresses, which were checked when they were parsed."""
        everybody = self.to + self.cc + self.bcc
        count = len(everybody)
        if not count:
            raise InvalidArgument("to", "recipient email is required")
        if count > limits.recipients:
            raise InvalidArgument("to", f"there are more than {limits.recipients} recipients with cc and bcc")
        subject, text, html = self.subject, self.text, self.html
        if len(subject) > MAX_SUBJECT:
            raise InvalidArgument("subject", f"is longer than {MAX_SUBJECT} characters")
        # fast path: a printable subject needs no search, 0.1 us; held to the full path by tests/compose/test_draft.py
        if not subject.isprintable():
            refuse_control_characters(subject, "subject", NOT_IN_A_VALUE)
        if not bodies_checked:
            _check_body(text, "text", limits)
            if html:
                _check_body(html, "html", limits)
        if self.message_id:
            check_message_id(self.message_id)
        recipients = (everybody[0].spec,) if count == 1 else _each_once(everybody)
        object.__setattr__(self, "recipients", recipients)
        few = count + len(self.reply_to) <= _FEW
        if self.headers or self.attachments or not few or len(text) + len(html) > LARGE:
            self._check_further(limits)

    def _check_further(self, limits: Limits) -> None:
        """Check what a small mail without headers and files lacks."""
        if len(self.reply_to) > MAX_REPLY_TO:
            raise InvalidArgument("reply_to", f"there are more than {MAX_REPLY_TO} addresses")
        check_headers(self.headers)
        check_attachments(self.attachments)
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
    least = len(draft.text) + len(draft.html) + sum([_least_size(file) for file in draft.attachments])
    if least > limits.size:
        raise InvalidArgument(largest_part(draft), f"makes the mail larger than {limits.size} octets")


def largest_part(draft: Draft) -> str:
    """The field that an error about the size of the whole names."""
    sizes = {
        "text": len(draft.text),
        "html": len(draft.html),
        "headers": sum([len(value) for _, value in draft.headers]),
        "attachments": sum(len(attachment.content) for attachment in draft.attachments),
    }
    return max(sizes, key=sizes.__getitem__)


def _least_size(file: Attachment) -> int:
    """The octets of a file in the mail, at least."""
    if file.alternative or file.media_type.name == EMBEDDED:
        return len(file.content)
    return base64_size(len(file.content))


def base64_size(octets: int) -> int:
    """The size of so many octets in base64, in lines with their CRLF (RFC 2045, 6.8)."""
    return (octets + 2) // 3 * 4 + 2 * -(-octets // OCTETS_OF_A_LINE)


def _cost(draft: Draft) -> int:
    """How long a mail takes to write, in characters of text that take as long."""
    files = [_FILE_COST + _FILENAME_COST * len(file.filename) + len(file.content) for file in draft.attachments]
    shown = _RECIPIENT_COST * (len(draft.to) + len(draft.cc) + len(draft.reply_to))
    headers = sum([len(value) for _, value in draft.headers])
    return len(draft.text) + len(draft.html) + headers + sum(files) + shown


def _each_once(addresses: tuple[Address, ...]) -> tuple[str, ...]:
    """The addresses in wire form, of several for one mailbox the first."""
    by_mailbox = dict[str, str]()
    for address in addresses:
        by_mailbox.setdefault(address.mailbox, address.spec)
    return tuple(by_mailbox.values())


def _check_body(body: str, name: str, limits: Limits) -> None:
    if len(body) > LARGE or len(body) > limits.size:
        finish(_check_body_in_steps(body, name, limits))
    # fast path: ASCII holds no surrogate, 5 us a mail; held to the full path by tests/compose/test_draft.py
    elif "\0" in body or not body.isascii():
        _refuse_nul(body, name)


def _check_body_in_steps(body: str, name: str, limits: Limits) -> Steps[None]:
    if len(body) > limits.size:
        raise InvalidArgument(name, f"makes the mail larger than {limits.size} octets")
    for start in range(0, len(body), LARGE):
        _refuse_nul(body[start : start + LARGE], name)
        yield


def _refuse_nul(text: str, name: str) -> None:
    """Refuse a NUL, and a lone surrogate, for which UTF-8 has no octets."""
    if "\0" not in text:
        try:
            text.encode()
        except UnicodeEncodeError:
            pass
        else:
            return
    refuse_control_characters(text, name, _NOT_IN_A_BODY)
