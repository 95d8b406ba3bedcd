"""The relay as all workers share it: who may dial it when, and whether it is there.

While a connection is open and dialling works, every worker dials for itself. Otherwise one worker at a time tries,
later each time, and the others wait for what it finds: a relay in trouble is not stormed, and a refused sign-in is not
repeated into a lock-out.
"""

import asyncio
import ssl
from collections.abc import Callable

from otpmail.errors import ConnectFailed, SettingsError, SignInRefused
from otpmail.events import ConnectionOpened, Observer, RelayDown, RelayUp
from otpmail.settings import RelaySettings
from otpmail.smtp.connection import Connection

# Gmail and its like lock an account that is signed in to again and again with the wrong password.
SIGN_IN_RETRY_SECONDS = 60.0
SIGN_IN_RETRY_MAX_SECONDS = 900.0
SHORT_LIFE_SECONDS = 10.0
NOTICE_SECONDS = 1.0  # how long no connection may be open before the relay counts as away
AGE_JITTER = 0.2


class _Backoff:
    """How long to wait after failures in a row. Those before the next try is due are one failure."""

    def __init__(self, random: Callable[[], float]) -> None:
        self.failures = 0
        self.next_try = 0.0
        self._random = random

    def failed(self, now: float, *, first: float, most: float) -> None:
        """Note a failure: the wait is `first`, twice as long each time, at most `most`, in seconds."""
        if self.failures and now < self.next_try:
            return
        delay = min(most, first * 2 ** min(self.failures, 16))
        self.failures += 1
        self.next_try = now + delay * (0.75 + 0.5 * self._random())

    def clear(self) -> None:
        self.failures = 0
        self.next_try = 0.0


class Relay:
    """Opens connections to one relay, and knows whether it is away."""

    def __init__(self, settings: RelaySettings, observer: Observer, *, random: Callable[[], float]) -> None:
        self.name = f"{settings.host}:{settings.port}"
        self._settings = settings
        self._observer = observer
        self._random = random
        self._tls = tls_context(settings)
        self._loop = asyncio.get_running_loop()
        self._open = 0
        self._backoff = _Backoff(random)
        self._probing = asyncio.Lock()
        self._down: bool | None = None  # None until the first dial has had its answer
        self._notice: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        state = "away" if self._down else "here"
        return f"<Relay {self.name} {state}, {self._open} open, {self._backoff.failures} failures>"

    @property
    def down(self) -> bool:
        """No connection is open, and not just for the moment that a new one takes."""
        return self._down is True

    @property
    def retry_after(self) -> float:
        """Seconds until the relay may be dialled again, 0 for now."""
        return max(0.0, self._backoff.next_try - self._loop.time())

    async def connect(self) -> Connection:
        """A new connection, open and signed in; waits as long as it takes to get one."""
        connection = None
        while connection is None:
            if self._every_worker_may_dial:
                connection = await self._dial()
                continue
            async with self._probing:
                if not self._every_worker_may_dial:  # nobody got through while this one waited for its turn
                    await asyncio.sleep(self.retry_after)
                    connection = await self._dial()
        return connection

    def released(self, connection: Connection) -> None:
        """A connection that `connect` gave takes no more mails.

        One that the relay turned away counts as a failed dial: a relay that signs everybody in and hangs up is not
        dialled in a tight loop. One that had been of use shows that the relay is well.
        """
        self._open -= 1
        if connection.sent or connection.age >= SHORT_LIFE_SECONDS:
            self._backoff.clear()
        elif connection.turned_away:
            self._failed(ConnectFailed(f"it ended a connection before any mail: {connection.lost_cause}"))
        if self._open == 0 and self._notice is None:
            self._notice = self._loop.call_later(NOTICE_SECONDS, self._away, "no connection is left")

    @property
    def _every_worker_may_dial(self) -> bool:
        return self._open > 0 and self._backoff.failures == 0

    async def _dial(self) -> Connection | None:
        jitter = 1 - AGE_JITTER * self._random()  # so that connections dialled together do not retire together
        try:
            connection = await Connection.open(self._settings, self._tls, lifetime=self._settings.max_age * jitter)
        except ConnectFailed as error:
            self._failed(error)
            return None
        self._open += 1
        if self._notice is not None:
            self._notice.cancel()
            self._notice = None
        self._here()
        self._observer.notify(ConnectionOpened(self.name, connection.mode))
        return connection

    def _failed(self, error: ConnectFailed) -> None:
        if isinstance(error, SignInRefused):
            first, most = SIGN_IN_RETRY_SECONDS, SIGN_IN_RETRY_MAX_SECONDS
        else:
            first, most = self._settings.retry_seconds, self._settings.retry_max_seconds
        self._backoff.failed(self._loop.time(), first=first, most=max(first, most))
        if self._open == 0:
            self._away(str(error))

    def _here(self) -> None:
        if self._down is not False:
            self._down = False
            self._observer.notify(RelayUp(self.name))

    def _away(self, error: str) -> None:
        self._notice = None
        if self._down is not True:
            self._down = True
            self._observer.notify(RelayDown(self.name, error, self.retry_after))


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
