"""A listener of HTTP for one test, and a connection to it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from otpmail.settings.certificates import CertificateFiles
    from otpmail.web.listener import Listener


@asynccontextmanager
async def listening(listener: Listener, files: CertificateFiles | None = None) -> AsyncIterator[int]:
    """Listen on a free port, which is yielded, and stop at the end."""
    try:
        async with asyncio.timeout(30):
            yield await listener.start("127.0.0.1", 0, files)
    finally:
        await listener.stop()


@asynccontextmanager
async def connected(listener: Listener) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Listen as `listening` does, and connect."""
    async with listening(listener) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield reader, writer
        finally:
            writer.close()
