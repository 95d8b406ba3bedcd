"""One relay as all workers share it: who may dial it when, and whether it is there.

While a connection is open and dialling works, every worker dials for itself. Otherwise one worker at a time tries,
later each time, and the others wait for what it finds: a relay in trouble is not stormed, and a refused sign-in is not
repeated into a lock-out. When it is in trouble is the breaker's to say, when it counts as away the presence's.
"""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from otpmail import backoff
from otpmail.errors import ConnectFailed, ProbeFailed, SettingsError, SignInRefused
from otpmail.events import ChunkingDisabled, ConnectionOpened, Observer
from otpmail.relays.availability import Availability
from otpmail.relays.breaker import Breaker, Failure
from otpmail.relays.connection import Connection
from otpmail.relays.rate_limit import RateLimit
from otpmail.relays.recycling import Recycling
from otpmail.settings import RelaySettings
from otpmail.smtp.mode import Mode

AGE_JITTER = 0.2
_LOOK_SECONDS = 1.0  # between two looks at what another worker finds


class Relay:
    """Opens connections to one relay, and knows whether it is down. `is_limited` is whether EMAIL_RATE is set."""

    def __init__(self, settings: RelaySettings, observer: Observer, *, random: Callable[[], float]) -> None:
        self.name = f"{settings.host}:{settings.port}"
        self._settings = settings
        self._observer = observer
        self._random = random
        self._tls = tls_context(settings)
        self._mode = Mode.allowed_by(settings.mode)
        self._loop = asyncio.get_running_loop()
        self._pace = RateLimit(settings.rate)
        self.is_limited = self._pace.limited
        self._breaker = Breaker(
            random, first=settings.retry_seconds, most=settings.retry_max_seconds, doubt=settings.max_age
        )
        self._presence = Availability(
            self.name, observer, retry_after=lambda: self.retry_after, call_later=self._loop.call_later
        )
        self._recycling = Recycling(self.name, observer, now=self._loop.time)
        self._trying = asyncio.Lock()
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Relay {self.name} {self._presence!r} {self._breaker!r}>"

    @property
    def down(self) -> bool:
        """No connection is open, and not just for the moment that a new one takes, nor since it is not in use."""
        return self._presence.away

    @property
    def retry_after(self) -> float:
        """Seconds until the relay may be dialled again, 0 for now."""
        return max(0.0, self._breaker.next_try - self._loop.time())

    @property
    def return_at(self) -> float:
        """When somebody who has a connection to another relay may try this one, on the loop's clock.

        Not while another is at it, which `connect` would not wait for: then, when to look what has come of that.
        """
        return self._loop.time() + (_LOOK_SECONDS if self._tried_while_away else self.retry_after)

    async def connect(self, *, patient: bool = True) -> Connection:
        """A new connection, open and signed in; waits as long as it takes to get one.

        Unless `patient`: then it raises ConnectFailed where all there is to do is to wait, for a relay that is away,
        that refuses to sign us in, or that takes no further connection.
        """
        if not patient and self._tried_while_away:
            raise ConnectFailed(f"{self.name} is away, and being tried")
        self._presence.wanted += 1
        try:
            connection = None
            while connection is None:
                if self._every_worker_may_dial:
                    connection = await self._dial()
                    continue
                await self._turn(patient=patient)
                try:
                    await self._next_try(patient=patient)
                    if not self._every_worker_may_dial:  # nobody got through while this one waited
                        connection = await self._dial()
                finally:
                    self._trying.release()
            return connection
        finally:
            self._presence.wanted -= 1

    def pause(self) -> float:
        """Seconds until it may be sent another mail (EMAIL_RATE), 0 for at once."""
        return self._pace.wait(self._loop.time()) if self._pace.limited else 0.0

    def take_slot(self) -> None:
        """A mail is being sent to it now."""
        self._pace.take(self._loop.time())

    @property
    def is_in_trouble(self) -> bool:
        """Whether an accepted mail tells anything: something has failed, and is not made up for."""
        return self._breaker.troubled

    def accepted_mail(self, connection: Connection) -> None:
        """The relay accepted a mail on this connection: it is well, if that was opened after the last failure."""
        if self._breaker.took_mail(connection.begun):
            self._changed.set()

    def released(self, connection: Connection) -> None:
        """A connection that `connect` gave takes no more mails. The breaker judges how it ended."""
        self._presence.open -= 1
        self._recycling.released(connection)
        # Not where it hung up before it took a mail: such a relay would be dialled on and on.
        connection.on_closed = partial(
            self._closed, connection, frees_slot=connection.answered > 0 or not connection.lost_cause
        )
        if self._breaker.ended(connection, self._loop.time()):
            self._presence.failed(f"it ended a connection before any mail was taken: {connection.lost_cause}")
        if self._presence.open == 0:
            self._presence.emptied(connection.lost_cause, rest=self.retry_after if self._breaker.closed else 0.0)
        self._changed.set()

    def _closed(self, connection: Connection, *, frees_slot: bool) -> None:
        self._recycling.closed(connection)
        if frees_slot:
            self._breaker.slot_freed(self._loop.time())
            self._changed.set()

    @property
    def _tried_while_away(self) -> bool:
        return self.down and self._trying.locked()

    @property
    def _every_worker_may_dial(self) -> bool:
        return self._presence.open > 0 and self._breaker.closed and not self.retry_after

    async def _turn(self, *, patient: bool) -> None:
        """Wait for the turn to try it, and have it then. The impatient do so while it does not count as away."""
        while not patient:
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._trying.acquire()
            except TimeoutError:
                if self.down:
                    raise ConnectFailed(f"{self.name} is away, and being tried") from None
            else:
                return
        await self._trying.acquire()

    async def _next_try(self, *, patient: bool) -> None:
        """Wait until the relay may be dialled, or has proved to be well on another connection."""
        while (seconds := self.retry_after) > 0:
            if not self._breaker.closed and not patient:
                self._presence.refused()
                raise ConnectFailed(f"{self.name} is not to be dialled yet")
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()

    async def _dial(self) -> Connection | None:
        begun = self._loop.time()
        # Connections that are dialled together must not be replaced together.
        lifetime = backoff.shortened(self._settings.max_age, AGE_JITTER, self._random)
        mode = self._mode.slower(Mode.DATA) if self._breaker.doubts_chunks(begun) else self._mode
        try:
            connection = await Connection.open(self._settings, self._tls, lifetime=lifetime, mode=mode)
        except ConnectFailed as error:
            self._failed(error, begun)
            return None
        connection.owner = self
        connection.begun = begun
        if connection.runs_refused_chunks and self._mode is Mode.BDAT:
            self._mode = Mode.DATA  # for good: it was seen
            self._observer.notify(ChunkingDisabled(self.name))
        self._recycling.opened(connection)
        self._presence.opened(connection.mode, connection.window, doubtful=self._breaker.hangs_up)
        self._breaker.opened(begun=begun, probed=connection.mode is Mode.BDAT)
        self._changed.set()
        self._observer.notify(ConnectionOpened(self.name, connection.mode, connection.window))
        return connection

    def _failed(self, error: ConnectFailed, begun: float) -> None:
        now = self._loop.time()
        doubted = self._breaker.doubts_chunks(now)
        self._breaker.failed(_kind(error), begun=begun, now=now)
        if self._breaker.doubts_chunks(now) and not doubted:
            self._observer.notify(ChunkingDisabled(self.name))
        self._presence.failed(str(error))


def _kind(error: ConnectFailed) -> Failure:
    match error:
        case SignInRefused():
            return Failure.SIGN_IN
        case ProbeFailed():
            return Failure.PROBE
        case _:
            return Failure.DIAL


def tls_context(settings: RelaySettings) -> ssl.SSLContext:
    """TLS 1.2 or later, the relay's certificate verified and its name checked, against the system's CAs or our own.

    Raises SettingsError when EMAIL_CA_FILE holds no certificates.
    """
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except ssl.SSLError:
        raise SettingsError(f"EMAIL_CA_FILE: {settings.ca_file} holds no certificates in PEM form") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
