"""One long-lived connection to a relay, open and signed in (`relays.dialler`): mails are sent here.

A connection takes as many mails at once as its `window`. After a protocol error or a timeout it is closed and never
used again: a reply must not reach another mail.
"""

import asyncio
from collections.abc import Callable, Collection
from typing import Self, cast

import aiosmtplib

from otpmail.errors import ConnectFailed
from otpmail.model import Envelope
from otpmail.relays.dial import SignedIn
from otpmail.relays.message_limit import UNLIMITED, Bounds
from otpmail.relays.owner import ConnectionOwner
from otpmail.relays.protocol import RelayProtocol
from otpmail.relays.timeouts import Timeouts
from otpmail.settings import RelaySettings
from otpmail.smtp.habits import Habits
from otpmail.smtp.mode import Mode
from otpmail.smtp.reply_kind import ReplyKind, kind_of_result
from otpmail.smtp.session import Session
from otpmail.smtp.transaction import Callback

_QUIT_SECONDS = 2.0


class Connection:
    """An open, signed-in connection, with up to `window` mails in flight.

    It calls `on_lost` once, when it takes no more mails, `on_available` when it takes mails again, and `on_closed` once
    closed. `begun` is when its owner began to dial it, on the loop's clock.
    """

    owner: ConnectionOwner
    begun: float
    succeeded_at: int | None = None  # how many mails it had been handed when its successor was open
    on_closed: Callable[[], None] | None = None
    refused_for: ReplyKind | None = None  # why the relay refused mails on it, if because too much came at once

    def __init__(self, signed_in: SignedIn, settings: RelaySettings, *, mode: Mode, lifetime: float) -> None:
        self._client = client = signed_in.client
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self.opened = self._loop.time()
        self._expires_at = self.opened + lifetime
        self.capabilities, self.address = signed_in.capabilities, signed_in.address
        if client.transport is None or client.protocol is None:
            raise ConnectFailed("the relay closed the connection right after signing in")
        mode = Mode.of(self.capabilities).slower(mode)
        self._session = Session(self.capabilities, mode, window=settings.window, redactor=signed_in.redactor)
        self.flights: Collection[object] = self._session.flights  # the mails in flight
        transport = cast("asyncio.Transport", client.transport)
        timeouts = Timeouts(settings.timeout, settings.command_timeout, settings.final_timeout)
        self._protocol = RelayProtocol(transport, client.protocol, self._session, timeouts=timeouts)
        self.load = self._protocol.load  # how many mails in flight one more would wait for
        self._on_limit: Callable[[], None] = lambda: None
        self._idle_seconds, self.dismissed = settings.idle_seconds, ""
        self.most, self.lead, self._careful = UNLIMITED, 0, Bounds().careful
        self._unhindered = UNLIMITED  # as many mails may be handed in before limits are looked at
        self.limit(Bounds(), None)

    def __repr__(self) -> str:
        return f"<Connection {self._settings.host} {self._protocol!r}>"

    @classmethod
    async def over(
        cls, signed_in: SignedIn, settings: RelaySettings, *, lifetime: float, mode: Mode = Mode.BDAT
    ) -> Self:
        """Take over a connection that is signed in, and find out how mails may be sent: by `mode` at the fastest.

        `lifetime` is in seconds. Raises ConnectFailed, with a text that says what went wrong.
        """
        try:
            connection = cls(signed_in, settings, mode=mode.slower(Mode.allowed_by(settings.mode)), lifetime=lifetime)
            await connection._protocol.probe()
            connection.limit(Bounds(), None)  # the window may have changed with the mode
        except BaseException:
            signed_in.client.close()
            raise
        return connection

    @property
    def mode(self) -> Mode:
        """How mails are sent on it."""
        return self._session.mode

    @property
    def runs_refused_chunks(self) -> bool:
        """Whether the relay turned out to run a chunk that it refuses as commands (`Session.probe`)."""
        return self._session.runs_refused_chunks

    @property
    def window(self) -> int:
        """How many mails may be in flight."""
        return self._session.window

    @property
    def in_flight(self) -> int:
        """How many mails are."""
        return len(self._session.flights)

    @property
    def stalled(self) -> bool:
        """Whether its mails make no progress, so that another connection is the better one."""
        return self._protocol.stalled

    @property
    def carried(self) -> int:
        """How many mails it was handed."""
        return self._session.begun

    @property
    def sent(self) -> int:
        """How many mails the relay has accepted."""
        return self._session.sent

    @property
    def answered(self) -> int:
        """How many mails the relay has accepted or refused; a refusal for the number of connections is no answer."""
        return self.sent if self.refused_for is ReplyKind.TOO_MANY_CONNECTIONS else self._session.answered

    @property
    def is_unanswered(self) -> bool:
        """Whether it was handed mails, and the relay has accepted or refused none of them."""
        return self._session.begun > 0 and not self.answered

    @property
    def lost_cause(self) -> str:
        """Why it takes no more mails; empty while it does."""
        return self._protocol.lost_cause or self.dismissed

    @property
    def parting_kind(self) -> ReplyKind:
        """The subject of the reply with which the relay ended it; OTHER without one."""
        return kind_of_result(self._session.words.parting)

    @property
    def crossed(self) -> bool:
        """Whether the relay's goodbye may have crossed the first mail after a pause (`Pause.is_crossed`)."""
        return self._protocol.pause.is_crossed(self._session.replies)

    @property
    def rate(self) -> float:
        """How many mails a second the relay answered of late."""
        return self._protocol.turnaround.rate(self._session.answered, self._loop.time())

    @property
    def hung_up(self) -> bool:
        """Whether the relay ended it over its mails: not for idleness, nor after a fault of either side."""
        return self._protocol.hung_up

    @property
    def lost_in_flight(self) -> int:
        """How many mails were in flight when the relay closed it without 421."""
        return self._protocol.lost_in_flight

    @property
    def age(self) -> float:
        """Seconds since it was opened."""
        return self._loop.time() - self.opened

    def limit(self, bounds: Bounds, lead: int | None) -> None:
        """Keep to these bounds from now on, and to EMAIL_MAX_MESSAGES and the relay's MAILMAX (RFC 9422) in any case.

        It is due for replacement `lead` mails ahead of the last one that it may carry; by default a window of them.
        """
        if self.dismissed:
            return
        most = min(bounds.most, self._settings.max_messages or UNLIMITED, self.capabilities.mail_max or UNLIMITED)
        lead = min(self.window, most // 2) if lead is None else min(lead, most - 1)
        if (most, lead, bounds.careful) != (self.most, self.lead, self._careful):
            self.most, self.lead, self._careful = most, lead, bounds.careful
            self._unhindered = min(most, bounds.careful.start) if bounds.careful else most
            self._on_limit()

    @property
    def is_available(self) -> bool:
        """Whether another mail may be handed in now."""
        session, protocol, begun = self._session, self._protocol, self._session.begun
        if begun >= self._unhindered and (begun >= self.most or (begun in self._careful and session.flights)):
            return False
        return len(self.flights) < protocol.congestion.limit and session.is_available and not protocol.lost_cause

    @property
    def takes_urgent(self) -> bool:
        """Whether an urgent mail may be handed in now: slow replies limit only the other ones in flight."""
        session = self._session
        if session.begun >= self.most or self._protocol.lost_cause or (session.begun in self._careful):
            return False
        return session.is_available

    @property
    def in_flight_limit(self) -> int:
        """How many mails may be in flight that are not urgent, by the time that its replies take."""
        return self._protocol.congestion.limit

    def start_with(self, in_flight_limit: int) -> None:
        """Begin with that limit, which another connection to the same relay has found."""
        self._protocol.congestion.start_with(in_flight_limit)

    @property
    def is_exhausted(self) -> bool:
        """Whether it has been handed as many mails as it may carry, or the relay would take no more on it."""
        return self._session.begun >= self.most or self._session.is_spent

    @property
    def is_near_limit(self) -> bool:
        """Whether it is to be replaced for the number of mails that it may carry, and may carry a few more."""
        return self.most - self.lead <= self._session.begun < self.most

    @property
    def retire_at(self) -> float:
        """When to replace it, on the loop's clock: by age, idleness, or now by its mails; it may carry a few more."""
        if self._session.begun >= self.most - self.lead:
            return self.opened
        return min(self._expires_at, self._idle_until)

    @property
    def _idle_until(self) -> float:
        """When it will have been idle for as long as it may, if no mail is sent until then."""
        return self._idle_seconds + (self._loop.time() if self._session.flights else self._protocol.last_progress)

    @property
    def idle_at_end(self) -> float | None:
        """For how many seconds it was idle when the relay closed it for that; None if it did not."""
        return self._protocol.pause.at_end

    @property
    def is_idle_too_long(self) -> bool:
        """Whether it is to be closed or replaced because no mail was sent on it for a while."""
        return self._loop.time() >= self._idle_until

    def keep_idle(self, seconds: float) -> None:
        """Be idle for `seconds` at most, or for EMAIL_IDLE_SECONDS if that is less."""
        seconds = min(seconds, self._settings.idle_seconds)
        if seconds != self._idle_seconds:
            self._idle_seconds = seconds
            self._on_limit()

    def dismiss(self, cause: str) -> None:
        """Take no more mails, for this cause; those in flight get their replies."""
        self.most = self._unhindered = 0
        self.dismissed = cause
        self._on_limit()

    def share(self, habits: Habits) -> None:
        """Keep to what the connections to its relay have learned, before the first mail."""
        if not self._session.habits.resets:  # as its probe has shown
            habits.forgo_resets()
        self._session.habits = habits

    def successor_opened(self) -> None:
        """Note that the next connection is open."""
        self.succeeded_at = self._session.begun

    def watch(
        self,
        *,
        on_lost: Callable[[], None],
        on_available: Callable[[], None],
        on_limit: Callable[[], None] | None = None,
    ) -> None:
        """Have `on_lost` called once, when it takes no more mails, and `on_available` whenever it can take another.

        `on_limit` is called when it may carry fewer or more mails than before.
        """
        self._on_limit = on_limit or (lambda: None)
        self._protocol.on_lost, self._protocol.on_available = on_lost, on_available

    def send(self, envelope: Envelope, callback: Callback) -> bool:
        """Start sending a mail, for which it must be available; returns whether the relay is asked at all.

        `callback` is called once, with ConnectionLost, or with a result for each recipient; before this returns where
        the relay is not asked. A mail with more recipients than the relay takes at once (`Session.begin`) goes to the
        first so many, and there are results for those.
        """
        return self._protocol.send(envelope, callback)

    async def drained(self) -> None:
        """Wait until no mail is in flight."""
        await self._protocol.drained()

    async def close(self) -> None:
        """Send QUIT, wait for its answer briefly, and close. Mails in flight are lost."""
        try:
            if self._protocol.hand_back():
                await self._client.quit(timeout=_QUIT_SECONDS)
        except (aiosmtplib.SMTPException, OSError):
            pass  # a relay that does not answer QUIT is left all the same
        finally:
            self._client.close()
            if self.on_closed is not None:
                self.on_closed()
            self.on_closed = None  # what is called may hold the connection: its memory would wait for a collection
            self.watch(on_lost=lambda: None, on_available=lambda: None)
