"""Listens on HTTP_HOST and HTTP_PORT, with TLS where it is set, and bounds the connections."""

import asyncio
import logging
import math
import socket
import sys
from collections.abc import Collection, Iterable
from email.utils import formatdate
from heapq import nsmallest
from operator import itemgetter
from random import Random

from otpmail.counts import counted
from otpmail.errors import SettingsError
from otpmail.limits.descriptors import FOR_PROBES
from otpmail.limits.memory import NOTHING, Memory
from otpmail.settings.certificates import CertificateFiles
from otpmail.telemetry.logs import log_event
from otpmail.web.accepting import Acceptor
from otpmail.web.binding import BACKLOG, close_sockets, open_sockets
from otpmail.web.connection import Connection, Handler
from otpmail.web.ending import TIMES, Times
from otpmail.web.tls import TlsServer, tls_context

_TICK_SECONDS = 1.0
_QUIET_SECONDS = 60.0  # between two warnings
_MOMENT = 0.01
_MOST_MOMENTS = 20  # for the first requests of connections, once the listener is closed


class _Open:
    """The connections that are open, at most so many. One more takes the place of the one that has been idle longest.

    Where none is idle, a few more may come for probes, and the rest is sent 503. A connection that is older than
    `age_seconds`, give or take a tenth, closes after an answer, so that balancers can spread their clients anew.
    """

    def __init__(self, most: int, age_seconds: float, memory: Memory) -> None:
        self._most = most
        self.memory = memory
        self._age_seconds = age_seconds
        self._ages = Random()  # noqa: S311  no secret: it spreads the ends of connections
        self._is_retiring = False
        self.open: dict[Connection, None] = {}
        self.ending: set[asyncio.Task[None]] = set()
        """Calls that are cancelled, since their connections have ended."""
        self.date = b""
        self._warned = -math.inf

    def __len__(self) -> int:
        return len(self.open)

    def __repr__(self) -> str:
        return f"<_Open {len(self)} of {self._most}>"

    def add(self, connection: Connection) -> None:
        """Count a connection."""
        self.open[connection] = None
        if not self._is_retiring:
            connection.ends_at = connection.opened + self._age_seconds * self._ages.uniform(0.9, 1.1)
        if len(self.open) > self._most:
            asyncio.get_running_loop().call_soon(self._make_room, connection)

    def discard(self, connection: Connection) -> None:
        """Count it no more."""
        self.open.pop(connection, None)
        if (task := connection.running) is not None and not task.done():
            self.ending.add(task)
            task.add_done_callback(self.ending.discard)

    def tasks(self) -> set[asyncio.Task[None]]:
        """Return the calls that run."""
        running = (connection.running for connection in self.open)
        return self.ending | {task for task in running if task is not None and not task.done()}

    def retire(self) -> None:
        """Close connections after their next answers."""
        self._is_retiring = True
        for connection in self.open:
            connection.retire()

    def _make_room(self, latest: Connection) -> None:
        waiting = (
            (since, connection)
            for connection in self.open
            if connection is not latest and (since := connection.evictable_since) is not None
        )
        losers = nsmallest(len(self.open) - self._most, waiting, key=itemgetter(0))  # more than one may have come
        for _, loser in losers:
            self.discard(loser)
            loser.transport.abort()  # without an answer: its client could take one for that to its next request
        if len(self.open) > self._most:
            self._warn()
        if len(self.open) > self._most + FOR_PROBES and latest.is_idle:
            latest.refuse(503)
        elif len(self.open) > self._most:
            latest.is_for_probes = True
            latest.retire()  # its first request may be here already

    def _warn(self) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._warned + _QUIET_SECONDS:
            return
        self._warned = now
        text = f"HTTP_PORT has {counted(self._most, 'connection')} that are busy, as many as it may"
        text = f"{text}; new ones are answered for probes alone (MAX_CONNECTIONS, ulimit -n)"
        log_event(logging.WARNING, "connections-full", text, address="HTTP_PORT", most=self._most)


