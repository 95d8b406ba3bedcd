"""Decisions about codes in a store that runs the rules itself: each is one update of one record."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from otpmail.model import Check, CodeRecord, Sending
from otpmail.store.challenges import ANY, Attempt, Guess, Rules, Send

T = TypeVar("T")
Rule = Callable[[CodeRecord | None], tuple[CodeRecord | None, T]]


class RuledRecords(ABC):
    """The decisions of `store.challenges.ChallengeStore`, by rules on records that `update` reads and writes."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    @abstractmethod
    async def update(self, key: bytes, rule: Rule[T]) -> T:
        """Replace the record by what `rule` makes of it, in one step, and return what else the rule returns.

        When the rule raises, the record stays unchanged.
        """

    def send(self, send: Send) -> Awaitable[Sending]:
        """Decide which challenge to mail now."""
        return self.update(send.key, partial(self._rules.send, send=send))

    def check(self, key: bytes, now: float, guess: Guess, attempt: Attempt = ANY) -> Awaitable[Check]:
        """Count an attempt, compare, and use the code up if it is right."""
        return self.update(key, partial(self._rules.check, now=now, guess=guess, attempt=attempt))

    def void(self, key: bytes, scope: bytes, challenge_id: bytes | None, earlier: bytes = b"") -> Awaitable[None]:
        """End the live challenges of a scope unused."""
        del earlier
        return self.update(key, partial(self._rules.void, scope=scope, challenge_id=challenge_id))

    def unsend(self, key: bytes, sending: Sending) -> Awaitable[None]:
        """Take a sending back."""
        return self.update(key, partial(self._rules.unsend, sending=sending))

    def refuse(self, key: bytes, sending: Sending) -> Awaitable[None]:
        """Take a sending back, and end its challenge."""
        return self.update(key, partial(self._rules.refuse, sending=sending))
