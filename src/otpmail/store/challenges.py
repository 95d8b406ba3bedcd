"""The protocols of codes: a store's decisions about them, their rules and comparisons."""

from collections.abc import Awaitable, Iterable, Sequence
from typing import NamedTuple, Protocol

from otpmail.callers import TableKey
from otpmail.code_record import STRANGERS, Budget, CodeRecord, EarlierRecord
from otpmail.errors import LimitExceeded
from otpmail.model import STRETCH, Challenge, Check, Counts, Reached, Sending

NO_SCOPE = bytes(8)
"""In place of a purpose and a session, in tests."""


class Quota(NamedTuple):
    """A limit of mails, or of wrong codes, that counts over many addresses: at most `most` in any hour.

    `key` is that of its counts. One in shadow refuses nothing: it says what it would have refused. `warns`: the log has
    a line at half and at four fifths of it. `stretch` is in seconds, and another one where the limit is one of a day
    (`limits.rules.stretch_of`).
    """

    limit: str
    key: bytes
    most: int
    is_shadow: bool = False
    warns: bool = False
    stretch: int = STRETCH
    named: TableKey | None = None
    """The key of CALLERS_FILE that sets it, None for a setting."""


class Admitted(NamedTuple):
    """The counts of a limit with one mail more, and when they end.

    They may not be forgotten before `needed`, where the limit is reached. `reached` has the limits that the log has a
    line about.
    """

    counts: Counts
    ends: float
    needed: float
    reached: Reached | None


class Send(NamedTuple):
    """The question which challenge is to be mailed for a record, in the slot of a scope and a device.

    `spaced`: not too soon after the last mail, and within the limits of mails. `room`: otherwise MemoryFull for a key
    without a record. `compat`: a lane without failures left gets no code, whatever else is set.
    """

    key: bytes
    now: float
    fresh: Challenge
    spaced: bool = True
    room: bool = True
    scope: bytes = NO_SCOPE
    device: bytes = STRANGERS
    compat: bool = False
    earlier: bytes = b""
    """The key of the record that an earlier version has kept for the purpose, where that may be there."""

    quotas: tuple[Quota, ...] = ()
    """The limits over many addresses that the mail counts for."""

    mailbox: bytes = b""
    """The key of the record of the mailbox whose limits of mails the address shares, if it has a tag."""

    rules: "Rules | None" = None
    """The rules of the caller's profile, None for those of the store."""

    caller: str = ""
    """Whose record it is, for the share of each caller where there is no room."""

    @property
    def counted(self) -> tuple[bytes, ...]:
        """The keys of the limits over many addresses that the mail counts for."""
        return tuple([quota.key for quota in self.quotas])


class Attempt(NamedTuple):
    """For which slot somebody tries a code, and in which lane it counts.

    `only` binds it to one challenge's id. `request` is a digest for which the same check has the same answer for a
    minute; empty without a request id. `new_device` is for a right code of somebody without a device. `compat` is as in
    `Send`.
    """

    scope: bytes = NO_SCOPE
    device: bytes = STRANGERS
    only: bytes | None = None
    request: bytes = b""
    new_device: bytes = STRANGERS
    compat: bool = False
    earlier: bytes = b""
    quotas: tuple[Quota, ...] = ()
    """The limits over many addresses that a wrong code counts for."""

    rules: "Rules | None" = None
    """The rules, as in `Send`."""

    mailbox: bytes = b""
    """The key of the record of the mailbox, as in `Send`: its limits say too when a new code may be asked for."""

    mails_at: float = 0.0
    """When one more mail is within these limits. The store fills it in (`Rules.mails_at`)."""


ANY = Attempt()
"""An attempt of a stranger, bound to nothing."""


