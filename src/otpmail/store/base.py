"""The protocols of a store as the use cases see it: codes, request ids, accepted and settled mails.

A store decides in one step, so that two replicas, or two calls, never both get what only one may have. All times are
seconds since the epoch, on the store's own clock (`store.clock`).
"""

from asyncio import Queue
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from otpmail.model import Envelope, Mail, Priority, RecipientResult, Sending
from otpmail.store.addresses import AddressStore
from otpmail.store.challenges import ChallengeStore, Send
from otpmail.store.wanted import Wanted, ever
from otpmail.values import frozen


class Request(NamedTuple):
    """A request id of one caller, and the fingerprint of what was asked for with it."""

    caller: str
    request_id: str
    fingerprint: bytes


@frozen(kw_only=True)
class Progress:
    """How far a mail has come: what a later attempt must know, also in another process.

    `pending` are the recipients without a final reply, `uncertain` those that the relay may have accepted without
    saying so. `copies` counts the attempts that left a recipient uncertain, `losses` the connections that ended under
    it.

    `begun`: an attempt was to begin, and what became of it is not known. `deaths` counts the processes that may have
    ended over the mail. Both are kept for few mails (see `MailStore.begin_attempts`).
    """

    pending: tuple[str, ...]
    results: tuple[RecipientResult, ...] = ()
    uncertain: tuple[str, ...] = ()
    attempts: int = 0
    losses: int = 0
    copies: int = 0
    begun: bool = False
    deaths: int = 0


@frozen(kw_only=True)
class Entry:
    """One accepted mail as a store keeps it until it settles: identity, content, terms and progress.

    `orphaned`: it arrives from a process that ended without releasing it, so that it may have been in flight. That is
    the store's to say, and no part of what is kept.
    """

    mail: Mail
    envelope: Envelope
    priority: Priority
    deadline: float
    progress: Progress
    fingerprint: bytes = b""
    orphaned: bool = False


@frozen()
class Accepted:
    """The store keeps the entry from now on."""


@frozen()
class Earlier:
    """The request id came before: `mail` is its mail as it settled."""

    mail: Mail


@frozen()
class Running:
    """The request id came before, and its mail has not settled."""

    mail_id: str


@frozen()
class Conflict:
    """The request id came before with another content."""


@frozen()
class TakenOver:
    """The request id came before, in a process that ended before its mail was decided: that mail's id is to be used."""

    mail_id: str


@frozen()
class StoreState:
    """Whether a store takes changes: `problem` is empty while it does, and otherwise a line for the log.

    After `retry_after` seconds a retry makes sense.
    """

    problem: str = ""
    retry_after: float = 0.0


@frozen()
class Issued:
    """A decision about a code and its mail. Without an `answer` nothing has changed: another challenge is to be mailed.

    Without a `sending` nothing has either, since the request id came before.
    """

    sending: Sending | None
    answer: Accepted | Earlier | Running | Conflict | None


Issue = Callable[[Send, Entry], Awaitable[Issued]]
"""Decides which challenge to mail, and keeps the mail of that one, in one commit; durable on return.

The entry is the mail of the challenge in its `issued`. Raises as `ChallengeStore.send` and `MailStore.accept` do.
"""


class Owner(Protocol):
    """The mails of this process, as a store sees them that other processes use too (`delivery.ownership`)."""

    def entry(self, mail_id: str) -> Entry | None:
        """Return a mail that has not settled, as it is now, without its fingerprint; None where it has."""

    def cancel(self, mail_id: str) -> bool:
        """Cancel a mail for another process; False where the relay has it, or may have it."""

    def drop(self, mail_ids: Iterable[str]) -> Sequence[str]:
        """Let go of mails that another process may deliver from now on, and return their ids.

        The others are in flight, and end here.
        """

    def resume(self) -> None:
        """Go on with the mails that `MailStore.may_send` has held up."""

    def watch(self, mail_id: str, states: "Queue[Mail | None]") -> Callable[[], None]:
        """Put a mail's present state into `states`, and each one that follows, until the returned function is called.

        None is put into it where the mail is not here, or goes on in another process.
        """


