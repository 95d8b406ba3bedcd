"""How much a store remembers of settled mails, request ids and addresses, and for how long."""

from math import inf
from sys import maxsize

from otpmail.values import frozen

REQUEST_SECONDS = 24 * 3600.0
MOST_REQUESTS = 200_000


@frozen()
class Retention:
    """The most that a store remembers."""

    count: int
    """Settled mails. SQLite and Redis count those with a request id apart, by `request_count`."""
    seconds: float = inf
    """How long after its end a settled mail is remembered."""
    octets: int = maxsize
    """The memory that settled mails and request ids take here, and what contents for retries take where they are kept.
    """
    request_seconds: float = REQUEST_SECONDS
    """How long after its mail was accepted a repeated request id finds it."""
    request_count: int = MOST_REQUESTS
    """Settled mails that their request ids find."""
    addresses: int = maxsize
    """Addresses that are suppressed, or known to have been."""
    address_octets: int = maxsize
    """The memory that those take."""
