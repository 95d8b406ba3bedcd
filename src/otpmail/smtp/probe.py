"""Whether a relay discards a chunk that it refuses, or runs it as commands. Asked once a connection, before any mail.

By BDAT a mail's content is on its way before the relay has taken a recipient. If the relay takes none it must discard
the content (RFC 3030, 2). A relay that does not would run a mail's content as commands.
"""

from enum import Enum, auto

from otpmail.smtp.replies import Reply

# A relay that discards the chunk it refuses answers this twice. One that runs the chunk as commands answers the chunk
# as well, and never with 250, since no relay knows the verb (RFC 5321, 4.1.5 and 4.2.4). So the second reply tells them
# apart. A known verb would not: some relays answer HELP with 250, and their third reply would reach the first mail.
QUESTION = b"BDAT 6 LAST\r\nXNIL\r\nRSET\r\n"


class Verdict(Enum):
    """The relay's behaviour, by the replies so far."""

    OPEN = auto()
    DISCARDS = auto()
    RUNS = auto()
    UNUSABLE = auto()  # it runs chunks, and did not answer RSET with 250


class Probe:
    """The replies to the question, one by one."""

    def __init__(self) -> None:
        self._replies: list[Reply] = []

    def read(self, reply: Reply) -> Verdict:
        """Note the next reply; returns the verdict with it."""
        self._replies.append(reply)
        count, refused = len(self._replies), self._replies[0].code >= 400
        if count == 2 and refused and reply.code == 250:
            return Verdict.DISCARDS
        if (count == 2 and not refused) or count == 3:
            return Verdict.RUNS if reply.code == 250 else Verdict.UNUSABLE
        return Verdict.OPEN
