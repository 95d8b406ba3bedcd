"""Codes that new ones have replaced, while mails with the new ones are under way: one is live again if none is sent."""

from dataclasses import dataclass

from otpmail.model import Challenge, Sending


@dataclass(slots=True)
class _Replacement:
    replaced: Challenge
    mails: int = 0


class Replacements:
    """Counts the mails of each code that has replaced a live one, until one of them is sent."""

    def __init__(self) -> None:
        self.under_way: dict[bytes, _Replacement] = {}
        """By the id of the new code. While it is empty, only a mail that replaces a code need be counted."""

    def __repr__(self) -> str:
        return f"<Replacements {len(self.under_way)} under way>"

    def begin(self, sending: Sending) -> None:
        """Count the mail of `sending`."""
        code = sending.challenge.id
        if sending.replaced is not None:
            self.under_way[code] = _Replacement(sending.replaced)
        if code in self.under_way:
            self.under_way[code].mails += 1

    def sent(self, sending: Sending) -> None:
        """Forget the replaced code: its successor may be in the mailbox."""
        self.under_way.pop(sending.challenge.id, None)

    def not_sent(self, sending: Sending) -> Challenge | None:
        """Return the replaced code where this was the last mail of its successor, and none was sent."""
        code = sending.challenge.id
        under_way = self.under_way.get(code)
        if under_way is None:
            return None
        under_way.mails -= 1
        if under_way.mails:
            return None
        return self.under_way.pop(code).replaced
