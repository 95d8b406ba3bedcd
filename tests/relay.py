"""An SMTP relay for tests that catches mail and misbehaves on request.

It is ours, not aiosmtpd, because a test must be able to say at which byte a relay goes wrong: `Faults` names every way
it can, and everything else it does is what RFC 5321 and its extensions ask for. It delivers nothing, and a test waits
for what happened (`wait_for_mails`), never for time to pass.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import json
import random
import re
import socket
import ssl
import warnings
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Self, cast

import trustme

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

Security = Literal["plain", "starttls", "tls"]
HOST = "127.0.0.1"
MAX_LINE = 1 << 20
READ_AHEAD = 1 << 16  # past this, input waits in the kernel until the session asks for it, as with a busy relay
HANDSHAKE_SECONDS = 10.0
_PATH = re.compile(r"<([^<>\s]*)>(?: (.*))?", re.ASCII)
_OPEN_BEFORE_TLS = frozenset({"EHLO", "HELO", "STARTTLS", "NOOP", "RSET", "QUIT"})
_LAST_OF_A_GROUP = frozenset({"EHLO", "HELO", "STARTTLS", "AUTH", "DATA"})  # RFC 2920, 3.1; RFC 3207; RFC 4954


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What the relay offers and where it fails; without arguments, a well-behaved relay on plain TCP.

    A reply is written as "451 4.3.0 later". With a line feed in it, it is one reply of several lines; with CRLF, it is
    sent as it is, so that there may be one reply too many.
    A point (`cut_before_reply` and its like) is a command, or "CONNECT" for the greeting, or "." for the end of DATA.
    """

    # What it offers.
    security: Security = "plain"
    auth: tuple[str, ...] = ("PLAIN", "LOGIN")  # of PLAIN, LOGIN, CRAM-MD5, XOAUTH2; () neither has nor needs AUTH
    username: str = "user"
    password: str = "secret"
    token: str = "token"
    pipelining: bool = True
    chunking: bool = True
    smtputf8: bool = True
    eightbitmime: bool = True
    size: int | None = None

    # What it refuses. Each of these uses up one of `times`, and so do the cuts and the silence below.
    greeting: str | None = None
    refuse_starttls: str | None = None
    refuse_auth: str | None = None  # in place of the answer to right credentials
    refuse_sender: str | None = None
    refuse_recipients: Mapping[str, str] = field(default_factory=dict)
    refuse_data: str | None = None  # in place of 354
    final_reply: str | None = None  # to the content, by DATA or BDAT; a positive one is only another wording
    chance: Mapping[str, tuple[float, str]] = field(default_factory=dict)  # by MAIL, RCPT or ".": how likely, and what
    times: int | None = None  # how often the faults strike, over all connections, before the relay is well again

    # Where it falls silent or goes away.
    cut_before_reply: str | None = None  # after the command took effect: at "." the mail is in `mails`, unanswered
    cut_after_reply: str | None = None
    silent_at: str | None = None
    closing_at: str | None = None  # 421 in place of the reply; for the content it is `final_reply` that can be one
    extra_at: str | None = None  # a 250 too many behind the reply
    most_open: int | None = None  # 421 to whoever connects beyond so many connections
    close_after: int | None = None  # 421 and goodbye, unasked, after this many mails on a connection
    delay: float = 0.0  # seconds from command to reply, as a long line has it: pipelined commands wait together

    # How its TLS is wrong.
    tls_1_1: bool = False  # it speaks TLS 1.1 at most
    wrong_certificate: bool = False  # the certificate is for another host name
    starttls_stripped: bool = False  # with security "starttls": not announced, and AUTH offered in the clear

    # How its protocol is odd, as seen in the wild.
    strict: bool = True  # 554 and goodbye to input that came before the reply it should have waited for, as Exim does
    sticky_bdat: bool = False  # a refused BDAT leaves the transaction open until RSET, as Exim does
    runs_refused_chunks: bool = False  # a BDAT out of sequence is not read past: its chunk runs as commands, as go-smtp
    data_without_recipients: bool = False  # 354 although every RCPT was refused


