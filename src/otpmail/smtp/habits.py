"""Keeps what the sessions with one relay have learned about it, and share. Pure."""

from collections.abc import Callable

from otpmail.model import Envelope
from otpmail.smtp.capabilities import Capabilities
from otpmail.smtp.recipient_limit import RecipientLimit
from otpmail.smtp.transaction import Transaction


class Habits:
    """The ways of one relay that differ: how many `recipients` it takes at once, and whether it `resets` by RSET.

    `on_reset_refused` is called once, when it turns out that it does not.
    """

    def __init__(
        self, recipients: RecipientLimit | None = None, on_reset_refused: Callable[[], None] = lambda: None
    ) -> None:
        self.recipients = recipients or RecipientLimit()
        self.resets = True
        self._on_reset_refused = on_reset_refused

    def __repr__(self) -> str:
        return f"<Habits {self.recipients!r}{'' if self.resets else ', no RSET'}>"

    def first_of(self, envelope: Envelope, capabilities: Capabilities) -> Envelope:
        """Return the mail for as many of its recipients as the relay takes in one transaction."""
        recipients = envelope.recipients
        first = capabilities.first_of(recipients, self.recipients.most(len(recipients)))
        return envelope if len(first) == len(recipients) else envelope.only(first)

    def forgo_resets(self) -> None:
        """Note that the relay refuses RSET."""
        if self.resets:
            self.resets = False
            self._on_reset_refused()

    def learn(self, transaction: Transaction) -> None:
        """Note how many recipients the relay took in a transaction that is over."""
        if transaction.limit:
            self.recipients.reached(transaction.limit)
        elif transaction.is_taken:
            self.recipients.took(transaction.accepted)
