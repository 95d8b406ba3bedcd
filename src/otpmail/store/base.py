"""What the use cases ask of a store, whichever it is. A record changes in one step, by a pure rule."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from otpmail.model import CodeRecord, Mail

T = TypeVar("T")


class ChallengeStore(Protocol):
    """Challenges and budgets, a record for each (caller, purpose, address)."""

    def now(self) -> float:
        """The store's clock, in seconds; every time in a record is read on it."""

    async def update(self, key: bytes, rule: Callable[[CodeRecord | None], tuple[CodeRecord | None, T]]) -> T:
        """Replace the record by what `rule` makes of it, in one step, and return what else the rule says.

        When the rule raises, the record stays as it was.
        """


class MailStore(Protocol):
    """Accepted mails, those of the last while after they settled, and the request ids they came with."""

    async def find(self, caller: str, request_id: str, fingerprint: bytes) -> Mail | None:
        """The mail that came before with this request id, as it was accepted or, once it has settled, as it ended.

        Raises InvalidArgument when it came with another content (its `fingerprint` differs).
        """

    async def add(self, mail: Mail, fingerprint: bytes) -> Mail | None:
        """Keep a mail that is being accepted, or return what `find` finds, in one step."""

    def settle(self, mail: Mail) -> None:
        """Note the final state of a mail. A durable store may write it a little later, together with others."""

    def forget_request(self, mail: Mail) -> None:
        """Nothing was decided of the mail but that time ran out: its request id may come again, and mean a new mail."""

    async def get(self, caller: str, mail_id: str) -> Mail | None:
        """The settled mail of that caller and id, if it is still remembered."""