class MailStore(Protocol):
    """Request ids, accepted mails until they settle, and settled mails for a while after."""

    durable: bool
    """Whether what it accepted outlives this process."""

    def now(self) -> float:
        """Return the time in seconds since the epoch, on the clock of every time in an entry."""

    async def accept(self, entries: Sequence[Entry]) -> list[Accepted | Earlier | Running | Conflict]:
        """Keep mails, with their content and request ids, in one commit; durable on return.

        The answers are in the order of the entries. A request id that was claimed for the same mail is its own.
        """

    async def claim(self, request: Request, mail_id: str) -> Accepted | Earlier | Running | Conflict | TakenOver:
        """Keep a request id for the mail that is about to be accepted, unless it came before."""

    def release(self, request: Request, mail_id: str) -> None:
        """Free a request id that was claimed for a mail which was not accepted: the caller's next try counts as new.

        It is carried out after a claim that was cancelled before its answer, and has no effect where another mail has
        the request id.
        """

    async def begin_attempts(self, progresses: Mapping[str, Progress]) -> None:
        """Note that attempts at accepted mails, by their ids, are about to begin; durable on return, in one commit.

        The progress says so (`Progress.begun`), and the next `deferred` takes it back. Raises Unavailable, and takes
        it back itself then.
        """

    def deferred(self, mail_id: str, progress: Progress) -> None:
        """Note how far an accepted mail has come. The store may write it later, together with others."""

    def settle(self, mail: Mail, *, keep_request: bool = True, entry: Entry | None = None) -> None:
        """Note the final state of a mail, and drop its content. The store may write it later, together with others.

        `keep_request`: a repeated request id finds this mail; otherwise the id is released. `entry`: its content and
        progress are kept for a retry, while the mail is remembered and there is room for them.
        """

    async def retryable(self, caller: str, mail_id: str) -> Entry | None:
        """Return that caller's settled mail with its content, as it settled; None where its content is not kept."""

    async def reopen(self, entry: Entry, settle_time: float) -> bool:
        """Keep a mail that settled at `settle_time` as this entry says from now on, in one commit; durable on return.

        It is open again, this process owns it, and a repeated request id finds it. False where it is not as it settled
        then, since another call has reopened it or it was forgotten. False also where its request id has another mail.
        """

    async def get(self, caller: str, mail_id: str) -> Mail | None:
        """Return that caller's mail while it is remembered, None otherwise."""

    async def caller_of(self, mail_id: str) -> str | None:
        """Return the name of the caller whose mail `get` would return, None where no caller has it."""

    async def find(self, caller: str, request_id: str) -> Earlier | Running | None:
        """Return that caller's mail of a request id, while it or the id is remembered, None otherwise.

        A mail whose request id was released is found too, until the id comes again.
        """

    def remembered(self, wanted: Wanted = ever) -> AsyncIterator[Sequence[Mail]]:
        """Yield the settled mails of all callers that are remembered, and all that other processes own, in any order.

        They come in slices of some milliseconds. `wanted` is asked before each: mails of other times may be left out.
        """

    async def begin_forgetting(self, caller: str, person: bytes, until: float) -> None:
        """Have open mails settle without a caller's person; durable on return. Raises LimitExceeded, Unavailable."""

    async def erase(self, person: bytes) -> int:
        """Erase a person (`store.erasing`) from settled mails, with their contents; returns from how many.

        Raises Unavailable, and has erased a part then.
        """

    async def cancel(self, caller: str, mail_id: str) -> Mail | None:
        """Cancel a mail that another process owns, and return what has become of it; None where `get` finds nothing.

        One that has not settled then is this process's own. Raises FailedPrecondition where the relay may have it.
        """

    def watch(self, caller: str, mail_id: str) -> AsyncGenerator[Mail, None]:
        """Yield the states of a mail that another process owns, as far as the store learns of them, to the final one.

        It ends before that where the store finds the mail no more.
        """

    def may_send(self) -> bool:
        """Whether this process owns its mails for sure: otherwise another one may be sending them."""

    def follow(self, owner: Owner) -> None:
        """Ask `owner` about the mails of this process from now on."""

    def arrivals(self) -> AsyncIterator[Sequence[Entry]]:
        """Yield accepted mails of ended processes that this one is to deliver, in slices: by priority, then by age."""


class Left(NamedTuple):
    """An accepted mail of an earlier process, without its content."""

    mail_id: str
    priority: Priority
    deadline: float


class ContentStore(Protocol):
    """The content of accepted mails, for a process that does not hold all of it in memory (`delivery.backlog`)."""

    def left(self) -> Iterator[Left]:
        """Yield the accepted mails of an earlier process once, by priority and then by age."""

    async def read(self, mail_ids: Sequence[str]) -> tuple[list[Entry], list[str]]:
        """Return accepted mails, and a line for each that can't be read, which stays. Raises Unavailable."""


class Store(Protocol):
    """One store with all it keeps. Opened before the service listens, closed last."""

    challenges: ChallengeStore
    mails: MailStore
    addresses: AddressStore
    contents: ContentStore | None
    """Where accepted mails may wait without their content in memory; None where it stays in memory."""

    @property
    def issue(self) -> Issue | None:
        """The decision about a code with its mail; None where the store does not outlive this process."""

    @property
    def unwritten(self) -> int:
        """How many changes that nobody waits for are not written yet, such as settlements."""

    async def open(self) -> None:
        """Lock or connect, and check. Raises StoreError with one line that says what to do."""

    def watch(self, changed: Callable[[StoreState], None]) -> None:
        """Call `changed` whenever the store stops or begins to take changes."""

    async def close(self) -> None:
        """Write the noted changes, and release the mails that this process owns."""
