"""One relay as all workers share it: who may dial it when, and whether it is there.

While a connection is open and dialling works, every worker dials for itself. Otherwise one worker at a time tries,
later each time, and the others wait for what it finds: a relay in trouble is not stormed, and a refused sign-in is not
repeated into a lock-out. When it counts as away is the presence's to say.
"""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress

from otpmail.errors import ConnectFailed, ProbeFailed, SettingsError, SignInRefused
from otpmail.events import ChunksUnsafe, ConnectionOpened, Observer
from otpmail.settings import RelaySettings
from otpmail.smtp.breaker import Breaker
from otpmail.smtp.connection import Connection
from otpmail.smtp.mode import Mode
from otpmail.smtp.pace import Pace
from otpmail.smtp.presence import Presence

# Gmail and its like lock an account that is signed in to again and again with the wrong password.
SIGN_IN_RETRY_SECONDS = 60.0
SIGN_IN_RETRY_MAX_SECONDS = 900.0
SHORT_LIFE_SECONDS = 10.0
AGE_JITTER = 0.2


class Relay:
    """Opens connections to one relay, and knows whether it is away."""

    def __init__(self, settings: RelaySettings, observer: Observer, *, random: Callable[[], float]) -> None:
        self.name = f"{settings.host}:{settings.port}"
        self._settings = settings
        self._observer = observer
        self._random = random
        self._tls = tls_context(settings)
        self._mode = Mode.allowed_by(settings.mode)
        self._loop = asyncio.get_running_loop()
        self._pace = Pace(settings.rate)
        self._breaker = Breaker(random)
        self._presence = Presence(
            self.name, observer, retry_after=lambda: self.retry_after, call_later=self._loop.call_later
        )
        self._short_lives = 0  # connections in a row that ended early, without a word on any mail
        self._last_short_life = 0.0
        self._failed_probes = 0  # in a row: connections that ended over the question how it reads a refused chunk
        self._probing = asyncio.Lock()
        self._proved_well = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Relay {self.name} {self._presence!r} {self._breaker!r}>"

    @property
    def down(self) -> bool:
        """No connection is open, and not just for the moment that a new one takes."""
        return self._presence.away

    @property
    def retry_after(self) -> float:
        """Seconds until the relay may be dialled again, 0 for now."""
        return max(0.0, self._breaker.next_try - self._loop.time())

    async def connect(self, *, patient: bool = True) -> Connection:
        """A new connection, open and signed in; waits as long as it takes to get one.

        Unless `patient`: then it raises ConnectFailed where all there is to do is to wait, for a relay that is away or
        that refuses to sign us in.
        """
        if not patient and self.down and self._probing.locked():
            raise ConnectFailed(f"{self.name} is away, and being tried")
        connection = None
        while connection is None:
            if self._every_worker_may_dial:
                connection = await self._dial()
                continue
            async with self._probing:
                await self._next_try(patient=patient)
                if not self._every_worker_may_dial:  # nobody got through while this one waited
                    connection = await self._dial()
        return connection

    def pause(self) -> float:
        """Seconds until it may be sent another mail (EMAIL_RATE), 0 for at once."""
        return self._pace.wait(self._loop.time())

    def takes_slot(self) -> None:
        """A mail is being sent to it now."""
        self._pace.take(self._loop.time())

    def took_mail(self) -> None:
        """A mail was taken on one of its connections: the relay is well."""
        self._short_lives = 0
        if not self._breaker.closed:
            self._breaker.took_mail()
            self._look_again()

    def released(self, connection: Connection) -> None:
        """A connection that `connect` gave takes no more mails.

        Those that end early, and without a word on any mail, count as failed dials from the second on: so a relay that
        signs everybody in and hangs up, or does so over every mail, is not dialled in a tight loop.
        """
        self._presence.open -= 1
        if self._presence.open == 0:
            self._look_again()
        if connection.answered or connection.age >= SHORT_LIFE_SECONDS:
            self._short_lives = 0
        elif connection.lost_cause and connection.opened >= self._last_short_life:  # else: one of several at once
            self._last_short_life = self._loop.time()
            self._short_lives += 1
            if self._short_lives > 1:
                self._failed(ConnectFailed(f"it ended a connection before any mail was taken: {connection.lost_cause}"))
        if self._presence.open == 0:
            self._presence.emptied(connection.lost_cause)

    @property
    def _every_worker_may_dial(self) -> bool:
        return self._presence.open > 0 and self._breaker.closed

    async def _next_try(self, *, patient: bool) -> None:
        """Wait until the relay may be dialled, or has proved to be well on another connection."""
        while (seconds := self.retry_after) > 0:
            if not patient and (self._presence.open == 0 or self._breaker.over_sign_in):
                raise ConnectFailed(f"{self.name} is away")
            self._proved_well.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._proved_well.wait()

    def _look_again(self) -> None:
        self._proved_well.set()

    async def _dial(self) -> Connection | None:
        jitter = 1 - AGE_JITTER * self._random()  # so that connections dialled together do not retire together
        lifetime = self._settings.max_age * jitter
        try:
            connection = await Connection.open(self._settings, self._tls, lifetime=lifetime, mode=self._mode)
        except ConnectFailed as error:
            if isinstance(error, ProbeFailed):
                self._failed_probes += 1
                if self._failed_probes > 1:  # once may be the network's doing
                    self._distrust_chunks()
            self._failed(error)
            return None
        self._failed_probes = 0
        connection.keeper = self
        if connection.runs_refused_chunks:
            self._distrust_chunks()
        self._breaker.signed_in()
        self._look_again()
        self._presence.opened(connection.mode, connection.window, doubtful=self._short_lives > 0)
        self._observer.notify(ConnectionOpened(self.name, connection.mode, connection.window))
        return connection

    def _failed(self, error: ConnectFailed) -> None:
        refused = isinstance(error, SignInRefused)
        if refused:
            first, most = SIGN_IN_RETRY_SECONDS, SIGN_IN_RETRY_MAX_SECONDS
        else:
            first, most = self._settings.retry_seconds, self._settings.retry_max_seconds
        self._breaker.failed(self._loop.time(), first=first, most=max(first, most), over_sign_in=refused)
        self._presence.failed(str(error))

    def _distrust_chunks(self) -> None:
        if self._mode is Mode.BDAT:
            self._mode = Mode.DATA
            self._observer.notify(ChunksUnsafe(self.name))


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
