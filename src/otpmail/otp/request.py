"""The requests of codes and their answers: the limits of their fields, and the key of the record that is asked for."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import field

from otpmail.address import Address, parse_address, refuse_control_characters
from otpmail.callers import Caller
from otpmail.compose.locales import TAG
from otpmail.errors import InvalidArgument, LimitExceeded
from otpmail.limits.mailboxes import mailbox_of
from otpmail.model import Check, IssuedCode, Labels, Mail, WaitFor
from otpmail.settings.profiles import PURPOSE
from otpmail.values import frozen

DEFAULT_PURPOSE = "login"
MAX_CODE = 1000  # as it was typed or pasted, blanks included
MAX_SESSION = 256
MAX_VARIABLES = 32
MAX_VARIABLE = 1000

_VARIABLE = re.compile(r"[a-z][a-z0-9_]{0,31}")
_CHALLENGE_ID = re.compile(r"[0-9a-f]{32}")
_RESERVED = frozenset({"code", "reference", "valid_for", "minutes", "email"})


@frozen(kw_only=True)
class CodeRequest:
    """A code that a caller wants mailed.

    `block` is that of the end user (`limits.blocks`), if it is known.

    `compat` is for the original's contract: its mails need no OTP_RESEND_SECONDS between them, and its codes live for
    two minutes unless OTP_LIFESPAN_SECONDS is set.
    """

    email: str
    purpose: str = ""
    locale: str = ""
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    request_id: str = ""
    fingerprint: bytes = b""
    wait_for: WaitFor = WaitFor.RELAY
    labels: Labels = field(default=(), repr=False)
    session: str = field(default="", repr=False)
    device_token: str = field(default="", repr=False)
    block: str = field(default="", repr=False)
    compat: bool = False

    def check_words(self) -> None:
        """Raise InvalidArgument for a locale or variables that no template can be filled with."""
        if self.locale and not TAG.fullmatch(self.locale):
            raise InvalidArgument("locale", "is not a language tag such as en or pt-BR (BCP 47)")
        if len(self.variables) > MAX_VARIABLES:
            raise InvalidArgument("variables", f"there are more than {MAX_VARIABLES}")
        for name, value in self.variables.items():
            if not _VARIABLE.fullmatch(name):
                raise InvalidArgument("variables", f"{name[:40]!r} is not a name: a-z, then up to 31 of a-z, 0-9 and _")
            if name in _RESERVED:
                raise InvalidArgument("variables", f"{name!r} is filled in by the service")
            if len(value) > MAX_VARIABLE:
                raise InvalidArgument("variables", f"{name!r} is longer than {MAX_VARIABLE} characters")
            refuse_control_characters(value, f"variables[{name!r}]")


@frozen()
class SentCode:
    """The answer to a CodeRequest. `code` is empty unless OTP_RETURN_CODE is on; `code_length` is in characters.

    A challenge without an id was not issued, since the address is suppressed: that ends at the next send.
    """

    issued: IssuedCode
    reference: str
    mail: Mail
    code_length: int
    code: str = field(default="", repr=False)


@frozen(kw_only=True)
class CheckRequest:
    """A code that somebody has typed. `fingerprint` is a digest of a request with a request id, else empty.

    `compat` is for the original's contract.
    """

    email: str
    code: str = field(repr=False)
    purpose: str = ""
    challenge_id: str = ""
    session: str = field(default="", repr=False)
    device_token: str = field(default="", repr=False)
    fingerprint: bytes = b""
    compat: bool = False


@frozen()
class Checked:
    """The answer to a CheckRequest. `device_token` is there with VALID.

    `refusal` is TOO_MANY_ATTEMPTS as the limit that it is, for a contract without such a result.
    """

    check: Check
    device_token: str = field(default="", repr=False)
    refusal: LimitExceeded | None = None


@frozen()
class Place:
    """Where the codes of an address are: the `key` of its record, and the `scope` of a purpose and a session there.

    Both are digests, so that a dump of the store holds no addresses.
    """

    address: Address
    key: bytes
    scope: bytes
    earlier: bytes = b""
    """The key of the record that an earlier version kept for the purpose, if that is asked for and may be there."""

    mailbox: bytes = b""
    """The key of the record of the mailbox whose limits of mails the address shares, if that is another one."""


def find_place(
    caller: Caller,
    email: str,
    purpose: str,
    session: str = "",
    *,
    with_earlier: bool = False,
    gmail_dots: bool = False,
) -> Place:
    """Return where the codes of a mailbox are for a purpose and a session. Raises InvalidArgument."""
    address = parse_address(email, "email")
    purpose = purpose or DEFAULT_PURPOSE
    if not PURPOSE.fullmatch(purpose):
        raise InvalidArgument("purpose", "must be 1 to 32 of a-z, 0-9, _ and -")
    if len(session) > MAX_SESSION:
        raise InvalidArgument("session", f"is longer than {MAX_SESSION} characters")
    of_address = address.key
    key = hashlib.blake2b(f"{caller.name}\0{of_address}".encode(), digest_size=16).digest()
    mailbox = b""
    if ("+" in of_address or gmail_dots) and (shared := mailbox_of(of_address, gmail_dots=gmail_dots)) != of_address:
        mailbox = hashlib.blake2b(f"{caller.name}\0{shared}".encode(), digest_size=16).digest()
    earlier = b""
    if with_earlier and not session:
        earlier = hashlib.blake2b(f"{caller.name}\0{purpose}\0{address.key}".encode(), digest_size=16).digest()
    return Place(
        address,
        key,
        hashlib.blake2b(f"{purpose}\0{session}".encode(), digest_size=8, key=key).digest(),
        earlier,
        mailbox,
    )


def read_challenge_id(text: str) -> bytes | None:
    """Return the id of a challenge, None for an empty text. Raises InvalidArgument."""
    if not text:
        return None
    if not _CHALLENGE_ID.fullmatch(text):
        raise InvalidArgument("challenge_id", "is not one that SendCode gave")
    return bytes.fromhex(text)


def naming_variables(error: InvalidArgument) -> InvalidArgument:
    """Return the error for a mail that its caller's variables have made wrong."""
    if error.field not in {"subject", "text", "html"}:
        return error
    return InvalidArgument("variables", f"make the mail's {error.field} one that {error.description}")
