"""One relay, shared by all workers: decides which worker may dial it and when, and knows whether it is down.

While the relay is well, every worker dials for itself. After a failure one worker at a time dials, with backoff, and
the others wait for its result. A relay in trouble gets no storm of dials, and no provider locks the account over
repeated sign-ins. The breaker decides when the next dial may start.
"""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from otpmail import backoff
from otpmail.errors import ConnectFailed, ProbeFailed, SignInRefused
from otpmail.events import (
    ChunkingDisabled,
    ConnectionOpened,
    Observer,
    RecipientLimitDropped,
    RecipientLimitLearned,
    ResetRefused,
)
from otpmail.relays.addresses import Addresses
from otpmail.relays.availability import NOTICE_SECONDS, Availability
from otpmail.relays.breaker import Breaker, Failure
from otpmail.relays.connection import Connection
from otpmail.relays.rate_limit import RateLimit
from otpmail.relays.recycling import Recycling
from otpmail.relays.secure import read_identity, tls_context
from otpmail.relays.token import Token
from otpmail.settings import RelaySettings
from otpmail.smtp.habits import Habits
from otpmail.smtp.mode import Mode
from otpmail.smtp.recipient_limit import RecipientLimit

AGE_JITTER = 0.2
_LOOK_SECONDS = 1.0  # between two looks at the result of another worker's dial


class Access(NamedTuple):
    """How to dial a relay and sign in: what may change while the service runs.

    `identity` is what `tls` shows the relay of us, as in the files (`secure.read_identity`).
    """

    settings: RelaySettings
    tls: ssl.SSLContext
    token: Token | None
    identity: bytes = b""


