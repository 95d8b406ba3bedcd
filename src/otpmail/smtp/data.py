"""A mail by DATA: `MAIL RCPT.. DATA` in one flight, then the content, with the next mail's commands (RFC 2920, 3.1)."""

from otpmail.smtp import commands
from otpmail.smtp.output import LARGE, Output
from otpmail.smtp.replies import Reply
from otpmail.smtp.transaction import Awaits, SessionEnded, Transaction


class DataTransaction(Transaction):
    """`MAIL RCPT.. DATA` in one flight; `<content> . RSET` and the next mail's commands in another (RFC 2920, 3.1)."""

    __slots__ = ()
    _AFTER_RECIPIENTS = Awaits.GO_AHEAD

    @property
    def lets_next_start(self) -> bool:
        """Once its content is written, or DATA was refused: a content may open a group of commands."""
        return self.awaits in {Awaits.FINAL, Awaits.RESET, Awaits.NOTHING}

    def start(self, output: Output, *, reset_first: bool) -> None:  # noqa: ARG002  a RSET stands behind each mail
        """Write the commands up to DATA."""
        self.begun = True
        head = commands.mail_and_rcpts(self.envelope, self.capabilities) + commands.DATA
        output.push(head, replies=len(self.envelope.recipients) + 2)

    def read(self, reply: Reply, output: Output) -> None:
        """Read the next reply, of which one is to DATA itself."""
        if self.awaits is Awaits.GO_AHEAD:
            self._read_go_ahead(reply, output)
        else:
            super().read(reply, output)

    def _read_go_ahead(self, reply: Reply, output: Output) -> None:
        if reply.code == 354:
            self._write_content(output)
            self.awaits = Awaits.FINAL
        else:
            if reply.code < 400:
                raise SessionEnded("unexpected reply to DATA", reply, doubtful=True)
            self.final = reply
            self.awaits = self._AFTER_FINAL
        if self._AFTER_FINAL is Awaits.RESET:
            output.push(commands.RSET)

    def _write_content(self, output: Output) -> None:
        content = self.envelope.content
        if not self.is_refused:
            if len(content) < LARGE:
                output.push(commands.stuffed(content), self)
            else:  # not copied
                output.push(commands.Stuffed(content))
                output.push(commands.end_of(content), self, replies=0)
        elif self.accepted:
            raise SessionEnded("the relay refused the sender, and then took recipients and content", doubtful=True)
        else:
            output.push(commands.NO_CONTENT, self)  # the relay asks for the content of a mail that it takes for nobody


class SingleTransaction(DataTransaction):
    """A mail by DATA to a relay that refuses RSET: nothing follows it, and nothing goes on with it."""

    __slots__ = ()
    _AFTER_FINAL = Awaits.NOTHING

    @property
    def lets_next_start(self) -> bool:
        """When it is over."""
        return self.awaits is Awaits.NOTHING
