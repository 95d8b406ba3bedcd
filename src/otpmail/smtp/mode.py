"""How mails may travel on a connection, by what the relay announces and what the settings allow."""

from enum import StrEnum

from otpmail.smtp.capabilities import Capabilities


class Mode(StrEnum):
    """How mails travel on a connection, and what that costs."""

    BDAT = "bdat"
    DATA = "data"
    PLAIN = "plain"

    @classmethod
    def of(cls, announcement: Capabilities) -> "Mode":
        """The fastest mode that a relay's extensions allow."""
        if "PIPELINING" not in announcement:
            return cls.PLAIN
        return cls.BDAT if "CHUNKING" in announcement else cls.DATA

    @classmethod
    def allowed_by(cls, setting: str) -> "Mode":
        """The fastest mode that EMAIL_MODE allows."""
        return cls.BDAT if setting == "auto" else cls(setting)

    def slower(self, other: "Mode") -> "Mode":
        """The slower one of two."""
        return max(self, other, key=list(Mode).index)

    def window(self, wanted: int) -> int:
        """How many mails may be in flight at most: DATA has one that is read, and one that is announced behind it."""
        return min(wanted, {Mode.BDAT: wanted, Mode.DATA: 2, Mode.PLAIN: 1}[self])

    @property
    def round_trips(self) -> int:
        """Round trips from handing a mail for one recipient to an idle connection until its result."""
        return {Mode.BDAT: 1, Mode.DATA: 2, Mode.PLAIN: 4}[self]
