"""Whether a relay reads past a chunk that it refuses, or runs it as commands. Asked once a connection, with no mail.

By BDAT a mail's content is on its way before the relay has taken a recipient; where it takes none it must discard the
content (RFC 3030, 2). One that does not would run what a mail says as commands.
"""

from enum import Enum, auto

from otpmail.smtp.replies import Reply

# A relay that reads past the chunk it refuses answers this twice. One that runs the chunk as commands answers that as
# well, and never with 250, since no relay knows the verb (RFC 5321, 4.1.5 and 4.2.4): so the second reply says which it
# is. One that is known would not do: some answer HELP with 250, and their third reply would reach the first mail.
QUESTION = b"BDAT 6 LAST\r\nXNIL\r\nRSET\r\n"


class Verdict(Enum):
    """What the replies so far say."""

    OPEN = auto()
    DISCARDS = auto()
    RUNS = auto()
    UNUSABLE = auto()  # it runs them, and RSET was not answered with 250


class Probe:
    """The replies to the question, one by one."""

    def __init__(self) -> None:
        self._replies: list[Reply] = []

    def hear(self, reply: Reply) -> Verdict:
        """Take note of a reply, and say what it makes of the relay."""
        self._replies.append(reply)
        count, refused = len(self._replies), self._replies[0].code >= 400
        if count == 2 and refused and reply.code == 250:
            return Verdict.DISCARDS
        if (count == 2 and not refused) or count == 3:
            return Verdict.RUNS if reply.code == 250 else Verdict.UNUSABLE
        return Verdict.OPEN
