"""What a session may repeat of a relay's words: on one line, without the secrets that were sent there. No I/O."""

from collections.abc import Collection

from otpmail.smtp.redaction import Forms, Redactor
from otpmail.smtp.replies import Reply, describe
from otpmail.smtp.transaction import Transaction

_MOST_RECENT = 16


class Words:
    """Redacts what the relay says outside a mail, which may quote any mail of the session.

    `flights` are the mails in flight, whose codes are known, as are those of the last mails. Those of earlier ones are
    not kept, so once there was a code every number that could be one is masked. The `redactor` is for replies about a
    mail: it knows the last codes too, since a relay may quote an earlier mail, as one that it takes for a copy.
    """

    def __init__(self, redactor: Redactor, flights: Collection[Transaction]) -> None:
        self._recent: dict[str, Forms] = {}
        self.redactor = redactor.remembering(self._recent)
        self._flights = flights

    def __repr__(self) -> str:
        return f"<Words {self.redactor!r}>"

    def note(self, code: str) -> None:
        """Keep the code of a mail that begins, among the last ones."""
        self._recent.pop(code, None)
        self._recent[code] = Forms(code)
        if len(self._recent) > _MOST_RECENT:
            del self._recent[next(iter(self._recent))]

    def line(self, words: bytes) -> str:
        """Return octets that are no reply."""
        return self.redactor.line(words.decode("utf-8", "replace"), self._codes, masks_numbers=bool(self._recent))

    def of(self, reply: Reply) -> str:
        """Return a reply, with its code."""
        return describe(reply, self.redactor, self._codes, masks_numbers=bool(self._recent))

    @property
    def _codes(self) -> list[str]:
        return [code for transaction in self._flights if (code := transaction.envelope.code)]
