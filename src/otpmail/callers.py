"""The caller of a request, and what is known of the call. `rpc` makes both, and every use case requires them."""

from otpmail.values import frozen


@frozen()
class Caller:
    """A service that calls, by the name under which its codes, mails and request ids are kept."""

    name: str


@frozen()
class Call:
    """One call of a caller.

    `peer` is the address that gRPC reports (`ipv4:127.0.0.1:40000`, `unix:`). `deadline` is when the caller stops
    waiting, in seconds since the epoch, None where it set no deadline. `source` tells who takes turns with others: an
    anonymous caller's connection or stream. It is empty for a caller with a name, whose calls are all of one source.
    """

    caller: Caller
    peer: str
    deadline: float | None = None
    source: str = ""


ANONYMOUS = Caller("anonymous")
"""Every caller, as long as the service asks none for a token or a certificate."""
