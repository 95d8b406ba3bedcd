"""How long a relay may take for a reply (RFC 5321, 4.5.3.2)."""

from otpmail.smtp.transaction import Due
from otpmail.values import frozen

# For the 5 minutes of MAIL and RCPT, DATA has 2, and a block of the content 3.
_DATA = 2 / 5
_BLOCK = 3 / 5


@frozen()
class Timeouts:
    """The times for one session, in seconds: EMAIL_TIMEOUT, EMAIL_COMMAND_TIMEOUT and EMAIL_FINAL_TIMEOUT."""

    step: float
    command: float
    content: float

    @property
    def least(self) -> float:
        """The shortest of them."""
        return min(self.step, self.command, self.content)

    def of(self, due: Due) -> float:
        """Return the time for the reply that is due."""
        match due:
            case Due.STEP:
                return self.step
            case Due.COMMAND:
                return self.command
            case Due.DATA:
                return _DATA * self.command
            case Due.BLOCK:
                return _BLOCK * self.command
            case Due.CONTENT:
                return self.content