@dataclass(frozen=True, kw_only=True)
class CaughtMail:
    """A mail that the relay took; `content` is what it will have passed on, so without dot-stuffing or chunks."""

    connection: int
    sender: str
    recipients: tuple[str, ...]
    content: bytes
    parameters: Mapping[str, str]  # of MAIL; names in upper case, "" for those without a value
    username: str | None
    mode: Literal["DATA", "BDAT"]


class Command(NamedTuple):
    """A command as it was sent, secrets masked; the dot that ends DATA content counts as one."""

    connection: int
    line: str


class Certificates:
    """A certificate authority of the test run, and the server certificates it signed for localhost and 127.0.0.1."""

    def __init__(self, directory: Path) -> None:
        """Write the authority's certificate to `ca_file` in the directory."""
        self.authority = trustme.CA()
        self.ca_file = directory / "ca.pem"
        self.authority.cert_pem.write_to_path(str(self.ca_file))
        self._right = self.authority.issue_cert("localhost", HOST)
        self._wrong = self.authority.issue_cert("relay.invalid")
        self._contexts: dict[tuple[bool, bool], ssl.SSLContext] = {}

    def server_context(self, *, wrong_name: bool = False, tls_1_1: bool = False) -> ssl.SSLContext:
        """Return a server's context; with `tls_1_1` one that really would speak TLS 1.1 with whoever lets it."""
        key = (wrong_name, tls_1_1)
        if key not in self._contexts:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            (self._wrong if wrong_name else self._right).configure_cert(context)
            if tls_1_1:
                self._allow_only_tls_1_1(context)
            self._contexts[key] = context
        return self._contexts[key]

    def client_context(self) -> ssl.SSLContext:
        """Return a client's context that trusts this authority and checks names."""
        return ssl.create_default_context(cafile=self.ca_file)

    @staticmethod
    def _allow_only_tls_1_1(context: ssl.SSLContext) -> None:
        # OpenSSL 3 lets TLS 1.1 through at security level 0 only, and Python warns of what is wanted here.
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1


