"""The relay as its connections see it, and a connection as the rules about idleness do."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from otpmail.relays.connection import Connection
    from otpmail.smtp.reply_kind import ReplyKind


class Slots(Protocol):
    """The slots for mails of one relay, as the workers see them."""

    @property
    def is_limited(self) -> bool:
        """Whether mails wait for slots: by EMAIL_RATE, or because the relay has refused some as too fast."""

    def pause(self) -> float:
        """Seconds until the relay may be sent another mail, 0 for at once."""

    def urgent_pause(self) -> float:
        """Seconds until the relay may be sent another urgent mail, 0 for at once."""

    def take_slot(self, *, urgent: bool) -> None:
        """A mail is being sent to it now."""


class ConnectionOwner(Protocol):
    """The relay that a connection leads to, which all workers share, as its connections see it."""

    name: str
    standby: int
    """How many connections are kept while there is nothing to send."""

    @property
    def throttle(self) -> "Slots":
        """When it may be sent another mail."""

    @property
    def is_in_trouble(self) -> bool:
        """Whether `accepted_mail` may prove that the relay is well again, or takes more mails a second."""

    @property
    def has_place(self) -> bool:
        """Whether one more connection may be dialled."""

    @property
    def closes_idle(self) -> bool:
        """Whether the relay is known to close idle connections after some time."""

    async def connect(self, *, patient: bool = True) -> "Connection":
        """A new connection; raises ConnectFailed with `patient=False` where it would only wait."""

    def accepted_mail(self, connection: "Connection") -> None:
        """The relay accepted a mail on this connection."""

    def refused(self, connection: "Connection", kind: "ReplyKind") -> None:
        """The relay refused a mail on this connection, because too much comes at once (`refusal.PRESSURE`)."""

    def released(self, connection: "Connection") -> None:
        """The connection takes no more mails."""


class Idler(Protocol):
    """The part of a connection that `idle_time` reads and sets."""

    begun: float

    def keep_idle(self, seconds: float) -> None:
        """Be idle for `seconds` at most."""

    @property
    def is_idle_too_long(self) -> bool:
        """Whether it has been idle for as long as it may."""

    @property
    def idle_at_end(self) -> float | None:
        """For how many seconds it was idle when the relay closed it for that; None if it did not."""

    @property
    def lost_cause(self) -> str:
        """Why it takes no more mails; empty while it does."""
