"""Requests of the store to its writer thread about mails and request ids, as values that need nothing of the loop."""

from dataclasses import field
from enum import IntEnum

from otpmail.values import frozen


class RequestState(IntEnum):
    """The fate of a request id."""

    RUNNING = 0
    """Its mail has not settled."""
    ORPHANED = 1
    """The process ended before its mail was accepted or decided."""
    SETTLED = 2
    FREE = 3
    """Its mail has settled undecided: it is found, and a repeated request counts as new."""


@frozen()
class Claim:
    """A request id by its `key` (`requests.request_key`), and the mail for which it is claimed.

    `fingerprints` are the forms that its fingerprint may have in the file, the one to write first. Times are seconds
    since the epoch.
    """

    key: int = field(repr=False)
    fingerprints: list[bytes] = field(repr=False)
    mail_id: str
    seq: int
    now: float
    ends: float


@frozen()
class Acceptance:
    """A mail to keep, as octets that are not encrypted yet."""

    seq: int
    mail_id: str
    priority: int
    deadline: float
    octets: bytes = field(repr=False)
    claim: Claim | None


@frozen()
class Content:
    """The content of a settled mail, to keep until `ends`: its entry and its progress as octets, not encrypted yet.

    Where the file has the mail, what it has there stays in place of `entry`.
    """

    ends: float
    entry: bytes = field(repr=False)
    progress: bytes = field(repr=False)


@frozen()
class Settlement:
    """A settled mail, which its id finds until `forgotten`, and a repeated request id until `request_ends`.

    That is 0 where none does. `request` is the key of its request id.
    """

    seq: int
    mail_id: str
    caller: str
    octets: bytes = field(repr=False)
    request: int | None = field(repr=False)
    request_ends: float
    forgotten: float
    content: Content | None = field(default=None, repr=False)