class Relay:
    """Opens connections to one relay, and knows whether it is down. `is_limited` is whether EMAIL_RATE is set.

    `random` returns [0, 1), `look_seconds` and `notice_seconds` (`Availability`) are in seconds.
    """

    is_in_trouble = False
    """Whether something has failed, and a mail that the relay accepts may prove that it is well again."""
    on_change: Callable[[], None]
    """Called when `down` may have changed."""

    def __init__(
        self,
        settings: RelaySettings,
        observer: Observer,
        *,
        random: Callable[[], float],
        look_seconds: float = _LOOK_SECONDS,
        notice_seconds: float = NOTICE_SECONDS,
    ) -> None:
        self.on_change = _nothing
        self.name = settings.endpoint
        self._settings = settings
        self._observer = observer
        self._random = random
        self._look_seconds = look_seconds
        self.access = Access(settings, tls_context(settings), Token.of(settings), read_identity(settings))
        self._addresses = Addresses(settings.host, settings.port)
        self._mode = Mode.allowed_by(settings.mode)
        self._loop = asyncio.get_running_loop()
        self._rate_limit = RateLimit(settings.rate)
        self.is_limited = self._rate_limit.limited
        self._breaker = Breaker(
            random, first=settings.retry_seconds, most=settings.retry_max_seconds, doubt=settings.max_age
        )
        self._availability = Availability(
            self.name,
            observer,
            retry_after=lambda: self.retry_after,
            call_later=self._loop.call_later,
            on_change=self._availability_changed,
            notice_seconds=notice_seconds,
        )
        self._habits = Habits(
            RecipientLimit(self._loop.time, self._recipient_limit_changed),
            partial(observer.notify, ResetRefused(self.name)),
        )
        self._recycling = Recycling(self.name, observer, now=self._loop.time)
        self._turn = asyncio.Lock()  # to dial it while it is not well
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Relay {self.name} {self._availability!r} {self._breaker!r}>"

    @property
    def down(self) -> bool:
        """Whether no connection is open although one is wanted (`Availability.down`)."""
        return self._availability.down

    @property
    def refuses_sign_in(self) -> bool:
        """Whether the last sign-in was refused."""
        return self._breaker.over_sign_in

    @property
    def outage(self) -> str:
        """Why it is down, in its own words where it said any; empty unless it is."""
        return self._availability.cause

    @property
    def retry_after(self) -> float:
        """Seconds until the relay may be dialled again, 0 for now."""
        return max(0.0, self._breaker.next_try - self._loop.time())

    @property
    def return_at(self) -> float:
        """When a worker that has a connection to another relay may try this one, on the loop's clock.

        While another worker dials it that is not now, but when to look at the result.
        """
        return self._loop.time() + (self._look_seconds if self._is_tried_while_down else self.retry_after)

    def renew(self, access: Access) -> None:
        """Use other credentials and authorities from the next dial on; open connections stay as they are."""
        self.access = access
        self._breaker.settings_changed(self._loop.time())
        self._notify_changed()

    async def connect(self, *, patient: bool = True) -> Connection:
        """A new connection, open and signed in; waits as long as it takes to get one.

        With `patient=False` it raises ConnectFailed where it would only wait: for a relay that is down, that refuses
        the sign-in, or that takes no further connection.
        """
        if not patient and self._is_tried_while_down:
            raise ConnectFailed(f"{self.name} is down, and another worker dials it")
        self._availability.wanted += 1
        try:
            connection = None
            while connection is None:
                if self._is_well:
                    connection = await self._dial()
                    continue
                await self._acquire_turn(patient=patient)
                try:
                    await self._next_try(patient=patient)
                    if not self._is_well:  # otherwise another worker got through meanwhile
                        connection = await self._dial()
                finally:
                    self._turn.release()
            return connection
        finally:
            self._availability.wanted -= 1

    async def changed(self) -> None:
        """Wait until it may be dialled sooner: a connection was opened or closed, or a mail accepted on a new one."""
        await self._changed.wait()

    def _recipient_limit_changed(self, limit: int | None) -> None:
        learned = RecipientLimitLearned(self.name, limit) if limit is not None else RecipientLimitDropped(self.name)
        self._observer.notify(learned)

    def _availability_changed(self) -> None:
        self.on_change()

    def _notify_changed(self) -> None:
        self.is_in_trouble = self._breaker.has_failures
        self._changed.set()
        self._changed = asyncio.Event()

    def pause(self) -> float:
        """Seconds until it may be sent another mail (EMAIL_RATE), 0 for at once."""
        return self._rate_limit.wait(self._loop.time()) if self.is_limited else 0.0

    def take_slot(self) -> None:
        """A mail is being sent to it now."""
        self._rate_limit.take(self._loop.time())

    def accepted_mail(self, connection: Connection) -> None:
        """The relay accepted a mail: it is well if the connection was dialled after the last failure."""
        proved_well = self._breaker.took_mail(connection.begun)
        self.is_in_trouble = self._breaker.has_failures
        if proved_well:
            self._notify_changed()

    def released(self, connection: Connection) -> None:
        """A connection that `connect` returned takes no more mails. The breaker judges how it ended."""
        self._availability.open -= 1
        self._recycling.released(connection)
        # A relay that hung up before it accepted a mail gets no dial for that, or it would be dialled on and on.
        connection.on_closed = partial(
            self._closed, connection, frees_slot=connection.answered > 0 or not connection.lost_cause
        )
        if self._breaker.ended(connection, self._loop.time()):
            self._availability.failed(f"it ended a connection before any mail was taken: {connection.lost_cause}")
        if self._availability.open == 0:
            self._availability.emptied(connection.lost_cause, rest=self.retry_after if self._breaker.closed else 0.0)
        self._notify_changed()

    def _closed(self, connection: Connection, *, frees_slot: bool) -> None:
        self._recycling.closed(connection)
        if frees_slot:
            self._breaker.slot_freed(self._loop.time())
            self._notify_changed()

    @property
    def _is_tried_while_down(self) -> bool:
        return self.down and self._turn.locked()

    @property
    def _is_well(self) -> bool:
        """Whether every worker may dial it now."""
        return self._availability.is_well and self._breaker.closed and not self.retry_after

    async def _acquire_turn(self, *, patient: bool) -> None:
        """Wait for the turn to dial it. With `patient=False` only while the relay does not count as down."""
        while not patient:
            try:
                async with asyncio.timeout(self._look_seconds):
                    await self._turn.acquire()
            except TimeoutError:
                if self.down:
                    raise ConnectFailed(f"{self.name} is down, and another worker dials it") from None
            else:
                return
        await self._turn.acquire()

    async def _next_try(self, *, patient: bool) -> None:
        """Wait until the relay may be dialled, or has proved to be well on another connection."""
        while (seconds := self.retry_after) > 0:
            if not self._breaker.closed and not patient:
                self._availability.refused()
                raise ConnectFailed(f"{self.name} is not to be dialled yet")
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.changed()

    async def _dial(self) -> Connection | None:
        begun = self._loop.time()
        # Connections that are dialled together must not be replaced together.
        lifetime = backoff.shortened(self._settings.max_age, AGE_JITTER, self._random)
        mode = self._mode.slower(Mode.DATA) if self._breaker.avoids_chunks(begun) else self._mode
        try:
            settings, tls, token, _ = self.access
            connection = await Connection.open(
                settings, tls, lifetime=lifetime, mode=mode, token=token, addresses=self._addresses
            )
        except ConnectFailed as error:
            self._failed(error, begun)
            return None
        connection.owner = self
        connection.share(self._habits)
        connection.begun = begun
        if connection.runs_refused_chunks and self._mode is Mode.BDAT:
            self._mode = Mode.DATA  # for ever, since the relay was seen to do so
            self._observer.notify(ChunkingDisabled(self.name))
        self._recycling.opened(connection)
        self._availability.opened(
            connection.mode, connection.window, doubtful=self._breaker.hangs_up, address=connection.address
        )
        self._breaker.opened(begun=begun, probed=connection.mode is Mode.BDAT)
        self._notify_changed()
        self._observer.notify(ConnectionOpened(self.name, connection.mode, connection.window, connection.address))
        return connection

    def _failed(self, error: ConnectFailed, begun: float) -> None:
        now = self._loop.time()
        avoided = self._breaker.avoids_chunks(now)
        self._breaker.failed(_kind(error), begun=begun, now=now)
        self.is_in_trouble = self._breaker.has_failures
        if self._breaker.avoids_chunks(now) and not avoided:
            self._observer.notify(ChunkingDisabled(self.name))
        self._availability.failed(str(error))


def _kind(error: ConnectFailed) -> Failure:
    match error:
        case SignInRefused():
            return Failure.SIGN_IN
        case ProbeFailed():
            return Failure.PROBE
        case _:
            return Failure.DIAL


def _nothing() -> None:
    pass
