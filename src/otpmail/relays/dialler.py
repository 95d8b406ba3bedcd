"""Dials one relay, with the credentials and in the mode that are known to serve."""

import ssl
from collections.abc import Callable
from typing import NamedTuple

from otpmail import backoff
from otpmail.events import ChunkingDisabled, Observer
from otpmail.relays.addresses import Addresses
from otpmail.relays.connection import Connection
from otpmail.relays.dial import dial
from otpmail.relays.secure import read_identity, tls_context
from otpmail.relays.token import Token
from otpmail.settings import RelaySettings
from otpmail.smtp.mode import Mode

AGE_JITTER = 0.2


class Credentials(NamedTuple):
    """How to dial a relay and sign in: what may change while the service runs.

    `identity` is what `tls` shows the relay of us, as in the files (`secure.read_identity`).
    """

    settings: RelaySettings
    tls: ssl.SSLContext
    token: Token | None
    identity: bytes = b""


class Dialler:
    """Opens connections. It remembers the address that answered, and a mode that is not safe with the relay.

    `random` returns [0, 1).
    """

    def __init__(
        self,
        settings: RelaySettings,
        observer: Observer,
        random: Callable[[], float],
        *,
        addresses: Addresses | None = None,
    ) -> None:
        self.credentials = Credentials(settings, tls_context(settings), Token.of(settings), read_identity(settings))
        self._settings = settings
        self._observer = observer
        self._random = random
        self._addresses = addresses or Addresses(settings.host, settings.port)
        self._mode = Mode.allowed_by(settings.mode)

    def __repr__(self) -> str:
        return f"<Dialler of {self._settings.endpoint}, {self._mode} at the fastest>"

    async def dial(self, *, avoids_chunks: bool) -> Connection:
        """Open a connection; `avoids_chunks` is whether mails must not go by BDAT on it. Raises ConnectFailed."""
        # Connections that are dialled together must not be replaced together.
        lifetime = backoff.shortened(self._settings.max_age, AGE_JITTER, self._random)
        settings, tls, token, _ = self.credentials
        mode = self._mode.slower(Mode.DATA) if avoids_chunks else self._mode
        signed_in = await dial(settings, tls, token, self._addresses)
        connection = await Connection.over(signed_in, settings, lifetime=lifetime, mode=mode)
        if connection.runs_refused_chunks and self._mode is Mode.BDAT:
            self._mode = Mode.DATA  # for ever, since the relay was seen to do so
            self._observer.notify(ChunkingDisabled(self._settings.endpoint))
        return connection
