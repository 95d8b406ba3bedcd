"""The state of the codes of an address, as a store keeps it. The rules that change it are in `otp.policy`."""

from otpmail.model import Challenge, Check
from otpmail.values import frozen


@frozen()
class Replaced:
    """The challenge that the live one has replaced, and the mails with the live one that may have been sent.

    A mail is named by the next send that goes with it (`Sending`). Once none is left, the challenge is live again.
    """

    challenge: Challenge
    mails: tuple[float, ...]


NO_CALL = bytes(4)
"""In place of the mark of a call, where no mail is waited for."""

CALL = slice(-len(NO_CALL), None)
"""The part of the id of a fresh challenge that marks the call which brings it; a record has room for no more."""


STRANGERS = bytes(8)
"""In place of a device: all who show no token of one share a lane."""

RELEASED = b"released"
"""In place of a device: the lane of what was spent when the budgets of an address were released, which no limit counts.

Its failure is the moment of that, if records of an earlier version may be there: theirs from before count no more.
Its mails are those that counted until then, so that one which is not sent leaves the other limits that it counts for.
"""


@frozen()
class Slot:
    """The live challenge of one purpose and session (`scope`) and of one device, and when its next mail may be sent.

    `call` is the mark of the call that asked for the latest mail.
    """

    scope: bytes
    device: bytes = STRANGERS
    challenge: Challenge | None = None
    next_send: float = 0.0
    call: bytes = NO_CALL
    replaced: Replaced | None = None


@frozen()
class Lane:
    """The failures and mails of one device, or of all strangers, at an address in a day, the oldest first.

    A failure is noted by its time, a mail by the next send that goes with it.
    """

    device: bytes = STRANGERS
    failures: tuple[float, ...] = ()
    sends: tuple[float, ...] = ()


@frozen()
class Budget:
    """How much of a limit of an address is spent. `setting` is the limit's, `reset_time` when less of it is spent."""

    setting: str
    spent: int
    limit: int
    reset_time: float


@frozen()
class Answer:
    """The answer to the check of a request id, and until when it is given again. `request` is a digest.

    `is_free`: the check cost no attempt and used no code up, so that anybody may have many such answers.
    """

    request: bytes
    check: Check
    until: float
    is_free: bool = False


@frozen()
class EarlierRecord:
    """A record as an earlier version wrote it: one for each purpose."""

    challenge: Challenge | None
    failures: tuple[float, ...]
    next_send: float


@frozen()
class CodeRecord:
    """The record of one (caller, address): its slots in the order of their challenges, its lanes, its latest answers.

    Times are in seconds since the epoch.
    """

    slots: tuple[Slot, ...] = ()
    lanes: tuple[Lane, ...] = ()
    answers: tuple[Answer, ...] = ()
