"""A mail by BDAT: `MAIL RCPT.. BDAT n LAST <content> RSET` in one flight (RFC 3030)."""

from otpmail.smtp import commands
from otpmail.smtp.output import LARGE, Output
from otpmail.smtp.replies import Reply
from otpmail.smtp.transaction import Awaits, Due, SessionEnded, Transaction


class BdatTransaction(Transaction):
    """`MAIL RCPT.. BDAT n LAST <content> RSET` in one flight, the next mail's behind it without waiting (RFC 3030)."""

    __slots__ = ()
    _AFTER_RECIPIENTS = Awaits.FINAL

    @property
    def due(self) -> Due:
        """Once all of it is written, its judgement: a relay may hold replies back till then (RFC 2920, 3.2)."""
        return Due.CONTENT if self.written else super().due

    @property
    def lets_next_start(self) -> bool:
        """At any time."""
        return True

    def start(self, output: Output, *, reset_first: bool) -> None:  # noqa: ARG002  a RSET stands behind each mail
        """Write all of it."""
        self.begun = True
        envelope = self.envelope
        content = envelope.content
        size, owed = len(content), len(envelope.recipients) + 2  # replies to MAIL, each RCPT, BDAT
        head = commands.mail_and_rcpts(envelope, self.capabilities) + b"BDAT %d LAST\r\n" % size
        if size < LARGE:
            output.push(b"".join((head, content, commands.RSET)), self, replies=owed + 1, behind=len(commands.RSET))
        else:  # not copied
            output.push(head, replies=owed)
            output.push(content, self, replies=0)
            output.push(commands.RSET)

    def _read_final_reply(self, reply: Reply) -> None:
        if reply.code < 300 and self.is_refused and self.written:
            raise SessionEnded("the relay took a mail that it had refused for everybody", reply, doubtful=True)
        super()._read_final_reply(reply)
