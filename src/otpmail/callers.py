"""The callers, what each may do, and what is known of a call. `api` makes a `Call`, and every use case requires it."""

import json
import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import field
from pathlib import Path
from typing import Self

from otpmail.address import Address
from otpmail.model import Priority
from otpmail.product import Product
from otpmail.values import frozen

TRACEPARENT, REQUEST_ID = TRACE_KEYS = ("traceparent", "x-request-id")
"""The metadata with which callers find their calls in logs: that of W3C Trace Context, and the one that proxies set."""

CERTIFICATE_PREFIX = "cert:"
"""The start of the name of a caller that only its certificate names; no name in CALLERS_FILE holds a colon."""

_LONGEST_ID = 256  # characters that are kept of an id
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")  # of TOML; other keys are in quotes

Metadata = Sequence[tuple[str, str | bytes]]


@frozen()
class Shares:
    """The most of QUEUE_SIZE, and of the memory for mails, that a caller's mails may take; 1 is all of it."""

    queue: float = 1.0
    memory: float = 1.0


@frozen()
class Rates:
    """The most mails without codes that a caller may send, in any hour and in any day; None is no limit."""

    mails_per_hour: int | None = None
    mails_per_day: int | None = None


@frozen()
class TableKey:
    """A key of CALLERS_FILE: its `name` as the table of a caller has it, and the `table` where it stands, in words."""

    name: str
    table: str

    @property
    def place(self) -> str:
        """The key and its table, in words."""
        return f"{self.name.rpartition('.')[2]} in {self.table}"


@frozen()
class FixedCode:
    """The code of a test address, which is good until a time in seconds since the epoch."""

    code: str = field(repr=False)
    until: float


@frozen(kw_only=True)
class Profile:
    """The terms of a caller's codes for a purpose. None leaves a term to the settings.

    `length` is that of `model.Challenge`. Seconds are as in the settings. `test_addresses` are keys of addresses.
    """

    length: int | None = None
    lifespan: float | None = None
    attempts: int | None = None
    resend: float | None = None
    sender: Address | None = None
    templates: Path | None = None
    product: Product | None = None
    relay: str = ""
    failures_per_hour: int | None = None
    failures_per_day: int | None = None
    sends_per_hour: int | None = None
    sends_per_day: int | None = None
    test_addresses: Mapping[str, FixedCode] = field(default_factory=dict, hash=False)


ANY_PURPOSE = "*"
"""In place of a purpose: the profile of those that have none of their own."""


@frozen(kw_only=True)
class Permissions:
    """The permissions of a caller. None sets no limit: all methods, and the addresses of EMAIL_FROM_ALLOWED.

    `methods` are paths as gRPC writes them (`/otpmail.v1.OtpService/SendCode`). `senders` and `return_paths` are keys
    of addresses, or `@` with a domain, which stands for all of its addresses. EMAIL_FROM may be used in any case. With
    `operate` it may look up, cancel and retry the mails of all callers.
    `codes_per_hour` counts in place of OTP_SENDS_PER_CALLER_HOUR, and `guesses_per_hour` in place of
    OTP_FAILURES_PER_CALLER_HOUR. `profiles` are by purpose, `ANY_PURPOSE` for others:
    there are no codes for a purpose without one.
    """

    methods: frozenset[str] | None = None
    senders: frozenset[str] | None = None
    return_paths: frozenset[str] | None = None
    priorities: tuple[Priority, ...] = tuple(Priority)
    shares: Shares | None = None
    operate: bool = False
    codes_per_hour: int | None = None
    guesses_per_hour: int | None = None
    profiles: Mapping[str, Profile] | None = field(default=None, hash=False)
    rates: Rates | None = None


@frozen()
class Caller:
    """A service that calls, by the name under which its codes, mails and request ids are kept."""

    name: str
    may: Permissions = field(default_factory=Permissions, repr=False)

    @property
    def place(self) -> str:
        """Where an operator can allow this caller more."""
        if self.name == ANONYMOUS.name:
            return "[anonymous] of CALLERS_FILE"
        if self.name.startswith(CERTIFICATE_PREFIX):
            return "a table for its certificate in CALLERS_FILE"
        return f"{table_of(self.name)} of CALLERS_FILE"


def table_of(name: str) -> str:
    """Return the head of the table of a caller, as CALLERS_FILE has it."""
    return head_of("callers", name)


def head_of(*path: str) -> str:
    """Return the head of a table of CALLERS_FILE, by the keys that lead to it."""
    return f"[{'.'.join(map(toml_key, path))}]"


def toml_key(key: str) -> str:
    """Return a key as a file may have it, on one line, and without characters that a terminal would obey."""
    return key if _BARE_KEY.fullmatch(key) else json.dumps(key, ensure_ascii=not key.isprintable())


@frozen()
class Callers:
    """All callers: of each token by its SHA-256, and of each certificate by its subject or one of its other names.

    A name of a certificate is `subject:`, `dns:`, `uri:`, `email:` or `ip:`, and the name itself. Without an
    `anonymous` caller each call needs a token or a certificate.
    """

    by_token: Mapping[bytes, Caller] = field(repr=False)
    by_certificate: Mapping[str, Caller]
    anonymous: Caller | None = None


@frozen()
class Trace:
    """The ids with which a caller finds its call in logs: cut, but not checked before a line is logged."""

    traceparent: str = ""
    request_id: str = ""

    @classmethod
    def read(cls, metadata: Metadata) -> Self:
        """Return the ids in a call's metadata; of one that comes several times, the first."""
        found = {key: str(value)[:_LONGEST_ID] for key, value in reversed(metadata) if key in TRACE_KEYS}
        return cls(found.get(TRACEPARENT, ""), found.get(REQUEST_ID, ""))


NO_TRACE = Trace()

TRACE: ContextVar[Trace] = ContextVar("TRACE", default=NO_TRACE)
"""The ids of the call in whose task code runs. Timers keep it for as long as they run, so it must stay small."""


@frozen()
class Call:
    """One call of a caller.

    `peer` is the address that gRPC reports (`ipv4:127.0.0.1:40000`, `unix:`). `deadline` is when the caller stops
    waiting, in seconds on the monotonic clock, None where it set no deadline. `source` tells who takes turns with
    others: an anonymous caller's connection or stream. It is empty for a caller with a name, whose calls are all of one
    source. `trace` goes with each of its mails, for the log.
    """

    caller: Caller
    peer: str
    deadline: float | None = None
    source: str = ""
    trace: Trace = NO_TRACE


ANONYMOUS = Caller("anonymous")
"""Every caller, as long as the service asks none for a token or a certificate."""

CALLER: ContextVar[Caller] = ContextVar("CALLER", default=ANONYMOUS)
"""The caller of the call in whose task code runs."""