class Guess(Protocol):
    """A text that was typed as a code, ready to be compared."""

    lengths: tuple[int, int]
    """Which code it can be, as a number and as letters (`Challenge.length`), -1 for none.

    Trying it on a code of another length costs no attempt.
    """

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
    def numbers(self) -> Sequence[float]:
        """The settings as scripts read them (`redis/scripts/codes.lua`)."""

    @property
    def resend(self) -> float:
        """Seconds between two mails of a slot."""

    def send(self, record: CodeRecord | None, send: Send) -> tuple[CodeRecord | None, Sending]:
        """Decide which challenge to mail. Raises LimitExceeded, MemoryFull."""

    def admit(self, counts: Counts, quota: Quota, now: float) -> Admitted:
        """Count one mail more for a limit over many addresses. Raises LimitExceeded."""

    def note(
        self, record: CodeRecord | None, send: Send, sending: Sending
    ) -> tuple[CodeRecord, tuple[Reached, ...], float]:
        """Count a mail for the mailbox of an address with a tag. Raises LimitExceeded.

        The second part of the answer is the limits to log, the third `Sending.spent_until` of the mailbox.
        """

    def unnote(self, record: CodeRecord | None, mail: float) -> CodeRecord | None:
        """Return the record of a mailbox without a mail that was not sent, by the next send that went with it."""

    def uncount(self, counts: Counts, mail: float) -> tuple[Counts, float]:
        """Return the counts without the mail of a code that was not sent, and when they end."""

    def uncount_at(self, counts: Counts, quota: Quota, when: float) -> tuple[Counts, float]:
        """Return the counts of a limit without a mail that was counted then, and when they end."""

    def check(
        self, record: CodeRecord | None, now: float, guess: Guess, attempt: Attempt
    ) -> tuple[CodeRecord | None, Check]:
        """Count an attempt, compare, and use the code up if it is right."""

    def mails_at(self, record: CodeRecord | None, now: float, *, compat: bool) -> float:
        """Return when one more mail of strangers is within the limits of a mailbox, in the past where it is so now."""

    def is_limited(self, record: CodeRecord | None, now: float, attempt: Attempt) -> bool:
        """Whether limits over many addresses may refuse an attempt, and a wrong code counts for them."""

    def void(
        self, record: CodeRecord | None, scope: bytes, challenge_id: bytes | None
    ) -> tuple[CodeRecord | None, None]:
        """End the live challenges of a scope, of all devices."""

    def unsend(self, record: CodeRecord | None, sending: Sending) -> tuple[CodeRecord | None, float | None]:
        """Take a sending back. Returns its mail, by the next send that went with it, if that has counted until now."""

    def withdraw(self, record: CodeRecord | None, call: bytes) -> tuple[CodeRecord | None, float | None]:
        """Take a sending back, by the mark of its call. Returns what `unsend` does."""

    def refuse(self, record: CodeRecord | None, sending: Sending) -> tuple[CodeRecord | None, None]:
        """Take a sending back, and end its challenge."""

    def budgets(self, record: CodeRecord | None, now: float) -> tuple[Budget, ...]:
        """Return of which limits strangers have spent something, and how much."""

    def release(self, record: CodeRecord | None, at: float | None) -> tuple[CodeRecord | None, None]:
        """Take back all that was spent of the budgets, and in records of an earlier version until `at`."""

    def adopt(self, record: CodeRecord | None, earlier: EarlierRecord, scope: bytes) -> CodeRecord:
        """Return the record with what one of an earlier version says, whose purpose has that scope."""

    def refusal(self, name: str, *, device: bool, retry_after: float, quotas: Sequence[Quota] = ()) -> LimitExceeded:
        """Return the error for a limit by its name in scripts, which may be one of `quotas`."""


class LimitStore(Protocol):
    """The counts of limits over many addresses, for mails without codes. Each decision is one step.

    Each raises Unavailable while the store can't take it.
    """

    def count_at_once(self, quotas: Sequence[Quota]) -> tuple[float, tuple[Reached, ...]] | None:
        """Do what `count` does without waiting, so that no call can be cancelled meanwhile; None where it has to."""

    def count(self, quotas: Sequence[Quota]) -> Awaitable[tuple[float, tuple[Reached, ...]]]:
        """Count a mail for all of these limits. Returns when, and the limits to be logged. Raises LimitExceeded."""

    def uncount(self, quotas: Sequence[Quota], when: float) -> Awaitable[None]:
        """Take back a mail that was counted then, since it was not accepted."""


class ChallengeStore(Protocol):
    """Codes and their budgets, a record for each (caller, address). Each decision about one is one step.

    `now` is the time on this store's clock; a store whose server has one of its own goes by that. Each decision raises
    Unavailable while the store can't take it.
    """

    @property
    def octets(self) -> int:
        """The memory of this process that all records take."""

    @property
    def reads_earlier(self) -> bool:
        """Whether records of an earlier version may be there, whose keys it is to be told (`Send.earlier`)."""

    @property
    def checks_at_once(self) -> bool:
        """Whether nothing waits for `check`, so that its call needs no task."""

    def now(self) -> float:
        """Return the time in seconds since the epoch, on the clock of every time in a record."""

    def send(self, send: Send) -> Awaitable[Sending]:
        """Decide which challenge to mail now: the live one, or the fresh one. Raises LimitExceeded, MemoryFull."""

    def check(self, key: bytes, now: float, guess: Guess, attempt: Attempt = ANY) -> Awaitable[Check]:
        """Count an attempt, compare, and use the code up if it is right.

        A right code is valid for one call alone. Raises LimitExceeded for a limit over many addresses; nothing is
        compared then. Whether a check that raised Unavailable was counted is not known.
        """

    def void(self, key: bytes, scope: bytes, challenge_id: bytes | None, earlier: bytes = b"") -> Awaitable[None]:
        """End the live challenges of a scope (any, or only that one) unused."""

    def unsend(self, key: bytes, sending: Sending) -> Awaitable[None]:
        """Take back what `send` has changed, since its mail was not sent."""

    def refuse(self, key: bytes, sending: Sending) -> Awaitable[None]:
        """Take back what `send` has changed, and end its challenge: the relay refused the address for good."""

    def budgets(self, key: bytes) -> Awaitable[tuple[Budget, ...]]:
        """Return of which limits strangers have spent something at an address, and how much."""

    def release(self, key: bytes) -> Awaitable[None]:
        """Take back all that was spent of the budgets of an address. Live codes stay."""

    def forget(self, key: bytes, earlier: bytes = b"", mailbox: bytes = b"") -> Awaitable[None]:
        """Drop the record of an address, and the one of a purpose that an earlier version has kept.

        The mails that it knows count no more for the `mailbox` of an address with a tag. The rest of that record stays.
        """
