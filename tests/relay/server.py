"""The relay itself: listens, records mails and commands, and lets tests wait for events."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from math import inf
from typing import TYPE_CHECKING, Self

from ports import ReservedPort
from relay.certificates import HOST
from relay.faults import Faults
from relay.session import Session
from relay.wire import HANDSHAKE_SECONDS, Wire

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from types import TracebackType

    from relay.certificates import Certificates
    from relay.faults import CaughtMail, Command


class Relay:
    """The relay: listens on loopback, records mails and commands, and commits `faults`, which may be replaced.

    `faults` is read at each decision, so that a replacement holds for open connections too.
    """

    def __init__(
        self,
        faults: Faults | None = None,
        *,
        certificates: Certificates | None = None,
        host: str = HOST,
        port: int = 0,
    ) -> None:
        """Make a relay that `start` will bind to `host` and `port`; it needs certificates but for security "plain"."""
        self.certificates = certificates
        self.host = host
        self.port = port
        self.mails: list[CaughtMail] = []
        self.commands: list[Command] = []
        self.connections = 0
        self.max_open = 0
        self.failed_handshakes = 0
        self.struck: set[int] = set()  # the connections that a fault struck
        self._sessions: set[Session] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: list[BaseException] = []
        self._held: ReservedPort | None = None
        self._listener: socket.socket | None = None
        self._changed = asyncio.Event()
        self._random = random.Random(20)  # so that a failed run can be run again
        self.faults = faults or Faults()

    def __repr__(self) -> str:
        """Show counts and the last commands, which explain a failed wait."""
        return (
            f"<Relay port={self.port} mails={len(self.mails)} connections={self.connections} "
            f"open={self.open_connections} last={[command.line for command in self.commands[-5:]]}>"
        )

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close, and let go of the port."""
        try:
            await self.close()
        finally:
            if self._held is not None:
                self._held.close()

    @property
    def faults(self) -> Faults:
        """The faults now in force; setting them starts the count of `times` afresh."""
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._faults = faults
        self._strikes_left = faults.times
        self._counted_from, self._counted = -inf, 0

    @property
    def open_connections(self) -> int:
        """How many clients are connected."""
        return len(self._sessions)

    async def start(self) -> None:
        """Listen; a relay that was closed comes back on the port it had, which nobody else gets within `async with`."""
        if self._held is None:
            self._held = ReservedPort(host=self.host, port=self.port)
            self.port = self._held.port
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._listener = socket.create_server((self.host, self.port), family=family, backlog=1024)
        self._listener.settimeout(0)
        asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    async def close(self) -> None:
        """Stop listening, cut all connections, and raise the errors of the relay itself."""
        if self._listener is None:
            return
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        self._listener = None
        for task in self._tasks:
            task.cancel()
        await self._wait(lambda: not self._tasks, "its sessions to end", HANDSHAKE_SECONDS)
        for session in list(self._sessions):
            session.wire.abort()
        await self._wait(lambda: not self._sessions, "its connections to end", HANDSHAKE_SECONDS)
        if self._errors:
            errors, self._errors = self._errors, []
            message = "the relay failed"
            raise BaseExceptionGroup(message, errors)

    def drop_connections(self, reply: str | None = None, *, used: bool = False) -> int:
        """Cut the idle connections, after an unasked reply if one is given, and return how many there were.

        A client that signs in is idle too between two commands. With `used`, only those are cut that brought a mail.
        """
        idle = [session for session in self._sessions if session.is_idle and (session.taken or not used)]
        for session in idle:
            session.drop(reply)
        return len(idle)

    def recount(self) -> None:
        """Count the replies on every connection anew, from that to its next MAIL on, as for a new connection."""
        for session in self._sessions:
            session.recount()

    def cut_connections(self) -> None:
        """Cut every connection, also those in the middle of something or fallen silent."""
        for session in list(self._sessions):
            session.wire.abort()

    async def wait_for_mails(self, count: int, timeout: float = 30) -> list[CaughtMail]:
        """Return all mails as soon as there are `count` of them."""
        await self._wait(lambda: len(self.mails) >= count, f"{count} mails", timeout)
        return self.mails

    async def wait_for_connections(self, count: int, timeout: float = 30) -> None:
        """Return as soon as `count` connections were made, whether or not they are still open."""
        await self._wait(lambda: self.connections >= count, f"{count} connections", timeout)

    async def wait_for_open(self, count: int, timeout: float = 30) -> None:
        """Return as soon as exactly `count` connections are open."""
        await self._wait(lambda: self.open_connections == count, f"{count} open connections", timeout)

    async def wait_for_idle(self, count: int, timeout: float = 30) -> None:
        """Return as soon as exactly `count` clients are signed in and wait for no reply."""

        def idle() -> int:
            return sum(session.is_idle and session.is_signed_in for session in self._sessions)

        await self._wait(lambda: idle() == count, f"{count} idle connections", timeout)

    async def wait_for_ready(self, count: int, timeout: float = 30) -> None:
        """Return as soon as exactly `count` clients have probed the relay, which ends with RSET, and wait for no reply.

        A client that is signed in may be about to probe: what cuts it then, or strikes BDAT, strikes the probe.
        """

        def ready() -> int:
            return sum(session.is_idle and session.has_reset for session in self._sessions)

        await self._wait(lambda: ready() == count, f"{count} connections that are ready", timeout)

    async def wait_for_quiet(self, seconds: float, timeout: float = 30) -> None:
        """Return once no client has come, gone or said anything for this long, nor has the relay."""
        async with asyncio.timeout(timeout):
            while True:
                try:
                    async with asyncio.timeout(seconds):
                        await self._changed.wait()
                except TimeoutError:
                    return

    async def wait_for_command(self, start: str, count: int = 1, timeout: float = 30) -> None:
        """Return as soon as `count` commands that begin with `start` were read."""

        def seen() -> bool:
            return sum(command.line.startswith(start) for command in self.commands) >= count

        await self._wait(seen, f"{count} x {start}", timeout)

    async def _wait(self, happened: Callable[[], bool], what: str, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not happened():
                    await self._changed.wait()
        except TimeoutError as error:
            message = f"waited {seconds} s for {what}: {self!r}"
            raise TimeoutError(message) from error

    def notify_waiters(self) -> None:
        """Have every wait check its condition again."""
        self._changed.set()
        self._changed = asyncio.Event()

    # Its sessions call these.

    def strikes(self) -> bool:
        """Use up one of `times` and say whether there was one left."""
        if self._strikes_left is None:
            return True
        if self._strikes_left == 0:
            return False
        self._strikes_left -= 1
        return True

    def happens(self, likely: float) -> bool:
        """Say whether a fault by chance strikes."""
        return self._random.random() < likely

    def rank(self, session: Session) -> int:
        """Return how many of the open connections are older than this one."""
        return sum(other.number < session.number for other in self._sessions)

    def too_fast(self) -> str | None:
        """Count a mail, and return the refusal of one that is too many in its time."""
        if self._faults.rate is None:
            return None
        most, seconds = self._faults.rate
        now = asyncio.get_running_loop().time()
        if now >= self._counted_from + seconds:
            self._counted_from, self._counted = now, 0
        self._counted += 1
        return self._faults.too_fast if self._counted > most else None

    def catch(self, mail: CaughtMail) -> None:
        """Keep a mail that was taken."""
        self.mails.append(mail)
        self.notify_waiters()

    def record(self, command: Command) -> None:
        """Keep a command that was read."""
        self.commands.append(command)
        self.notify_waiters()

    def server_context(self) -> ssl.SSLContext:
        """Return the context that the faults ask for."""
        if self.certificates is None:
            message = f"security {self.faults.security!r} needs certificates"
            raise RuntimeError(message)
        faults = self.faults
        return self.certificates.server_context(
            faults.certificate, tls_1_1=faults.tls_1_1, wants_certificate=faults.wants_certificate
        )

    def handshake_failed(self) -> None:
        """Count a client whose TLS handshake failed."""
        self.failed_handshakes += 1
        self.notify_waiters()

    # Its connections, from accept to loss.

    def _accept(self, listener: socket.socket) -> None:
        # asyncio's servers decide on TLS once, not for each connection, and do not count a failed handshake. A
        # cancelled `sock_accept` can leave a socket unclosed.
        with contextlib.suppress(BlockingIOError):
            connection, _ = listener.accept()
            connection.settimeout(0)
            # asyncio sets this only on sockets that know their protocol. Without it a second reply waits 40 ms.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._begin(Wire(connection, sent=self.notify_waiters, lost=self._lost))

    def _begin(self, wire: Wire) -> None:
        self.connections += 1
        session = Session(self, wire, self.connections)
        self._sessions.add(session)
        self.max_open = max(self.max_open, self.open_connections)
        task = asyncio.create_task(session.run())
        self._tasks.add(task)
        task.add_done_callback(self._session_ended)
        self.notify_waiters()

    def _lost(self, wire: Wire) -> None:
        self._sessions = {session for session in self._sessions if session.wire is not wire}
        self.notify_waiters()

    def _session_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._errors.append(error)
        self.notify_waiters()
