"""Finds out, once a connection and before any mail, whether a relay discards a refused chunk or runs it as commands.

With BDAT a mail's content leaves before the relay has accepted a recipient. If the relay accepts none, it must discard
the content (RFC 3030, 2). A relay that does not discard it would run a mail's content as commands.
"""

from enum import Enum, auto

from otpmail.smtp import commands
from otpmail.smtp.replies import Reply

# A relay that discards the refused chunk replies to BDAT and RSET. A relay that runs the chunk replies to XNIL as well,
# never with 250, since no relay knows that verb (RFC 5321, 4.1.5 and 4.2.4). The second reply tells the two apart. A
# known verb would not: some relays answer HELP with 250, and their third reply would reach the first mail.
QUESTION = b"BDAT %d LAST\r\n" % len(commands.UNKNOWN) + commands.UNKNOWN + commands.RSET


class Verdict(Enum):
    """How the relay treats a refused chunk, as far as its replies have shown."""

    OPEN = auto()
    DISCARDS = auto()
    RUNS = auto()
    REFUSES_RESET = auto()  # it discards chunks, and does not know RSET
    UNUSABLE = auto()  # it runs chunks, and did not answer RSET with 250


class Probe:
    """Reads the replies to QUESTION, one by one."""

    def __init__(self) -> None:
        self._replies: list[Reply] = []
        self._asked_again = False

    def __repr__(self) -> str:
        return f"<Probe {len(self._replies)} replies>"

    def read(self, reply: Reply) -> Verdict:
        """Read the next reply, and return the verdict that all replies so far give."""
        self._replies.append(reply)
        count, refused = len(self._replies), self._replies[0].code >= 400
        if count == 2 and refused and reply.code == 250:
            return Verdict.DISCARDS
        if count == 3 and self._asked_again:  # 250 is to RSET, and the answer to XNIL is still to come
            return Verdict.OPEN if reply.code == 250 else Verdict.REFUSES_RESET
        if count == 4:
            return Verdict.RUNS
        if (count == 2 and not refused) or count == 3:
            return Verdict.RUNS if reply.code == 250 else Verdict.UNUSABLE
        return Verdict.OPEN

    def follow_up(self) -> bytes:
        """Return what to ask where two refusals have come and no third reply: one may be to RSET, and the last one."""
        if self._asked_again or [reply.code >= 400 for reply in self._replies] != [True, True]:
            return b""
        self._asked_again = True
        return commands.UNKNOWN
