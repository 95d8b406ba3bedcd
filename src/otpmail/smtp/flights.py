"""The mails of one session that are in flight, in their order, and which of them may settle. No I/O."""

from collections import deque
from collections.abc import Sequence

from otpmail.smtp import commands
from otpmail.smtp.output import Output
from otpmail.smtp.transaction import Awaits, Transaction

_NOTHING, _CHECK = Awaits.NOTHING, Awaits.CHECK


class Flights(deque[Transaction]):
    """Transactions that have begun and not ended.

    A refused RSET may be the true reply to a content, one place late. The first `unchecked` mails have had all their
    replies since such a one. They wait until the others have theirs too, so that a check can tell.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unchecked = 0

    def __repr__(self) -> str:
        return f"<Flights {len(self)}, {self.unchecked} unchecked>"

    @property
    def current(self) -> Transaction:
        """The mail whose reply is due; the first one for the reply to the check."""
        return self[self.unchecked if self.unchecked < len(self) else 0]

    @property
    def next_is_unwritten(self) -> bool:
        """Whether the content of a mail behind those that have had all replies can still be held back."""
        return self.unchecked < len(self) and not self.current.written

    def start_next(self, output: Output, *, reset_first: bool) -> None:
        """Start the mails whose commands may go now; not by BDAT, where all may at once."""
        ahead: Transaction | None = None
        for transaction in self:
            if not transaction.begun and (ahead is None or ahead.lets_next_start):
                transaction.start(output, reset_first=reset_first)
            ahead = transaction

    def take_completed(self, output: Output) -> Sequence[Transaction]:
        """Take out those that may settle, after a reply to the current one; write the check once all others have."""
        current = self.current
        if current.awaits not in {_NOTHING, _CHECK}:
            return ()
        if self.unchecked == len(self):  # it was the reply to the check
            completed = tuple(self)
            self.clear()
            return completed
        if current.awaits is _NOTHING and not self.unchecked:
            return (self.popleft(),)
        self.unchecked += 1
        if self.unchecked == len(self):
            output.push(commands.UNKNOWN)
        return ()

    def clear(self) -> None:
        """Take all out."""
        super().clear()
        self.unchecked = 0
