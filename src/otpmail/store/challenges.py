"""The protocols of codes: a store's decisions about them, their rules and comparisons."""

from collections.abc import Awaitable, Iterable
from typing import NamedTuple, Protocol

from otpmail.model import Challenge, Check, CodeRecord, Sending


class Send(NamedTuple):
    """The question which challenge is to be mailed for a record, as `ChallengeStore.send` asks it."""

    key: bytes
    now: float
    fresh: Challenge
    spaced: bool
    room: bool


class Guess(Protocol):
    """A text that was typed as a code, ready to be compared."""

    counts: bool
    """Whether it can be a code at all, so that trying it costs an attempt."""

    def matches(self, challenge: Challenge | None) -> bool:
        """Whether it is the challenge's code. Without a challenge the answer is no, after the same work."""

    def proofs(self, key: bytes) -> Iterable[tuple[str, bytes]]:
        """Return, for each of our keys by its id, the proof (`Proofs`) of this text as the code of the record `key`."""


class Proofs(Protocol):
    """Makes what a server without our keys can compare: a digest with a key, which leads nobody to the code."""

    def proof(self, key: bytes, challenge: Challenge) -> bytes:
        """Return the digest of a challenge's code in the record `key`. Raises KeyError where its key is gone."""


class Rules(Protocol):
    """The rules about codes, on one record (`otp.policy.Policy`).

    Each returns the record from now on, None for none, and its answer. When it raises, nothing changes.
    """

    @property
    def attempts(self) -> int:
        """How many wrong tries a code takes."""

    @property
    def failures_per_hour(self) -> int:
        """How many wrong tries an address takes in an hour."""

    @property
    def resend(self) -> float:
        """How many seconds there are between two mails."""

    def send(
        self, record: CodeRecord | None, now: float, fresh: Challenge, *, spaced: bool, room: bool
    ) -> tuple[CodeRecord | None, Sending]:
        """Decide which challenge to mail. Raises LimitExceeded, MemoryFull."""

    def check(
        self, record: CodeRecord | None, now: float, guess: Guess, only: bytes | None
    ) -> tuple[CodeRecord | None, Check]:
        """Count an attempt, compare, and use the code up if it is right."""

    def void(self, record: CodeRecord | None, challenge_id: bytes | None) -> tuple[CodeRecord | None, None]:
        """End the live challenge."""

    def unsend(self, record: CodeRecord | None, sending: Sending) -> tuple[CodeRecord | None, None]:
        """Take a sending back."""

    def refuse(self, record: CodeRecord | None, sending: Sending) -> tuple[CodeRecord | None, None]:
        """Take a sending back, and end its challenge."""

    def withdraw(self, record: CodeRecord | None, call: bytes) -> tuple[CodeRecord | None, None]:
        """Take back the change of a call's `send` that got no answer."""


class ChallengeStore(Protocol):
    """Codes and their budgets, a record for each (caller, purpose, address). Each decision about one is one step.

    `now` is the time on this store's clock; a store whose server has one of its own goes by that. Each decision raises
    Unavailable while the store can't take it.
    """

    @property
    def octets(self) -> int:
        """The memory of this process that all records take."""

    def now(self) -> float:
        """Return the time in seconds since the epoch, on the clock of every time in a record."""

    def send(self, key: bytes, now: float, fresh: Challenge, *, spaced: bool, room: bool) -> Awaitable[Sending]:
        """Decide which challenge to mail now: the live one, or `fresh`. Raises LimitExceeded.

        `spaced`: not too soon after the last mail. `room`: otherwise MemoryFull for a key without a record. The change
        of a call that is cancelled, or gets no answer, is taken back: its mail is not sent.
        """

    def check(self, key: bytes, now: float, guess: Guess, only: bytes | None) -> Awaitable[Check]:
        """Count an attempt, compare, and use the code up if it is right. `only` binds it to one challenge's id.

        A right code is valid for one call alone. Whether a check that raised Unavailable was counted is not known.
        """

    def void(self, key: bytes, challenge_id: bytes | None) -> Awaitable[None]:
        """End the live challenge (any, or only that one) unused."""

    def unsend(self, key: bytes, sending: Sending) -> Awaitable[None]:
        """Take back what `send` has changed, since its mail was not sent."""

    def refuse(self, key: bytes, sending: Sending) -> Awaitable[None]:
        """Take back what `send` has changed, and end its challenge: the relay refused the address for good."""
