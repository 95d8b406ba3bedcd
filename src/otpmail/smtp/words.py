"""What a session may repeat of a relay's words: on one line, without the secrets that were sent there. No I/O."""

from collections.abc import Collection

from otpmail.smtp.redaction import Redactor
from otpmail.smtp.replies import Reply, describe
from otpmail.smtp.transaction import Transaction


class Words:
    """Redacts what the relay says outside a mail, which may quote any mail of the session.

    `flights` are the mails in flight, whose codes are known. Those of earlier mails are not kept, so once
    `may_quote_codes` is set every number that could be one is masked.
    """

    def __init__(self, redactor: Redactor, flights: Collection[Transaction]) -> None:
        self.redactor = redactor
        self.may_quote_codes = False
        self._flights = flights

    def __repr__(self) -> str:
        return f"<Words {self.redactor!r}>"

    def line(self, words: bytes) -> str:
        """Return octets that are no reply."""
        return self.redactor.line(words.decode("utf-8", "replace"), self._codes, masks_numbers=self.may_quote_codes)

    def of(self, reply: Reply) -> str:
        """Return a reply, with its code."""
        return describe(reply, self.redactor, self._codes, masks_numbers=self.may_quote_codes)

    @property
    def _codes(self) -> list[str]:
        return [code for transaction in self._flights if (code := transaction.envelope.code)]
