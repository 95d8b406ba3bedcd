"""The outcome of a mail as a future, for tests that wait for it."""

import asyncio
from typing import Protocol

from otpmail.errors import ConnectionLost
from otpmail.model import Envelope
from otpmail.smtp.transaction import Callback, Outcome, Results


class Sender(Protocol):
    """A connection, or its protocol, to which mails are handed."""

    def send(self, envelope: Envelope, callback: Callback) -> bool:
        """Start sending a mail."""


def outcome_of(sender: Sender, envelope: Envelope) -> asyncio.Future[Results]:
    """Send a mail; the future gets a result for each recipient, or raises ConnectionLost."""
    future: asyncio.Future[Results] = asyncio.get_running_loop().create_future()

    def resolve(outcome: Outcome) -> None:
        if future.done():
            return
        if isinstance(outcome, ConnectionLost):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    sender.send(envelope, resolve)
    return future