class Listener:
    """Answers requests by `handler` on every address of a host, until `close` or `stop`.

    `most` is how many connections may be open, and `age_seconds` how old a connection gets. Requests that come count in
    the `memory`; without one they have no bound together. Those to `eager_paths` begin without a task. Build it
    inside a running loop.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        most: int,
        times: Times = TIMES,
        age_seconds: float = math.inf,
        memory: Memory | None = None,
        eager_paths: Collection[str] = (),
    ) -> None:
        self._times = times
        self._eager_paths = eager_paths
        self._handler = handler
        self._open = _Open(most, age_seconds, memory or Memory(sys.maxsize, NOTHING, NOTHING))
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._tls: TlsServer | None = None
        self._acceptor: Acceptor | None = None
        self._beginning: set[asyncio.Task[None]] = set()  # connections of shared sockets
        self._ticking: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Listener {len(self._open)} connections>"

    async def start(
        self, host: str, port: int, files: CertificateFiles | None = None, *, any_port: bool = False
    ) -> int:
        """Listen on every address of `host`, all on one port, and return it. Raises SettingsError.

        With `any_port` it is any other port where `port` is taken.
        """
        sockets, port = await open_sockets(host, port, any_port=any_port)
        await self.serve(sockets, files)
        return port

    async def serve(
        self, sockets: Iterable[socket.socket], files: CertificateFiles | None = None, *, shared: bool = False
    ) -> None:
        """Take connections from sockets that listen, which this object closes. Raises SettingsError.

        With `shared` other processes take connections from them too.
        """
        self._sockets = list(sockets)
        held = self._open.__len__ if shared else None
        try:
            context = None if files is None else tls_context(files)
            self._tick()  # an answer has a date from the first one on
            if context is not None:
                self._tls = TlsServer(self._connection, context, handshake_seconds=self._times.head)
                self._acceptor = Acceptor(self._sockets, self._tls.begin, held)
            elif shared:
                self._acceptor = Acceptor(self._sockets, self._begin, held)
            else:
                loop = asyncio.get_running_loop()
                for bound in self._sockets:
                    self._servers.append(await loop.create_server(self._connection, sock=bound, backlog=BACKLOG))
        except BaseException:
            self._close()
            if self._ticking is not None:
                self._ticking.cancel()
            raise

    def renew(self, files: CertificateFiles) -> None:
        """Use these files for connections from now on. Open ones go on, and where TLS refuses the files all does."""
        if self._tls is None:
            return
        try:
            self._tls.context = tls_context(files)
        except SettingsError as error:
            log_event(logging.ERROR, "http-certificate-kept", f"{error}; HTTP_PORT keeps the certificate that it has")

    def retire(self) -> None:
        """Close each connection after its next answer, so that its client finds another service."""
        self._open.retire()

    async def stop(self, seconds: float = 0.0) -> None:
        """Stop listening, close what is idle, and the rest once it is answered, or after so many seconds.

        A connection that has just come has a moment for its request, which would be lost with it.
        """
        self._close()
        await self._begun()
        self.retire()
        for connection in list(self._open.open):
            if not connection.is_new:
                connection.shutdown()
        for _ in range(_MOST_MOMENTS if seconds else 0):
            if not any(connection.is_new for connection in self._open.open):
                break
            await asyncio.sleep(_MOMENT)
        for connection in list(self._open.open):
            connection.shutdown()
        ends = asyncio.get_running_loop().time() + seconds
        while (tasks := self._open.tasks()) and (left := ends - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(tasks, timeout=left)
        for connection in list(self._open.open):
            connection.transport.abort()
        if self._tls is not None:
            await self._tls.wait_closed()
        if self._ticking is not None:
            self._ticking.cancel()

    def _begin(self, accepted: socket.socket) -> None:
        """Begin a connection of a shared socket."""
        task = asyncio.get_running_loop().create_task(self._connect(accepted))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    async def _connect(self, accepted: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._connection, accepted)
        except OSError:  # its client has gone
            accepted.close()

    async def _begun(self) -> None:
        """Wait for connections that were accepted."""
        if self._beginning:
            await asyncio.wait(self._beginning)

    def _connection(self) -> Connection:
        loop = asyncio.get_running_loop()
        return Connection(self._handler, self._open, loop, times=self._times, eager_paths=self._eager_paths)

    def _tick(self) -> None:
        """Write the date of answers anew."""
        self._open.date = f"date: {formatdate(usegmt=True)}\r\n".encode()
        self._ticking = asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)

    def _close(self) -> None:
        """Take no more connections."""
        if self._acceptor is not None:
            self._acceptor.close()
        for server in self._servers:
            server.close()
        self._servers.clear()
        close_sockets(self._sockets)
        self._sockets.clear()
