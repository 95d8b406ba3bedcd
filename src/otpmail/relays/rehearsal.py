"""Rehearses a mail on a connection that is signed in: MAIL, RCPT and RSET, so that nothing is sent."""

from typing import NamedTuple

from otpmail.model import RecipientResult
from otpmail.relays.dial import SignedIn
from otpmail.relays.opening import FAILURES, failure
from otpmail.relays.refusal import read_reply
from otpmail.settings import RelaySettings
from otpmail.smtp.reply_kind import Command


class Step(NamedTuple):
    """One command of a rehearsal, its line, and what the relay replied."""

    command: Command
    line: str
    reply: RecipientResult

    @property
    def is_good(self) -> bool:
        """Whether the relay took the command (RFC 5321, 4.2.1: by the first digit)."""
        return self.reply.code // 100 == 2


async def rehearse(signed_in: SignedIn, sender: str, settings: RelaySettings) -> list[Step]:
    """Offer the relay a mail from `sender`, in wire form, to itself, and take that back before its content.

    Relays tell what they refuse about the name in EHLO and the sender only then. The last step is the first that the
    relay refuses, if any. Raises ConnectFailed when the relay ends the connection without a reply.
    """
    needs_smtputf8 = not sender.isascii() and "SMTPUTF8" in signed_in.capabilities
    lines = {
        Command.MAIL: f"MAIL FROM:<{sender}>{' SMTPUTF8' if needs_smtputf8 else ''}",
        Command.RCPT: f"RCPT TO:<{sender}>",
    }
    steps: list[Step] = []
    try:
        for command, line in lines.items():
            reply = await _ask(signed_in, line)
            steps.append(Step(command, line, reply))
            if not steps[-1].is_good:
                break
        if signed_in.client.is_connected:
            await _ask(signed_in, "RSET")
    except FAILURES as error:
        if not steps or steps[-1].is_good:
            raise failure(error, settings, signed_in.redactor) from None
    return steps


async def _ask(signed_in: SignedIn, line: str) -> RecipientResult:
    reply = await signed_in.client.execute_command(line.encode())
    return read_reply(reply.code, reply.message, signed_in.redactor)
