"""Mailbox addresses: parsed strictly, written for the wire, and reduced to the key under which a person is known.

`email.utils.parseaddr` is not used anywhere: on odd input it quietly yields another address than the one given.
"""

import re
import unicodedata

import email_validator
from email_validator import EmailNotValidError, validate_email

from otpmail.errors import InvalidArgument
from otpmail.values import frozen

MAX_OCTETS = 254  # RFC 5321, 4.5.3.1.3 less the angle brackets
_USUAL_LENGTH = 200  # well below what a domain may have (253) with the shortest local part
_MAX_NAME = 256
_NAMED = re.compile(r'(?:"(?P<quoted>(?:[^"\\]|\\["\\])*)"|(?P<plain>[^"<>]*?))\s*<(?P<spec>[^<>]*)>')
# What nearly every address looks like: in it is nothing for the library to decide, and so it is not asked. It is asked
# about a label with two hyphens, which may be an encoded one, and about a domain without a dot.
_USUAL = re.compile(
    r"(?=[^@]{1,64}@)[\w!#$%&'*+/=?^`{|}~-]+(?:\.[\w!#$%&'*+/=?^`{|}~-]+)*"
    r"@(?!.*--)(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.)+[a-zA-Z]{2,63}",
    re.ASCII,
)
# Which domains exist is the relay's to know: a mesh also mails to ops@localhost and ops@mail.local. The library's own
# documentation names this list as the place to say so.
email_validator.SPECIAL_USE_DOMAIN_NAMES.clear()
_SEARCHED_AT_ONCE = 1 << 20  # a few milliseconds: in a thread, others have the interpreter between two searches


def control_characters(*, but: str = "") -> re.Pattern[str]:
    """A pattern for the characters that could end a line, a header or a command, without those in `but`."""
    controls = map(chr, (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029))
    return re.compile(f"[{re.escape(''.join(c for c in controls if c not in but))}\ud800-\udfff]")


_ANY_CONTROL = control_characters()


@frozen()
class Address:
    """One mailbox: `spec` in wire form (local part as given, domain in A-labels), and a display name for headers."""

    spec: str
    name: str = ""

    @property
    def domain(self) -> str:
        """What stands behind the `@`."""
        return self.spec.rpartition("@")[2]

    @property
    def needs_smtputf8(self) -> bool:
        """Only a relay that announces SMTPUTF8 (RFC 6531) can take this address."""
        return not self.spec.isascii()

    @property
    def key(self) -> str:
        """The form under which codes and budgets are kept.

        ASCII letters lowered and NFC, but no Unicode case folding: that would merge mailboxes of different people.
        """
        if self.spec.isascii():
            return self.spec.lower()
        local, _, domain = self.spec.rpartition("@")
        # Letter by letter, since NFC of some signs is an ASCII letter (the Kelvin sign's is K): still another mailbox.
        composed = unicodedata.normalize("NFC", local)
        if sum(map(str.isascii, composed)) > sum(map(str.isascii, local)):
            composed = local
        lowered = "".join(c.lower() if c.isascii() else c for c in composed)
        return f"{lowered}@{domain.lower()}"


def refuse_control_characters(text: str, field: str, forbidden: re.Pattern[str] = _ANY_CONTROL) -> None:
    """Raise InvalidArgument, naming `field`, where `text` holds a `forbidden` character; see `control_characters`."""
    if text.isprintable():  # which no control character, line end or lone surrogate is; and many times faster to say
        return
    for start in range(0, len(text), _SEARCHED_AT_ONCE):
        match = forbidden.search(text, start, start + _SEARCHED_AT_ONCE)
        if match is not None:
            raise InvalidArgument(field, f"holds the control character U+{ord(match[0]):04X}")


def is_usual(text: str) -> bool:
    """Whether this is a mailbox address that nobody needs to look at twice: most are, and it is told by one pattern."""
    return len(text) <= _USUAL_LENGTH and _USUAL.fullmatch(text) is not None


def parse_address(text: str, field: str) -> Address:
    """Read one bare mailbox, `ada@example.org`.

    Raises InvalidArgument naming `field` (RFC 5321, 4.1.2; quoted local parts and address literals are refused).
    """
    if is_usual(text):
        return Address(text)
    if not text:
        raise InvalidArgument(field, "is empty")
    if len(text) > MAX_OCTETS:  # before anything reads it
        raise InvalidArgument(field, f"is longer than {MAX_OCTETS} octets")
    refuse_control_characters(text, field)
    if len(text.encode()) > MAX_OCTETS:
        raise InvalidArgument(field, f"is longer than {MAX_OCTETS} octets")
    try:
        checked = validate_email(text, check_deliverability=False, globally_deliverable=False, strict=True)
    except EmailNotValidError as error:
        raise InvalidArgument(field, f"is not a mailbox address: {error}") from None
    local, _, domain = text.rpartition("@")
    return Address(f"{local}@{domain if domain.isascii() else checked.ascii_domain}")


def parse_mailbox(text: str, field: str) -> Address:
    """Read a mailbox with or without a display name, `Ada Lovelace <ada@example.org>`.

    Raises InvalidArgument naming `field` (RFC 5322, 3.4, without comments, groups and obsolete forms).
    """
    if "<" not in text:
        return parse_address(text, field)
    if len(text) > 2 * _MAX_NAME + MAX_OCTETS:  # every character of the name may be quoted
        raise InvalidArgument(field, "is longer than a name and an address can be")
    refuse_control_characters(text, field)
    match = _NAMED.fullmatch(text.strip())
    if match is None:
        raise InvalidArgument(field, "is neither a mailbox address nor a name with one in angle brackets")
    name = match["plain"] if match["quoted"] is None else re.sub(r"\\(.)", r"\1", match["quoted"])
    if len(name) > _MAX_NAME:
        raise InvalidArgument(field, f"has a display name longer than {_MAX_NAME} characters")
    return Address(parse_address(match["spec"], field).spec, name)
