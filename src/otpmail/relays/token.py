"""The access token for EMAIL_AUTH=xoauth2, in a file that another program renews."""

from pathlib import Path
from threading import Semaphore
from typing import Self

from otpmail.errors import ConnectFailed
from otpmail.settings import RelaySettings
from otpmail.settings.secret_file import read_text
from otpmail.threads import call_detached

_MOST_READS = 100  # at a time: those of a file system that does not answer never end


class Token:
    """The token in EMAIL_TOKEN_FILE, which is read again for each dial.

    While the file can't be read, the last token is used: it may still be good.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.last = ""
        """The token that was read last; empty before that."""
        self._reads = Semaphore(_MOST_READS)

    def __repr__(self) -> str:
        return f"<Token {self._file}>"

    @classmethod
    def of(cls, settings: RelaySettings) -> Self | None:
        """The token to sign in with, if the settings name a file."""
        return None if settings.token_file is None else cls(settings.token_file)

    async def read(self, timeout: float) -> str:
        """Return the token, after `timeout` seconds at most. Raises ConnectFailed if none was ever read."""
        try:
            await call_detached(self.refresh, timeout=timeout)
        except (ValueError, OSError) as error:  # TimeoutError is an OSError
            if not self.last:
                raise ConnectFailed(f"EMAIL_TOKEN_FILE: {str(error) or 'takes too long to read'}") from None
        return self.last

    def refresh(self) -> None:
        """Read the file, which may block. Raises ValueError that says what is wrong with it."""
        if not self._reads.acquire(blocking=False):
            raise ValueError("takes too long to read")
        try:
            token = read_text(self._file).strip()
        finally:
            self._reads.release()
        if not token:
            raise ValueError("is empty")
        self.last = token
