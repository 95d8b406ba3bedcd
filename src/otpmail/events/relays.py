"""Events of relays: their connections, and what was learned of their limits."""

from otpmail.values import frozen


@frozen()
class RelayUp:
    """A connection to the relay is open and signed in, the first since the relay was down or idle.

    `mode` is how mails are sent on it, `window` how many may be in flight at once, `address` the relay's IP address.
    """

    relay: str
    mode: str
    window: int
    address: str = ""


@frozen()
class RelayDown:
    """A dial failed, or a relay in use has had no open connection for a second. `retry_after` is in seconds.

    Emitted once, until the relay is up again.
    """

    relay: str
    error: str
    retry_after: float


@frozen()
class RelayIdle:
    """We closed the last connection to the relay and need none for now: mails go through another relay."""

    relay: str


@frozen()
class DialFailed:
    """Another dial failed, while the relay was down already or has other open connections.

    `retry_after` is in seconds. `repeated`: an earlier event has named the same next dial, as where workers dialled at
    once.
    """

    relay: str
    error: str
    retry_after: float
    repeated: bool = False


@frozen()
class ChunkingDisabled:
    """Mails go by DATA, not BDAT: the relay runs a refused chunk as commands, or ends connections over it.

    Emitted once for the first cause, and for the second each time that mails had gone by BDAT again.
    """

    relay: str


@frozen()
class MessageLimitLearned:
    """The relay ends a connection after `limit` mails, so each one is replaced before that.

    Emitted when the limit was seen twice, and when it changes.
    """

    relay: str
    limit: int


@frozen()
class MessageLimitDropped:
    """A connection has carried more than the `limit` that was learned, so none is replaced for it any more."""

    relay: str
    limit: int


@frozen()
class RecipientLimitLearned:
    """The relay takes `limit` recipients of a mail at once, so one for more goes in several transactions."""

    relay: str
    limit: int


@frozen()
class RecipientLimitDropped:
    """The relay has taken more recipients at once than the limit that was learned."""

    relay: str


@frozen()
class ResetRefused:
    """The relay refuses RSET, so it gets one mail at a time, by DATA at the fastest."""

    relay: str


@frozen()
class HeloRefused:
    """A relay refuses the name that EHLO gives it. Emitted once a minute."""

    reply: str


@frozen()
class SignInWanted:
    """A relay takes no mail without a sign-in, or without TLS. Emitted once a minute."""

    reply: str


@frozen()
class ConnectionLimitLearned:
    """The relay refused a connection beyond `limit`, so it is given no more for a while; `wanted` is WORKERS."""

    relay: str
    limit: int
    wanted: int


@frozen()
class ConnectionLimitDropped:
    """The relay takes more connections than the `limit` that was learned."""

    relay: str
    limit: int


@frozen()
class RateLowered:
    """The relay refused a mail as too fast, so it is sent `rate` a second; `again`: it had been lowered before."""

    relay: str
    rate: float
    again: bool


@frozen()
class RateRestored:
    """The rate has recovered: EMAIL_RATE holds alone."""

    relay: str


@frozen()
class IdleTimeLearned:
    """The relay closes a connection that has been idle for `seconds`, so idle ones are closed before."""

    relay: str
    seconds: float


@frozen()
class IdleTimeDropped:
    """A connection was idle for longer than the `seconds` that were learned, and the relay did not close it."""

    relay: str
    seconds: float


@frozen()
class ConnectionOpened:
    """A connection is ready; `mode` is how mails are sent on it, up to `window` in flight at once.

    `address` is the IP address of the relay that it leads to.
    """

    relay: str
    mode: str
    window: int
    address: str = ""


@frozen()
class ConnectionClosed:
    """A connection ended after `sent` mails; `cause` says why.

    `recycled`: a new connection replaces it, so it was neither lost nor closed by a stop.
    """

    relay: str
    cause: str
    sent: int
    recycled: bool


RelayEvent = (
    RelayUp
    | RelayDown
    | RelayIdle
    | DialFailed
    | ChunkingDisabled
    | MessageLimitLearned
    | MessageLimitDropped
    | RecipientLimitLearned
    | RecipientLimitDropped
    | ResetRefused
    | HeloRefused
    | SignInWanted
    | ConnectionLimitLearned
    | ConnectionLimitDropped
    | RateLowered
    | RateRestored
    | IdleTimeLearned
    | IdleTimeDropped
    | ConnectionOpened
    | ConnectionClosed
)
