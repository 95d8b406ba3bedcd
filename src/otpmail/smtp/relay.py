"""The relay as all workers share it: who may dial it when, and whether it is there.

While dialling works, every worker dials for itself. Once it fails, one worker at a time tries, later each time, and the
others wait for what it finds: a relay in trouble is not stormed, and a refused sign-in is not repeated into a lock-out.
"""

import asyncio
import ssl
from collections.abc import Callable

from otpmail.errors import ConnectFailed, SignInRefused
from otpmail.events import ConnectionOpened, Observer, RelayDown, RelayUp
from otpmail.settings import RelaySettings
from otpmail.smtp.connection import Connection

SIGN_IN_RETRY_SECONDS = 60.0  # Gmail and its like lock an account that is signed in to again and again
SHORT_LIFE_SECONDS = 10.0
AGE_JITTER = 0.2


class Relay:
    """Opens connections to one relay, and knows whether any is open."""

    def __init__(self, settings: RelaySettings, observer: Observer, *, random: Callable[[], float]) -> None:
        self.name = f"{settings.host}:{settings.port}"
        self._settings = settings
        self._observer = observer
        self._random = random
        self._tls = tls_context(settings)
        self._open = 0
        self._failures = 0  # in a row; a connection ends the row not by being opened but by having been of use
        self._next_try = 0.0
        self._error = ""
        self._told: bool | None = None
        self._probing = asyncio.Lock()

    def __repr__(self) -> str:
        trouble = f", {self._failures} failures: {self._error}" if self._failures else ""
        return f"<Relay {self.name} {self._open} open{trouble}>"

    @property
    def down(self) -> bool:
        """Dialling has failed and no connection is open."""
        return self._failures > 0 and self._open == 0

    @property
    def up(self) -> bool:
        """At least one connection is open."""
        return self._open > 0

    @property
    def retry_after(self) -> float:
        """Seconds until the relay is tried again, while it is down."""
        return max(0.0, self._next_try - asyncio.get_running_loop().time())

    async def connect(self) -> Connection:
        """A new connection, open and signed in; waits as long as it takes to get one."""
        while True:
            if self._failures == 0:
                connection = await self._dial()
            else:
                async with self._probing:
                    await asyncio.sleep(self.retry_after)
                    connection = await self._dial()
            if connection is not None:
                return connection

    def released(self, connection: Connection) -> None:
        """A connection that `connect` gave takes no more mails.

        One that the relay ended soon and without a mail counts as a failed dial: a relay that signs everybody in and
        hangs up is not dialled in a tight loop.
        """
        self._open -= 1
        if connection.sent or connection.age >= SHORT_LIFE_SECONDS:
            self._failures = 0
        elif connection.lost_cause:
            self._failed(ConnectFailed(f"it ended a connection before any mail: {connection.lost_cause}"))

    async def _dial(self) -> Connection | None:
        jitter = 1 - AGE_JITTER * self._random()  # so that connections dialled together do not retire together
        try:
            connection = await Connection.open(self._settings, self._tls, lifetime=self._settings.max_age * jitter)
        except ConnectFailed as error:
            self._failed(error)
            return None
        self._open += 1
        if not self._told:
            self._told = True
            self._observer.notify(RelayUp(self.name))
        self._observer.notify(ConnectionOpened(self.name, connection.mode))
        return connection

    def _failed(self, error: ConnectFailed) -> None:
        now = asyncio.get_running_loop().time()
        self._error = str(error)
        if now >= self._next_try:  # dials that fail together are one failure
            self._failures += 1
            first = SIGN_IN_RETRY_SECONDS if isinstance(error, SignInRefused) else self._settings.retry_seconds
            most = max(first, self._settings.retry_max_seconds)
            delay = min(most, first * 2 ** min(self._failures - 1, 16))
            self._next_try = now + delay * (0.75 + 0.5 * self._random())
        if self._told is not False and self._open == 0:
            self._told = False
            self._observer.notify(RelayDown(self.name, self._error, self._next_try - now))


def tls_context(settings: RelaySettings) -> ssl.SSLContext:
    """TLS 1.2 or later, the relay's certificate verified and its name checked, against the system's CAs or our own."""
    context = ssl.create_default_context(cafile=settings.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
