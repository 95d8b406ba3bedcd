"""The settings of mails: senders, sizes, how many may wait, and for how long."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from otpmail.address import parse_address, parse_mailbox
from otpmail.errors import InvalidArgument
from otpmail.header_names import is_header_name, is_own
from otpmail.settings.duration import MinuteToMonth, Seconds
from otpmail.settings.machine import available_memory
from otpmail.settings.problems import Problem, quoted
from otpmail.settings.section import Count, Section, broken_rule, lower_case

FOR_REQUESTS = 4
"""The part of the memory for requests that are half received: a quarter. The largest request must fit in there."""

_MOST_MEMORY = 2 << 30
_DAY = 86_400.0
_ENVELOPE_OCTETS = 1 << 20  # the parts of a request beside the mail itself: addresses, headers, field tags

Names = Annotated[tuple[str, ...], NoDecode]


class MailSettings(Section):
    """Limits of mails: their senders and sizes, how many may wait, and for how many seconds."""

    email_from: str = ""
    email_from_allowed: Names = ()
    workers: Annotated[int, Field(ge=1, le=1000)] = 5
    queue_size: Count = 10_000
    memory_max_mb: Annotated[int, Field(ge=16)] | None = None
    stream_unsettled: Count = 1000
    mail_ttl: Seconds = 86_400
    mail_wait_seconds: Seconds = 60
    mail_max_bytes: Annotated[int, Field(ge=1024, le=150 << 20)] = 10 << 20
    mail_max_recipients: Count = 100
    mail_remember_seconds: Seconds = 3600
    mail_remember_count: Count = 20_000
    mail_request_seconds: MinuteToMonth | None = None
    mail_request_count: Annotated[int, Field(ge=1, le=10_000_000)] = 200_000
    suppressions_max: Annotated[int, Field(ge=0, le=10_000_000)] = 1_000_000
    email_dedup_header: str = ""
    email_on_uncertain: Literal["retry", "fail"] = "retry"
    email_relays: SecretStr = SecretStr("")  # a secret, since the URLs hold passwords; `relays` reads them

    @property
    def memory_octets(self) -> int:
        """MEMORY_MAX_MB in octets; without it half of the memory that this process may use, at most 2 GiB."""
        if self.memory_max_mb is not None:
            return self.memory_max_mb << 20
        return min(available_memory() // 2, _MOST_MEMORY)

    @property
    def request_seconds(self) -> float:
        """MAIL_REQUEST_SECONDS; without it a day, or MAIL_TTL if that is longer."""
        return self.mail_request_seconds or max(_DAY, self.mail_ttl)

    @property
    def most_request_octets(self) -> int:
        """How large a request may be: larger ones end with RESOURCE_EXHAUSTED before gRPC buffers them."""
        return self.mail_max_bytes + _ENVELOPE_OCTETS

    @property
    def least_memory_mb(self) -> int:
        """The least MiB of memory that hold the largest mail while it is received and written."""
        return -(-FOR_REQUESTS * self.most_request_octets >> 20)

    def conflicts(self) -> Iterator[Problem]:
        """Yield a problem where the memory does not hold the largest mail, or a request id ends before its mail may.

        A repeated call would send the mail again then, which may be in the queue still.
        """
        if self.request_seconds < self.mail_ttl:
            yield Problem(
                f"MAIL_REQUEST_SECONDS: {self.request_seconds:g} is less than MAIL_TTL ({self.mail_ttl:g}), so a "
                "repeated call could send a mail again that is retried still; raise it, or lower MAIL_TTL",
                ("MAIL_REQUEST_SECONDS", "MAIL_TTL"),
            )
        needed = self.least_memory_mb
        if needed << 20 <= self.memory_octets:
            return
        given = f"{self.memory_octets >> 20} MiB"
        if self.memory_max_mb is None:
            given = f"is not set, and half of the memory that this process may use, {given},"
        yield Problem(
            f"MEMORY_MAX_MB: {given} can't hold a mail of MAIL_MAX_BYTES ({self.mail_max_bytes}) while it is received "
            f"and written; set MEMORY_MAX_MB to {needed} or more, or lower MAIL_MAX_BYTES",
            ("MEMORY_MAX_MB", "MAIL_MAX_BYTES"),
        )

    _any_case = field_validator("email_on_uncertain", mode="before")(lower_case)

    @field_validator("email_from_allowed", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("email_from_allowed")
    @classmethod
    def _in_the_form_compared(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(sender_key(entry) for entry in value)
        except InvalidArgument as error:
            raise broken_rule(f"{quoted(error.field)} is neither an address nor an @ with a domain") from None

    @field_validator("email_dedup_header")
    @classmethod
    def _header_name(cls, value: str) -> str:
        if value and not is_header_name(value):
            raise broken_rule("is not the name of a header field")
        if is_own(value):
            raise broken_rule("is the name of a header field that otpmail or a relay writes")
        return value

    @field_validator("email_from")
    @classmethod
    def _mailbox(cls, value: str) -> str:
        try:
            if value:  # when it is empty, `loader` puts EMAIL in its place
                parse_mailbox(value, "EMAIL_FROM")
        except InvalidArgument as error:
            raise broken_rule(error.description) from None
        return value


def sender_key(entry: str) -> str:
    """The key of an address, or `@` and a domain as it ends the keys of its addresses."""
    if entry.startswith("@"):
        return parse_address(f"x{entry}", entry).key.removeprefix("x")
    if entry.startswith("*@"):  # a mailbox of that name, but other programs mean a whole domain
        raise InvalidArgument(entry, "is not written with an asterisk")
    return parse_address(entry, entry).key
