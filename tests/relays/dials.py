"""Dials to what a test serves: a relay, or a server whose TLS handshake fails."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from otpmail.relays.connection import Connection
from otpmail.relays.dial import SignedIn, dial
from otpmail.relays.secure import tls_context
from otpmail.relays.token import Token
from otpmail.settings import RelaySettings, load_section
from otpmail.smtp.mode import Mode
from relay import HOST


async def dial_port(port: int, **values: str) -> SignedIn:
    """Dial a port of this machine, plain and without a sign-in unless `values` say otherwise, and close."""
    known = {"EMAIL_HOST": HOST, "EMAIL_PORT": str(port), "EMAIL_SECURITY": "plain", "EMAIL": "", "APP_PASSWORD": ""}
    settings = load_section(RelaySettings, **known | values)
    async with asyncio.timeout(10):
        signed_in = await dial(settings, tls_context(settings), Token.of(settings))
    signed_in.client.close()
    return signed_in


async def open_connection(
    settings: RelaySettings, tls: ssl.SSLContext | None = None, *, mode: Mode = Mode.BDAT
) -> Connection:
    """Open a connection as a relay's dialler does, for a minute."""
    signed_in = await dial(settings, tls or ssl.create_default_context())
    return await Connection.over(signed_in, settings, lifetime=60, mode=mode)


@asynccontextmanager
async def failing_handshake(context: ssl.SSLContext) -> AsyncIterator[int]:
    """Serve one TLS handshake, which fails, by this context; yields the port."""

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, pytest.raises(ssl.SSLError):
            context.wrap_socket(connection, server_side=True)

    with socket.create_server((HOST, 0)) as listener:
        serving = asyncio.create_task(asyncio.to_thread(serve, listener))
        yield listener.getsockname()[1]
        await serving