class Relay:
    """The relay: listens on 127.0.0.1, keeps what it was sent, and obeys `faults`, which may be replaced at any time.

    `faults` is read whenever a decision is due, so a replacement also holds for connections that are open already.
    """

    def __init__(
        self, faults: Faults | None = None, *, certificates: Certificates | None = None, port: int = 0
    ) -> None:
        """Make a relay that `start` will bind to `port`; certificates are needed unless security is "plain"."""
        self.certificates = certificates
        self.port = port
        self.mails: list[CaughtMail] = []
        self.commands: list[Command] = []
        self.connections = 0
        self.max_open = 0
        self.failed_handshakes = 0
        self.struck: set[int] = set()  # the connections that a fault struck
        self._sessions: set[_Session] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: list[BaseException] = []
        self._listener: socket.socket | None = None
        self._changed = asyncio.Event()
        self._random = random.Random(20)  # so that a failed run can be run again
        self.faults = faults or Faults()

    def __repr__(self) -> str:
        """Say what happened so far, which is what a failed wait needs to explain."""
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
        """Close."""
        await self.close()

    @property
    def faults(self) -> Faults:
        """The faults now in force; setting them starts the count of `times` afresh."""
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._faults = faults
        self._strikes_left = faults.times

    @property
    def open_connections(self) -> int:
        """How many clients are connected."""
        return len(self._sessions)

    async def start(self) -> None:
        """Listen; a relay that was closed comes back on the port it had."""
        self._listener = socket.create_server((HOST, self.port), backlog=1024)
        self._listener.settimeout(0)
        self.port = self._listener.getsockname()[1]
        asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    async def close(self) -> None:
        """Stop listening, cut all connections, and raise whatever went wrong in the relay itself."""
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

    def drop_connections(self, reply: str | None = None) -> int:
        """Cut the idle connections, after an unasked reply if one is given, and return how many there were."""
        idle = [session for session in self._sessions if session.is_idle]
        for session in idle:
            session.drop(reply)
        return len(idle)

    def cut_connections(self) -> None:
        """Cut every connection, also those in the middle of something or fallen silent."""
        for session in list(self._sessions):
            session.wire.abort()

    async def wait_for_mails(self, count: int, timeout: float = 10) -> list[CaughtMail]:
        """Return all mails as soon as there are `count` of them."""
        await self._wait(lambda: len(self.mails) >= count, f"{count} mails", timeout)
        return self.mails

    async def wait_for_connections(self, count: int, timeout: float = 10) -> None:
        """Return as soon as `count` connections were made, whether or not they are still open."""
        await self._wait(lambda: self.connections >= count, f"{count} connections", timeout)

    async def wait_for_open(self, count: int, timeout: float = 10) -> None:
        """Return as soon as exactly `count` connections are open."""
        await self._wait(lambda: self.open_connections == count, f"{count} open connections", timeout)

    async def wait_for_idle(self, count: int, timeout: float = 10) -> None:
        """Return as soon as exactly `count` clients are signed in and owed nothing."""

        def idle() -> int:
            return sum(session.is_idle and session.is_signed_in for session in self._sessions)

        await self._wait(lambda: idle() == count, f"{count} idle connections", timeout)

    async def wait_for_command(self, start: str, count: int = 1, timeout: float = 10) -> None:
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

    def tell(self) -> None:
        """Let whoever waits look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    # What its sessions call.

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

    def catch(self, mail: CaughtMail) -> None:
        """Keep a mail that was taken."""
        self.mails.append(mail)
        self.tell()

    def record(self, command: Command) -> None:
        """Keep a command that was read."""
        self.commands.append(command)
        self.tell()

    def server_context(self) -> ssl.SSLContext:
        """Return the context that the faults ask for."""
        if self.certificates is None:
            message = f"security {self.faults.security!r} needs certificates"
            raise RuntimeError(message)
        return self.certificates.server_context(wrong_name=self.faults.wrong_certificate, tls_1_1=self.faults.tls_1_1)

    def handshake_failed(self) -> None:
        """Count a client that would not have our TLS."""
        self.failed_handshakes += 1
        self.tell()

    # Its connections, from accept to loss.

    def _accept(self, listener: socket.socket) -> None:
        # Not a server of asyncio's: this way `faults` decides on TLS for each connection, and one whose handshake fails
        # counts as a connection too. Nor `sock_accept`: cancelled at the wrong moment, it drops a socket unclosed.
        with contextlib.suppress(BlockingIOError):
            connection, _ = listener.accept()
            connection.settimeout(0)
            # asyncio does so only for sockets that know their protocol. Without, a second reply waits 40 ms for an ACK.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._begin(_Wire(connection, self._lost))

    def _begin(self, wire: _Wire) -> None:
        self.connections += 1
        session = _Session(self, wire, self.connections)
        self._sessions.add(session)
        self.max_open = max(self.max_open, self.open_connections)
        task = asyncio.create_task(session.run())
        self._tasks.add(task)
        task.add_done_callback(self._session_ended)
        self.tell()

    def _lost(self, wire: _Wire) -> None:
        self._sessions = {session for session in self._sessions if session.wire is not wire}
        self.tell()

    def _session_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._errors.append(error)
        self.tell()


class _Gone(Exception):
    """The connection is over."""


class _Wire(asyncio.Protocol):
    """One connection's bytes: buffered input to wait for, delayed output in order, and TLS.

    Not asyncio's streams, because those cannot hold back the ClientHello that may arrive before `start_tls`.
    """

    def __init__(self, connection: socket.socket, lost: Callable[[_Wire], None]) -> None:
        self._connection = connection
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._input = asyncio.Event()
        self._late: deque[bytes] = deque()
        self._all_sent = asyncio.Event()
        self._ended = False  # nothing more will come
        self._closed = False
        self._paused = False
        self._over_tls = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._closed:
            return
        self._buffer += data
        if len(self._buffer) > READ_AHEAD and not self._paused:
            self.hold_input()
        self._input.set()

    def eof_received(self) -> bool:
        self._ended = True
        self._input.set()
        return not self._over_tls  # half-closed is fine on TCP: the replies to what came before are still due

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._end()
        self._lost(self)

    @property
    def transport(self) -> asyncio.Transport:
        if self._transport is None:
            raise _Gone
        return self._transport

    async def open(self, context: ssl.SSLContext | None) -> None:
        """Begin to read and write, over TLS if there is a context."""
        seconds = None if context is None else HANDSHAKE_SECONDS
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self, self._connection, ssl=context, ssl_handshake_timeout=seconds
            )
        except BaseException:
            self.connection_lost(None)  # a protocol whose handshake fails was never connected, so asyncio says nothing
            raise
        self._over_tls = context is not None

    @property
    def has_input(self) -> bool:
        return bool(self._buffer)

    @property
    def owes_replies(self) -> bool:
        return bool(self._late)

    async def read_line(self) -> bytes:
        """Return a line without its CRLF."""
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > MAX_LINE:
                self.send(b"500 5.5.2 line too long\r\n")
                raise _Gone
            await self._more()
        return self._take(end + 2)[:-2]

    async def read_exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            await self._more()
        return self._take(count)

    async def wait_ended(self) -> None:
        while not self._ended:
            self._input.clear()
            await self._input.wait()

    def send(self, data: bytes, delay: float = 0.0) -> None:
        """Send after `delay` seconds, yet never before what was sent earlier."""
        if not delay and not self._late:
            self._write(data)
            return
        self._late.append(data)
        self._all_sent.clear()
        asyncio.get_running_loop().call_later(delay, self._send_late)

    async def flush(self) -> None:
        while self._late:
            await self._all_sent.wait()

    def hold_input(self) -> None:
        """Leave what comes next in the kernel, for `start_tls` to find."""
        self._paused = True
        self.transport.pause_reading()

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Shake hands, with `hold_input` called before the client could have begun to."""
        await self.flush()
        self._buffer.clear()  # RFC 3207, 4.2: nothing said in the clear may count
        try:
            transport = await asyncio.get_running_loop().start_tls(
                self.transport, self, context, server_side=True, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
        except BaseException:
            self.abort()
            self.connection_lost(None)  # as above
            raise
        if transport is None:
            raise _Gone
        self._transport = transport
        self._over_tls = True
        self._paused = False

    def close(self) -> None:
        """Close once all that was sent, and is not late, has left."""
        self._end()
        if self._transport is not None:
            self._transport.close()
        else:
            self._connection.close()
            self._lost(self)

    def abort(self) -> None:
        """Close now, whatever has not left."""
        if self._transport is not None:
            self._transport.abort()
        self.close()

    def _end(self) -> None:
        self._ended = True
        self._closed = True
        self._buffer.clear()
        self._input.set()
        self._late.clear()
        self._all_sent.set()

    async def _more(self) -> None:
        if self._ended:
            raise _Gone
        self._input.clear()
        if self._paused:
            self._paused = False
            self.transport.resume_reading()
        await self._input.wait()

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _send_late(self) -> None:
        if self._late:
            self._write(self._late.popleft())
        if not self._late:
            self._all_sent.set()

    def _write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)


