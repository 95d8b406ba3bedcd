"""Checks a connection before it is taken over from aiosmtplib, which has signed in on it."""

import asyncio

from aiosmtplib.protocol import SMTPProtocol

from otpmail.errors import ConnectFailed
from otpmail.smtp.session import Session


def check_handover(transport: asyncio.Transport, inner: SMTPProtocol, session: Session) -> None:
    """Raise ConnectFailed where the relay has said more than it was asked for, or has closed the connection.

    aiosmtplib keeps what arrived together with the reply that it waited for. A reply to a command that was not sent yet
    would be taken for the reply to the first one. Every later reply would be taken for another command's.
    """
    surplus = bytes(inner._buffer)  # noqa: SLF001  so pyproject.toml bounds aiosmtplib
    if surplus:
        raise ConnectFailed(f"the relay said more than it was asked for: {session.words.line(surplus)}")
    if transport.is_closing():
        raise ConnectFailed("the relay closed the connection right after signing in")


class _Gone(asyncio.Transport):
    """Takes the place of a transport whose connection is over: the memory of TLS is free at once then."""

    def is_closing(self) -> bool:
        """Whether it takes nothing more: it never does."""
        return True

    def abort(self) -> None:
        """Do nothing: there is nothing to close."""


GONE = _Gone()
