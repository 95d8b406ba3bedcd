"""The words of a relay that a session may repeat: on one line, without the secrets that were sent there. No I/O."""

from collections import deque
from collections.abc import Collection

from otpmail.model import RecipientResult
from otpmail.smtp.redaction import Redactor
from otpmail.smtp.replies import MalformedReply, Reply, describe, result
from otpmail.smtp.transaction import SessionEnded, Transaction

_MOST_RECENT = 16


class Words:
    """Redacts what the relay says outside a mail, which may quote any mail of the session.

    `flights` are the mails in flight, whose codes are known, as are the last codes, which go into `recent`. Those of
    earlier mails are not kept, so once there was a code every number that could be one is masked. The `redactor` is for
    replies about a mail. It knows the last codes too: a relay may quote the mail of which it takes this for a copy.
    """

    def __init__(self, redactor: Redactor, flights: Collection[Transaction]) -> None:
        self.recent = deque[str](maxlen=_MOST_RECENT)
        self.parting = RecipientResult("")  # the reply with which the relay ends the session; without a code, none yet
        self.redactor = redactor.remembering(self.recent)
        self._flights = flights

    def __repr__(self) -> str:
        return f"<Words {self.redactor!r}>"

    def line(self, words: bytes) -> str:
        """Return octets that are no reply."""
        return self.redactor.line(words.decode("utf-8", "replace"), self._codes, masks_numbers=bool(self.recent))

    def part(self, reply: Reply) -> str:
        """Keep the reply with which the relay ends the session as `parting`, and return it with its code."""
        self.parting = result("", reply, self.redactor)
        return describe(reply, self.redactor, self._codes, masks_numbers=bool(self.recent))

    def about(self, error: MalformedReply | SessionEnded) -> str:
        """Return why a session ends, with what the relay said, which is kept as `part` does."""
        if isinstance(error, MalformedReply):
            said = self.line(error.line)
        else:
            said = self.part(error.reply) if error.reply else ""
        return f"{error}: {said}" if said else str(error)

    @property
    def _codes(self) -> list[str]:
        return [code for transaction in self._flights if (code := transaction.envelope.code)]
