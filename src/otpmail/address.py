"""Mailbox addresses: parsed strictly, written for the wire, and reduced to the key under which a person is known.

`email.utils.parseaddr` is not used anywhere: on odd input it quietly yields another address than the one given.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from otpmail.blanks import is_blank, trim
from otpmail.cooperate import Steps
from otpmail.errors import InvalidArgument
from otpmail.local_part import unquoted, wire_form
from otpmail.values import frozen

MAX_OCTETS = 254  # RFC 5321, 4.5.3.1.3 less the angle brackets
_MAX_NAME = 256
_MAX_MAILBOX = 2 * _MAX_NAME + MAX_OCTETS  # every character of the name may be quoted
_MAX_BLANKS = 64  # around a mailbox; a longer text is not searched for them

# Possessive, so that a name of many blanks is read once and not once for each blank.
_NAMED = re.compile(
    r"""
    (?: "(?P<quoted> (?: [^"\\] | \\["\\] )*+ )" \s*+  # a name in quotes
      | (?P<plain> (?: [^"<>]++ | "[^"<>\\]*+" )*+ )  # or one that may have quotes in it: John "Jack" Doe
    )
    < (?P<spec> [^<>]*+ ) >
    """,
    re.VERBOSE,
)
# fast path: nearly every address matches, which saves 31 us of the library; held to the full path by
# tests/test_address.py. A domain without a dot, or with two hyphens in a row as in A-labels, goes to the library. A
# local part may have more than the 64 octets of RFC 5321, 4.5.3.1.1, since some relays take it.
_USUAL = re.compile(
    r"""
    (?! .{201} )  # well within MAX_OCTETS, and the 253 of a domain
    (?! [^@]* (?: =\? | %20 ) )  # may be an encoded word, or have the blank of a URL
    [a-zA-Z0-9_!\#$%&'*+/=?^`{|}~-]++ (?: \. [a-zA-Z0-9_!\#$%&'*+/=?^`{|}~-]++ )*+
    @
    (?: (?! [^.]{64} ) [a-zA-Z0-9]++ (?: - [a-zA-Z0-9]++ )*+ \. )++  # RFC 1035, 2.3.1
    [a-zA-Z]{2,63}
    """,
    re.VERBOSE,
)
_USUAL_LOCAL = re.compile(
    r"(?!.*=\?)[a-zA-Z0-9_!#$%&'*+/=?^`{|}~-]++(?:\.[a-zA-Z0-9_!#$%&'*+/=?^`{|}~-]++)*+"  # the first half of `_USUAL`
)
_LABEL_ENDS = re.compile("[@.\u3002\uff0e\uff61]")  # the full stops of RFC 3490, 3.1
_SURROUNDINGS = re.compile("^(?:%20)++|(?:%20)++$|(?<=\\w)[.\u3002\uff0e\uff61]$")
SPELLING_OCTETS = 8
AS_KEY = bytes(SPELLING_OCTETS)
"""The spelling of an address that is written as its key."""

_DOMAINS = 1024  # remembered, in 2 MiB at most


def load_library() -> None:
    """Import the library that checks unusual addresses. That takes 60 ms of processor time.

    The service does so at its start, so that no address holds the loop. A command does so if it needs it.
    """
    import email_validator  # noqa: F401


def control_characters(*, but: str = "") -> re.Pattern[str]:
    """A pattern for the characters that could end a line, a header or a command, without those in `but`."""
    controls = map(chr, (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029))
    return re.compile(f"[{re.escape(''.join(c for c in controls if c not in but))}\ud800-\udfff]")


_ANY_CONTROL = control_characters()


@frozen()
class Address:
    """One mailbox, with a display name for headers.

    `spec` is in wire form: the local part as given, quoted only where it must be, and the domain in A-labels.
    """

    spec: str
    name: str = ""

    @property
    def domain(self) -> str:
        """The part after the `@`."""
        return self.spec.rpartition("@")[2]

    @property
    def mailbox(self) -> str:
        """The form that is the same for all spellings of one mailbox: a domain has no case (RFC 5321, 2.4)."""
        local, _, domain = self.spec.rpartition("@")
        return f"{local}@{domain.lower()}"

    @property
    def needs_smtputf8(self) -> bool:
        """Whether only a relay that announces SMTPUTF8 (RFC 6531) can take this address."""
        return not self.spec.isascii()

    @property
    def key(self) -> str:
        """The form under which codes and budgets are kept.

        ASCII letters lowered and NFC, but no Unicode case folding: that would merge mailboxes of different people.
        """
        if self.spec.isascii():
            return self.spec.lower()
        local, _, domain = self.spec.rpartition("@")
        # NFC makes an ASCII letter of some signs (of the Kelvin sign, K): a relay still takes that for another mailbox.
        composed = unicodedata.normalize("NFC", local)
        if sum(map(str.isascii, composed)) > sum(map(str.isascii, local)):
            composed = local
        lowered = "".join(c.lower() if c.isascii() else c for c in composed)
        return f"{lowered}@{domain.lower()}"

    @property
    def spelling(self) -> bytes:
        """A mark that tells the spellings with one key apart, of which a relay may know some only (RFC 5321, 2.4)."""
        mailbox = self.mailbox
        return (
            AS_KEY if mailbox == self.key else hashlib.blake2b(mailbox.encode(), digest_size=SPELLING_OCTETS).digest()
        )


def refuse_control_characters(text: str, field: str, forbidden: re.Pattern[str] = _ANY_CONTROL) -> None:
    """Raise InvalidArgument, naming `field`, where `text` holds a `forbidden` character; see `control_characters`."""
    match = forbidden.search(text)
    if match is not None:
        raise InvalidArgument(field, f"holds the control character U+{ord(match[0]):04X}")


def parse_address(text: str, field: str) -> Address:
    """Read one bare mailbox, `ada@example.org`. Blanks around it are ignored, since people paste them along.

    So are `%20`, the blank of a URL, and the dot of the root behind the domain: each would be one more spelling.
    Raises InvalidArgument naming `field` (RFC 5321, 4.1.2; address literals are refused, and local parts that some
    programs would read as another address, see `local_part`).
    """
    if _USUAL.fullmatch(text):
        return Address(text)
    if len(text) <= MAX_OCTETS + _MAX_BLANKS and (trimmed := _SURROUNDINGS.sub("", trim(text))) != text:
        return parse_address(trimmed, field)
    if not text:
        raise InvalidArgument(field, "is empty")
    if len(text) > MAX_OCTETS:  # before anything reads it
        raise InvalidArgument(field, f"is longer than {MAX_OCTETS} octets")
    refuse_control_characters(text, field)
    if len(text.encode()) > MAX_OCTETS:
        raise InvalidArgument(field, f"is longer than {MAX_OCTETS} octets")
    local, _, domain = text.rpartition("@")
    try:
        quoted = unquoted(local)
    except ValueError as error:
        raise InvalidArgument(field, f"is not a mailbox address ({error})") from None
    if quoted is not None:
        return _with_local_part(quoted, domain, field)
    in_a_labels = _known_domain(local, domain) or _checked_domain(text, field)
    return Address(text if domain.isascii() else f"{local}@{in_a_labels}")


def _with_local_part(bare: str, domain: str, field: str) -> Address:
    """The address of a local part that the library does not read, in wire form."""
    in_a_labels, longest = _remembered(domain)
    if not in_a_labels:
        in_a_labels = _checked_domain(f"x@{domain}", field)
    local = wire_form(bare)
    if len(local) + 1 + longest > MAX_OCTETS:
        raise InvalidArgument(field, f"is longer than {MAX_OCTETS} octets")
    return Address(f"{local}@{domain if domain.isascii() else in_a_labels}")


def _known_domain(local: str, domain: str) -> str:
    """The domain in A-labels, where it was checked before and the address is short enough; empty otherwise."""
    # fast path: a mail may have a hundred domains in other letters, 70 to 400 us each; held to the full
    # path by tests/test_address.py
    if not _USUAL_LOCAL.fullmatch(local):
        return ""
    in_a_labels, longest = _remembered(domain)
    return in_a_labels if len(local) + 1 + longest <= MAX_OCTETS else ""


@lru_cache(maxsize=_DOMAINS)
def _remembered(domain: str) -> tuple[str, int]:
    """A domain in A-labels, and the octets of its longest form; empty where the library refuses it."""
    from email_validator import EmailNotValidError

    try:
        in_a_labels, longest = _by_library(f"x@{domain}")
    except EmailNotValidError:
        return "", 0
    return in_a_labels, longest - len("x@")


def _checked_domain(text: str, field: str) -> str:
    """The domain of an address in A-labels, once the whole address is checked.

    The library lets some characters through that show nothing: each would make one more spelling of a mailbox.
    """
    from email_validator import EmailNotValidError

    try:
        domain = _by_library(text)[0]
    except EmailNotValidError as error:
        reason = str(error).rstrip(".")  # a sentence of the library
        raise InvalidArgument(field, f"is not a mailbox address ({reason[:1].lower()}{reason[1:]})") from None
    if not text.isascii() and (invisible := next(filter(is_blank, text.rpartition("@")[0]), "")):
        raise InvalidArgument(field, f"is not a mailbox address (U+{ord(invisible):04X} before the @ shows nothing)")
    return domain


def _by_library(text: str) -> tuple[str, int]:
    """The domain of an address in A-labels, and the octets of the address in the longest of its forms.

    The library refuses special-use names (RFC 6761), but only the relay knows which domains it serves: a mesh also
    mails to ops@localhost and ops@mail.local. So the library sees an x for each letter of such a name. Raises
    EmailNotValidError.
    """
    from email_validator import SPECIAL_USE_DOMAIN_NAMES, validate_email

    last = _LABEL_ENDS.split(text)[-1]
    name = unicodedata.normalize("NFKC", last).lower()
    special = name in SPECIAL_USE_DOMAIN_NAMES
    shown = text[: -len(last)] + "x" * len(name) if special else text
    checked = validate_email(shown, check_deliverability=False, globally_deliverable=False)
    domain = checked.ascii_domain
    local_octets = len(checked.local_part.encode())
    longest = max(len(text.encode()), len(checked.normalized.encode()), local_octets + 1 + len(domain))
    return domain[: -len(name)] + name if special else domain, longest


def parse_mailbox(text: str, field: str) -> Address:
    """Read a mailbox with or without a display name, `Ada Lovelace <ada@example.org>`; blanks around it are ignored.

    Quotes within a name are part of it; quotes around it are not. Raises InvalidArgument naming `field` (RFC 5322, 3.4,
    without comments, groups and obsolete forms).
    """
    if "<" not in text:
        return parse_address(text, field)
    if len(text) <= _MAX_MAILBOX + _MAX_BLANKS:
        text = trim(text)
    if len(text) > _MAX_MAILBOX:
        raise InvalidArgument(field, "is longer than a name and an address can be")
    refuse_control_characters(text, field)
    match = _NAMED.fullmatch(text)
    if match is None:
        raise InvalidArgument(field, "is neither a mailbox address nor a name with one in angle brackets")
    if match["quoted"] is None:
        name = match["plain"].rstrip()
        if "@" in name and ("," in name or ";" in name):
            raise InvalidArgument(field, "looks like several mailboxes; a name with an @ and a comma must be in quotes")
    else:
        name = re.sub(r"\\(.)", r"\1", match["quoted"])
    if len(name) > _MAX_NAME:
        raise InvalidArgument(field, f"has a display name longer than {_MAX_NAME} characters")
    return Address(parse_address(match["spec"], field).spec, name)


def parse_return_path(text: str, field: str) -> str:
    """Read where bounces go, with or without angle brackets, in wire form; `<>` is nowhere, and returned empty.

    Raises InvalidArgument naming `field` (RFC 5321, 4.1.1.2 and 4.5.5; a display name is refused).
    """
    bare = trim(text) if len(text) <= MAX_OCTETS + _MAX_BLANKS else text
    if bare.startswith("<") and bare.endswith(">"):
        bare = bare[1:-1]
        if not bare:
            return ""
    return parse_address(bare, field).spec


def parse_mailboxes(texts: Sequence[str], field: str, *, most: int) -> tuple[Address, ...]:
    """Read a list of mailboxes, each as `parse_mailbox` does; its errors name the place, as in `to[0]`.

    Raises InvalidArgument naming `field` for more than `most`, before any of them is read.
    """
    if len(texts) > most:
        raise InvalidArgument(field, f"holds more than {most} recipients")
    read: list[Address] = []
    for text in texts:
        read.append(Address(text) if _USUAL.fullmatch(text) else parse_mailbox(text, f"{field}[{len(read)}]"))
    return tuple(read)


def parse_mailboxes_in_steps(texts: Sequence[str], field: str, *, most: int) -> Steps[tuple[Address, ...]]:
    """Do as `parse_mailboxes`, for addresses of any kind: those with a domain in other letters take long to read."""
    if len(texts) > most:
        raise InvalidArgument(field, f"holds more than {most} recipients")
    read: list[Address] = []
    for text in texts:
        read.append(parse_mailbox(text, f"{field}[{len(read)}]"))
        yield
    return tuple(read)
