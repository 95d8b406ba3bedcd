"""Code records as tests of stores need them: one slot, and one lane."""

from otpmail.code_record import CodeRecord, Lane, Slot
from otpmail.model import Challenge
from otpmail.store.challenges import NO_SCOPE


def a_record(
    expires: float = 1120.0, attempts: int = 0, *, failures: tuple[float, ...] = (1000.0,), next_send: float = 1030.0
) -> CodeRecord:
    """Return the record of an address with one live code."""
    challenge = Challenge(bytes(range(16)), "k1", expires, attempts, 6)
    lanes = (Lane(failures=failures),) if failures else ()
    return CodeRecord((Slot(NO_SCOPE, challenge=challenge, next_send=next_send),), lanes)


def spaced(next_send: float) -> CodeRecord:
    """Return a record without a live code, in which a mail has to wait."""
    return CodeRecord((Slot(NO_SCOPE, next_send=next_send),))


def failed(*times: float) -> CodeRecord:
    """Return a record of failures alone."""
    return CodeRecord(lanes=(Lane(failures=times),))
