"""A submission (RFC 6409): a mail that a caller wants sent, and on what terms."""

from dataclasses import field

from otpmail.callers import Caller
from otpmail.compose.draft import Draft
from otpmail.errors import PermissionDenied
from otpmail.model import IssuedCode, Labels, Priority, WaitFor
from otpmail.values import frozen


@frozen(kw_only=True)
class Submission:
    """A draft and its terms.

    `ttl` is in seconds, None for the default. A repeated `request_id` must come with the same `fingerprint`. `labels`
    are good: see `mail.labels`.
    """

    draft: Draft
    priority: Priority = Priority.NORMAL
    wait_for: WaitFor = WaitFor.RELAY
    ttl: float | None = None
    request_id: str = ""
    fingerprint: bytes = b""
    issued: IssuedCode | None = None
    labels: Labels = field(default=(), repr=False)
    relay: str = ""
    """The only relay that the mail may go to, empty for any."""


def priority_denied(caller: Caller, priority: Priority) -> PermissionDenied:
    """Return the error for a caller that may not send mails of that priority."""
    name = priority.name.lower()
    return PermissionDenied(
        f"priority: {caller.name} may not send {name} mails; add {name} to `priorities` in {caller.place}"
    )
