"""A mail to a relay without PIPELINING: a command at a time (RFC 5321)."""

from otpmail.smtp import commands
from otpmail.smtp.data import SingleTransaction
from otpmail.smtp.output import Output
from otpmail.smtp.replies import CLOSING, Reply
from otpmail.smtp.transaction import Awaits, SessionEnded, is_accepted


class PlainTransaction(SingleTransaction):
    """A command at a time (RFC 5321), with RSET only before a mail that follows one which did not end well."""

    __slots__ = ()

    def start(self, output: Output, *, reset_first: bool) -> None:
        """Write the first command."""
        self.begun = True
        if reset_first:
            self.awaits = Awaits.RESET_BEFORE
            output.push(commands.RSET)
        else:
            output.push(commands.mail(self.envelope, self.capabilities))

    def read(self, reply: Reply, output: Output) -> None:
        """Read the next reply, and write the next command."""
        if self.awaits is Awaits.RESET_BEFORE:
            if not is_accepted(reply) and reply.code != CLOSING:
                self.reset_refused = True
                raise SessionEnded("the relay refuses RSET", reply, doubtful=False)  # the mail before it has its reply
            self.awaits = Awaits.MAIL
            output.push(commands.mail(self.envelope, self.capabilities))
        else:
            super().read(reply, output)

    def _read_mail_reply(self, reply: Reply, output: Output) -> None:
        super()._read_mail_reply(reply, output)
        if self.refusal is not None:
            self.awaits = Awaits.NOTHING
        else:
            output.push(commands.rcpt(self.envelope.recipients[0]))

    def _read_rcpt_reply(self, reply: Reply, output: Output) -> None:
        super()._read_rcpt_reply(reply, output)
        if self.awaits is not Awaits.GO_AHEAD:
            output.push(commands.rcpt(self.envelope.recipients[len(self.replies)]))
        elif self.accepted:
            output.push(commands.DATA)
        else:
            self.awaits = Awaits.NOTHING