@dataclass
class _Transaction:
    sender: str
    parameters: Mapping[str, str]
    recipients: list[str] = field(default_factory=list)
    chunks: bytearray = field(default_factory=bytearray)
    has_chunks: bool = False


class _Session:
    """One client's conversation: reads a command, does it, answers it, until one side has had enough."""

    def __init__(self, relay: Relay, wire: _Wire, number: int) -> None:
        self.wire = wire
        self._relay = relay
        self._number = number
        self._greeted = False
        self._over_tls = False
        self._username: str | None = None
        self._transaction: _Transaction | None = None
        self._waits_for_command = False
        self._taken = 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing is owed: no transaction, no unread input, no command at work, no reply on its way."""
        at_work = self._transaction is not None or self.wire.has_input or self.wire.owes_replies
        return self._waits_for_command and not at_work

    @property
    def is_signed_in(self) -> bool:
        """Whether it has nothing more to say before a mail: signed in, or not asked to."""
        return self._username is not None or (self._greeted and not self._faults.auth)

    async def run(self) -> None:
        try:
            with contextlib.suppress(_Gone):
                await self._connect()
                while True:
                    await self._next_command()
            await self.wire.flush()
        finally:
            self.wire.close()

    def drop(self, reply: str | None) -> None:
        if reply is None:
            self.wire.abort()
        else:
            self.wire.send(_on_the_wire(reply))
            self.wire.close()

    @property
    def _faults(self) -> Faults:
        return self._relay.faults

    def _fault(self, reply: str | None) -> str | None:
        """Return the reply of a fault, if it is set and strikes now."""
        return reply if reply is not None and self._strikes() else None

    def _strikes(self) -> bool:
        if not self._relay.strikes():
            return False
        self._relay.struck.add(self._number)
        return True

    def _by_chance(self, point: str) -> str | None:
        likely, reply = self._faults.chance.get(point, (0.0, ""))
        return reply if likely and self._relay.happens(likely) else None

    # The conversation.

    async def _connect(self) -> None:
        with self._handshake():
            await self.wire.open(self._relay.server_context() if self._faults.security == "tls" else None)
        most = self._faults.most_open
        crowded = most is not None and self._relay.open_connections > most
        greeting = self._fault(self._faults.greeting) or "220 relay.test ESMTP"
        if crowded:
            greeting = "421 4.7.0 too many connections"
        await self._answer("CONNECT", greeting)
        if not greeting.startswith("220"):
            await self._hang_up()

    async def _next_command(self) -> None:
        self._waits_for_command = True
        self._relay.tell()
        line = (await self.wire.read_line()).decode("utf-8", "backslashreplace")
        self._waits_for_command = False
        verb, _, argument = line.partition(" ")
        verb = verb.upper()
        self._record(_masked(line) if verb == "AUTH" else line)
        if self._is_too_early(verb):
            await self._answer(verb, f"554 5.5.0 synchronization error: input came before the reply to {verb}")
            await self._hang_up()
        elif self._wants_tls_first(verb):
            await self._answer(verb, "530 5.7.0 must issue a STARTTLS command first")
        else:
            await self._COMMANDS.get(verb, _Session._unknown)(self, argument)

    def _record(self, line: str) -> None:
        self._relay.record(Command(self._number, line))

    def _is_too_early(self, verb: str) -> bool:
        waits = verb in _LAST_OF_A_GROUP or (not self._faults.pipelining and verb != "BDAT")
        return self._faults.strict and waits and self.wire.has_input

    def _wants_tls_first(self, verb: str) -> bool:
        return self._offers_tls and verb not in _OPEN_BEFORE_TLS

    @property
    def _offers_tls(self) -> bool:
        return self._faults.security == "starttls" and not self._over_tls and not self._faults.starttls_stripped

    async def _answer(self, point: str, reply: str) -> None:
        """Send the reply, unless a fault at this point keeps it from being sent or ends the connection after it."""
        faults = self._faults
        if faults.silent_at == point and self._strikes():
            await self.wire.wait_ended()
            raise _Gone
        if faults.cut_before_reply == point and self._strikes():
            await self.wire.flush()
            self.wire.abort()
            raise _Gone
        if faults.closing_at == point and self._strikes():
            reply = "421 4.3.2 shutting down"
        elif faults.extra_at == point and self._strikes():
            reply += "\r\n250 2.0.0 one too many"
        self.wire.send(_on_the_wire(reply), faults.delay)
        if reply.startswith("421") or (faults.cut_after_reply == point and self._strikes()):
            await self._hang_up()

    async def _hang_up(self) -> None:
        await self.wire.flush()
        self.wire.close()
        raise _Gone

    # Greeting and TLS.

    async def _ehlo(self, argument: str) -> None:
        self._greet()
        offers = "\n".join(["250 relay.test", *self._offers(), "ENHANCEDSTATUSCODES"])
        await self._answer("EHLO", offers if argument else "501 5.5.4 EHLO needs a name")

    async def _helo(self, argument: str) -> None:
        self._greet()
        await self._answer("HELO", "250 relay.test" if argument else "501 5.5.4 HELO needs a name")

    def _greet(self) -> None:
        self._greeted = True
        self._transaction = None

    def _offers(self) -> list[str]:
        faults = self._faults
        offers = {
            "PIPELINING": faults.pipelining,
            "CHUNKING": faults.chunking,
            "SMTPUTF8": faults.smtputf8,
            "8BITMIME": faults.eightbitmime,
            f"SIZE {faults.size}": faults.size is not None,
            "STARTTLS": self._offers_tls,
            f"AUTH {' '.join(faults.auth)}": bool(faults.auth) and not self._offers_tls,
        }
        return [name for name, offered in offers.items() if offered]

    async def _starttls(self, argument: str) -> None:
        if not self._offers_tls:
            await self._answer("STARTTLS", "502 5.5.1 STARTTLS is not offered")
        elif argument:
            await self._answer("STARTTLS", "501 5.5.4 STARTTLS takes no argument")
        elif (refusal := self._fault(self._faults.refuse_starttls)) is not None:
            await self._answer("STARTTLS", refusal)
        else:
            self.wire.hold_input()
            await self._answer("STARTTLS", "220 2.0.0 go ahead")
            await self._start_tls()

    @contextlib.contextmanager
    def _handshake(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # ssl.SSLError, a lost connection or a handshake that took too long
            self._relay.handshake_failed()
            raise _Gone from error

    async def _start_tls(self) -> None:
        with self._handshake():
            await self.wire.start_tls(self._relay.server_context())
        self._over_tls = True
        self._greeted = False  # RFC 3207, 4.2: as if it had just connected
        self._username = None
        self._transaction = None

    # AUTH (RFC 4954).

    async def _auth(self, argument: str) -> None:
        await self._answer("AUTH", await self._sign_in(argument))

    async def _sign_in(self, argument: str) -> str:
        mechanism, _, initial = argument.partition(" ")
        if self._username is not None or self._transaction is not None or not self._greeted:
            return "503 5.5.1 AUTH not now"
        if mechanism.upper() not in self._faults.auth:
            return "504 5.5.4 mechanism not offered"
        try:
            username = await self._MECHANISMS[mechanism.upper()](self, initial)
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return "501 5.5.2 cannot decode that"
        if username is None:
            return "535 5.7.8 wrong credentials"
        if (refusal := self._fault(self._faults.refuse_auth)) is not None:
            return refusal
        self._username = username
        return "235 2.7.0 welcome"

    async def _plain(self, initial: str) -> str | None:
        _, username, password = (_decoded(initial) or await self._ask("")).split("\0")
        return self._known(username, password)

    async def _login(self, initial: str) -> str | None:
        username = _decoded(initial) or await self._ask("Username:")
        return self._known(username, await self._ask("Password:"))

    async def _cram_md5(self, initial: str) -> str | None:
        if initial:
            raise ValueError(initial)
        challenge = f"<{self._number}.{len(self._relay.commands)}@relay.test>"
        username, _, digest = (await self._ask(challenge)).rpartition(" ")
        right = hmac.new(self._faults.password.encode(), challenge.encode(), "md5").hexdigest()
        return username if (username, digest) == (self._faults.username, right) else None

    async def _xoauth2(self, initial: str) -> str | None:
        given = _decoded(initial) or await self._ask("")
        username = self._faults.username
        if given == f"user={username}\x01auth=Bearer {self._faults.token}\x01\x01":
            return username
        await self._ask(json.dumps({"status": "401", "schemes": "bearer"}))  # as Google does: the client says ""
        return None

    async def _ask(self, challenge: str) -> str:
        await self._answer("AUTH", f"334 {base64.b64encode(challenge.encode()).decode()}")
        line = (await self.wire.read_line()).decode()
        return _decoded(line)

    def _known(self, username: str, password: str) -> str | None:
        return username if (username, password) == (self._faults.username, self._faults.password) else None

    # The transaction.

    async def _mail(self, argument: str) -> None:
        await self._answer("MAIL", self._begin(argument))

    def _begin(self, argument: str) -> str:
        if not self._greeted:
            return "503 5.5.1 EHLO first"
        if self._transaction is not None:
            return "503 5.5.1 nested MAIL"
        if self._faults.auth and self._username is None:
            return "530 5.7.0 authentication required"
        path = _path("FROM:", argument)
        if path is None:
            return "501 5.5.4 say MAIL FROM:<address>"
        sender, parameters = path
        refusal = self._refusal_of(sender, parameters) or self._fault(self._faults.refuse_sender)
        refusal = refusal or self._by_chance("MAIL")
        if refusal is not None:
            return refusal
        self._transaction = _Transaction(sender, parameters)
        return "250 2.1.0 sender ok"

    def _refusal_of(self, sender: str, parameters: Mapping[str, str]) -> str | None:
        faults = self._faults
        allowed = {
            "SIZE": faults.size is not None,
            "BODY": faults.eightbitmime,
            "SMTPUTF8": faults.smtputf8,
            "AUTH": bool(faults.auth),
        }
        for name in parameters:
            if not allowed.get(name, False):
                return f"555 5.5.4 {name} is not offered"
        if parameters.get("BODY", "7BIT").upper() not in {"7BIT", "8BITMIME"}:
            return "501 5.5.4 unknown BODY"
        if not (size := parameters.get("SIZE", "0")).isdecimal():
            return "501 5.5.4 SIZE is a number"
        if faults.size is not None and int(size) > faults.size:
            return "552 5.3.4 too big"
        if not sender.isascii() and "SMTPUTF8" not in parameters:
            return "553 5.6.7 that address needs SMTPUTF8"
        return None

    async def _rcpt(self, argument: str) -> None:
        await self._answer("RCPT", self._add_recipient(argument))

    def _add_recipient(self, argument: str) -> str:
        if self._transaction is None:
            return "503 5.5.1 MAIL first"
        path = _path("TO:", argument)
        if path is None or not path[0]:
            return "501 5.5.4 say RCPT TO:<address>"
        recipient, parameters = path
        if parameters:
            return "555 5.5.4 no parameters offered"
        if not recipient.isascii() and "SMTPUTF8" not in self._transaction.parameters:
            return "553 5.6.7 that address needs SMTPUTF8"
        refusal = self._fault(self._faults.refuse_recipients.get(recipient)) or self._by_chance("RCPT")
        if refusal is not None:
            return refusal
        self._transaction.recipients.append(recipient)
        return "250 2.1.5 recipient ok"

    async def _data(self, argument: str) -> None:
        refusal = "501 5.5.4 DATA takes no argument" if argument else self._refusal_of_data()
        if refusal is not None:
            await self._answer("DATA", refusal)
            return
        await self._answer("DATA", "354 go ahead")
        content = await self._read_content()
        self._record(".")
        await self._finish(".", "DATA", content)

    def _refusal_of_data(self) -> str | None:
        if self._transaction is None:
            return "503 5.5.1 MAIL first"
        if self._transaction.has_chunks:
            return "503 5.5.1 DATA after BDAT"
        if not self._transaction.recipients and not self._faults.data_without_recipients:
            return "554 5.5.1 no valid recipients"
        return self._fault(self._faults.refuse_data)

    async def _read_content(self) -> bytes:
        lines = []
        while (line := await self.wire.read_line()) != b".":
            lines.append(line.removeprefix(b"."))
        return b"".join(line + b"\r\n" for line in lines)

    async def _bdat(self, argument: str) -> None:
        if not self._faults.chunking:
            await self._unknown(argument, "BDAT")
            return
        parsed = re.fullmatch(r"(\d+)( LAST)?", argument, re.IGNORECASE | re.ASCII)
        if parsed is None:
            await self._answer("BDAT", "501 5.5.4 say BDAT size [LAST]")
            await self._hang_up()  # how long the chunk is nobody knows
            return
        transaction = self._transaction
        in_sequence = transaction is not None and bool(transaction.recipients)
        if not in_sequence and self._faults.runs_refused_chunks:
            await self._answer("BDAT", "502 5.5.1 BDAT without recipients")
            return
        chunk = await self.wire.read_exactly(int(parsed[1]))
        if transaction is None or not in_sequence:
            self._forget_refused_chunks()
            await self._answer("BDAT", "503 5.5.1 BDAT without recipients")
            return
        transaction.has_chunks = True
        transaction.chunks += chunk
        if parsed[2]:
            await self._finish("BDAT", "BDAT", bytes(transaction.chunks))
        else:
            await self._answer("BDAT", f"250 2.0.0 {len(chunk)} octets")

    def _forget_refused_chunks(self) -> None:
        if not self._faults.sticky_bdat:
            self._transaction = None
        elif self._transaction is not None:
            self._transaction.chunks.clear()

    async def _finish(self, point: str, mode: Literal["DATA", "BDAT"], content: bytes) -> None:
        refusal = self._refusal_of_content(content) or self._fault(self._faults.final_reply)
        reply = refusal or self._by_chance(".") or "250 2.0.0 taken"
        if reply.startswith("2"):
            self._take(mode, content)
        elif mode == "BDAT":
            self._forget_refused_chunks()
        else:
            self._transaction = None
        await self._answer(point, reply)
        if reply.startswith("2") and self._taken == self._faults.close_after:
            await self._answer("", "421 4.7.0 enough mails on this connection")

    def _refusal_of_content(self, content: bytes) -> str | None:
        if self._transaction is None or not self._transaction.recipients:
            return "554 5.5.1 no valid recipients"
        if self._faults.size is not None and len(content) > self._faults.size:
            return "552 5.3.4 too big"
        if not self._faults.eightbitmime and not content.isascii():
            return "554 5.6.1 8-bit content without 8BITMIME"
        return None

    def _take(self, mode: Literal["DATA", "BDAT"], content: bytes) -> None:
        transaction = cast("_Transaction", self._transaction)
        self._transaction = None
        self._taken += 1
        self._relay.catch(
            CaughtMail(
                connection=self._number,
                sender=transaction.sender,
                recipients=tuple(transaction.recipients),
                content=content,
                parameters=transaction.parameters,
                username=self._username,
                mode=mode,
            )
        )

    # The rest.

    async def _rset(self, argument: str) -> None:
        self._transaction = None
        await self._answer("RSET", "501 5.5.4 RSET takes no argument" if argument else "250 2.0.0 forgotten")

    async def _noop(self, argument: str) -> None:  # noqa: ARG002 -- NOOP may have one (RFC 5321, 4.1.1.9)
        await self._answer("NOOP", "250 2.0.0 nothing done")

    async def _vrfy(self, argument: str) -> None:  # noqa: ARG002
        await self._answer("VRFY", "252 2.5.0 send it and see")

    async def _quit(self, argument: str) -> None:  # noqa: ARG002
        await self._answer("QUIT", "221 2.0.0 goodbye")
        await self._hang_up()

    async def _unknown(self, argument: str, verb: str = "") -> None:  # noqa: ARG002
        await self._answer(verb, "502 5.5.1 no such command")

    _COMMANDS: ClassVar[dict[str, Callable[[_Session, str], Awaitable[None]]]] = {
        "EHLO": _ehlo,
        "HELO": _helo,
        "STARTTLS": _starttls,
        "AUTH": _auth,
        "MAIL": _mail,
        "RCPT": _rcpt,
        "DATA": _data,
        "BDAT": _bdat,
        "RSET": _rset,
        "NOOP": _noop,
        "VRFY": _vrfy,
        "QUIT": _quit,
    }
    _MECHANISMS: ClassVar[dict[str, Callable[[_Session, str], Awaitable[str | None]]]] = {
        "PLAIN": _plain,
        "LOGIN": _login,
        "CRAM-MD5": _cram_md5,
        "XOAUTH2": _xoauth2,
    }


def _path(keyword: str, argument: str) -> tuple[str, dict[str, str]] | None:
    """Read `FROM:<address> NAME=VALUE ...`, strictly: no space after the colon, no address without brackets."""
    if argument[: len(keyword)].upper() != keyword:
        return None
    parsed = _PATH.fullmatch(argument[len(keyword) :])
    if parsed is None:
        return None
    parameters = {}
    for parameter in (parsed[2] or "").split():
        name, _, value = parameter.partition("=")
        parameters[name.upper()] = value
    return parsed[1], parameters


def _masked(line: str) -> str:
    verb_and_mechanism = line.split(" ")[:2]
    return " ".join(verb_and_mechanism if line.count(" ") < len(verb_and_mechanism) else [*verb_and_mechanism, "***"])


def _decoded(text: str) -> str:
    if text == "*":
        raise ValueError(text)  # RFC 4954: the client gives up
    return base64.b64decode("" if text == "=" else text, validate=True).decode()


def _on_the_wire(reply: str) -> bytes:
    if "\r\n" in reply:
        return f"{reply}\r\n".encode()
    code, lines = reply[:3], reply[4:].split("\n")
    return "".join([*(f"{code}-{line}\r\n" for line in lines[:-1]), f"{code} {lines[-1]}\r\n"]).encode()
