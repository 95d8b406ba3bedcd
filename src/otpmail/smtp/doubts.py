"""Judges what is certain about the mails in flight when a session ends. No I/O."""

from collections.abc import Iterable

from otpmail.errors import ConnectionLost
from otpmail.smtp.transaction import Transaction


class Doubts:
    """The reasons not to believe what a relay said.

    `goes_on` is whether it answered more after its goodbye, or did not close. `out_of_step` is whether the session
    ended with replies and commands out of step. `over_reset` is whether it ended over a refused RSET, and so over none
    of the mails that are left.
    """

    def __init__(self) -> None:
        self.goes_on = False
        self.out_of_step = self.over_reset = False

    def __repr__(self) -> str:
        return f"<Doubts goes_on={self.goes_on}, out_of_step={self.out_of_step}>"

    def unsettle(self, settled: Iterable[Transaction], cause: str) -> None:
        """Take back the outcomes of the read that revealed a reply too many: it may not have been the first such."""
        self.out_of_step = True
        for transaction in settled:
            transaction.doubt(cause)

    def lose(self, transaction: Transaction, cause: str, *, said_goodbye: bool, first: bool) -> None:
        """Set the outcome of a mail that the relay has not decided; `first` is whether it is the first in flight.

        The relay cannot have a mail whose last octet never left, nor one behind its goodbye if it kept to that. A mail
        for more recipients than it takes at once goes to fewer, which is another mail.
        """
        certain = (said_goodbye and not self.goes_on) or not transaction.written
        if certain and said_goodbye:
            transaction.note_limit()
        is_another = not first or self.over_reset or transaction.limit > 0
        offered = transaction.envelope.recipients
        transaction.outcome = ConnectionLost(
            cause, uncertain=not certain, not_started=certain and is_another, offered=offered
        )
