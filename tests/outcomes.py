"""A mail's outcome as a future, for tests that wait for it."""

import asyncio

from otpmail.errors import ConnectionLost
from otpmail.model import Envelope
from otpmail.relays.connection import Connection
from otpmail.smtp.transaction import Results


def outcome_of(connection: Connection, envelope: Envelope) -> asyncio.Future[Results]:
    """Send a mail; the future gets a result for each recipient, or raises ConnectionLost."""
    future: asyncio.Future[Results] = asyncio.get_running_loop().create_future()

    def tell(outcome: Results | ConnectionLost) -> None:
        if future.done():
            return
        if isinstance(outcome, ConnectionLost):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    connection.send(envelope, tell)
    return future
