"""The caller of a request, and what is known of the call. `rpc` makes both, and every use case requires them."""

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Self

from otpmail.values import frozen

TRACEPARENT, REQUEST_ID = TRACE_KEYS = ("traceparent", "x-request-id")
"""The metadata with which callers find their calls in logs: that of W3C Trace Context, and the one that proxies set."""

_LONGEST_ID = 256  # characters that are kept of an id

Metadata = Sequence[tuple[str, str | bytes]]


@frozen()
class Caller:
    """A service that calls, by the name under which its codes, mails and request ids are kept."""

    name: str


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
    waiting, in seconds since the epoch, None where it set no deadline. `source` tells who takes turns with others: an
    anonymous caller's connection or stream. It is empty for a caller with a name, whose calls are all of one source.
    `trace` goes with each of its mails, for the log.
    """

    caller: Caller
    peer: str
    deadline: float | None = None
    source: str = ""
    trace: Trace = NO_TRACE


ANONYMOUS = Caller("anonymous")
"""Every caller, as long as the service asks none for a token or a certificate."""
