"""Which kind of transaction sends a mail, and how many may be in flight, where a relay may refuse RSET."""

from otpmail.smtp.bdat import BdatTransaction
from otpmail.smtp.data import DataTransaction, SingleTransaction
from otpmail.smtp.mode import Mode
from otpmail.smtp.plain import PlainTransaction
from otpmail.smtp.transaction import Transaction


def way_to_send(mode: Mode, window: int, *, resets: bool) -> tuple[Mode, int, type[Transaction]]:
    """Return the mode, the window and the kind of transaction for a relay that may have `window` mails in flight.

    A relay that refuses RSET gets one mail at a time, by DATA at the fastest.
    """
    if not resets:
        mode, window = mode.slower(Mode.DATA), 1
    match mode:
        case Mode.BDAT:
            kind: type[Transaction] = BdatTransaction
        case Mode.DATA:
            kind = DataTransaction if resets else SingleTransaction
        case Mode.PLAIN:
            kind = PlainTransaction
    return mode, mode.window(window), kind
