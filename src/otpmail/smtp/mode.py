"""How mails are sent on a connection, by the capabilities of the relay and by EMAIL_MODE."""

from enum import StrEnum

from otpmail.smtp.capabilities import Capabilities


class Mode(StrEnum):
    """How mails are sent on a connection, from the fastest to the slowest."""

    BDAT = "bdat"
    DATA = "data"
    PLAIN = "plain"

    @classmethod
    def of(cls, capabilities: Capabilities) -> "Mode":
        """The fastest mode that a relay's capabilities allow."""
        if "PIPELINING" not in capabilities:
            return cls.PLAIN
        return cls.BDAT if "CHUNKING" in capabilities else cls.DATA

    @classmethod
    def allowed_by(cls, setting: str) -> "Mode":
        """The fastest mode that EMAIL_MODE allows."""
        return cls.BDAT if setting == "auto" else cls(setting)

    def slower(self, other: "Mode") -> "Mode":
        """The slower one of two."""
        return max(self, other, key=list(Mode).index)

    def window(self, wanted: int) -> int:
        """How many of the `wanted` mails may be in flight: with DATA one content, and the commands of the next mail."""
        return min(wanted, {Mode.BDAT: wanted, Mode.DATA: 2, Mode.PLAIN: 1}[self])

    @property
    def round_trips(self) -> int:
        """Round trips until the result of a mail for one recipient, on an idle connection."""
        return {Mode.BDAT: 1, Mode.DATA: 2, Mode.PLAIN: 4}[self]
