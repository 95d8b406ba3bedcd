"""A TCP proxy before a store's server that cuts connections between a command and its answer."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType

_HOST = "127.0.0.1"


class CuttingProxy:
    """Forwards connections to a port. Each answer that comes while `cuts` are left is dropped, and its connection cut.

    The server has carried out the command by then. With `only`, just answers to what holds these octets are dropped.
    """

    def __init__(self, port: int, *, only: bytes = b"") -> None:
        """Take the server's port."""
        self._only = only
        self.port = 0
        self.cuts = 0
        self.cut = 0
        self._upstream = port
        self._server: asyncio.Server | None = None
        self._forwarding: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, _HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cut everything."""
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        """The value of STORE_URL that leads through here."""
        return f"redis://{_HOST}:{self.port}"

    def forget(self) -> None:
        """Forward nothing more of the connections that there are, and leave them open, as a router that forgot them."""
        for task in self._forwarding:
            task.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._begin(self._serve(reader, writer))

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(_HOST, self._upstream)
        asked = bytearray()
        forward = self._begin(_pump(reader, upstream_writer, asked))
        self._forwarding.add(forward)
        forward.add_done_callback(self._forwarding.discard)
        try:
            while answer := await upstream_reader.read(1 << 16):
                if self.cuts and self._only in asked:
                    self.cuts -= 1
                    self.cut += 1
                    return
                asked.clear()
                writer.write(answer)
                await writer.drain()
        except OSError:
            pass
        finally:
            forward.cancel()
            for end in (writer, upstream_writer):
                end.close()
                with contextlib.suppress(OSError):
                    await end.wait_closed()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: bytearray) -> None:
    with contextlib.suppress(OSError):
        while octets := await reader.read(1 << 16):
            seen += octets
            writer.write(octets)
            await writer.drain()
