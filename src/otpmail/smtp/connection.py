"""One long-lived connection to a relay, open and signed in (`smtp.dial`): mails are sent here.

A connection takes as many mails at once as its `window`; each answers with a future. A connection that is in doubt
(a reply owed, a timeout, a cancelled send) is closed, never used again: a reply must not reach another mail.
"""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Self

import aiosmtplib
from aiosmtplib.protocol import SMTPProtocol

from otpmail.errors import ConnectFailed, ConnectionLost
from otpmail.model import Envelope, RecipientResult
from otpmail.settings import RelaySettings
from otpmail.smtp.announcement import Announcement
from otpmail.smtp.dial import dial, words
from otpmail.smtp.replies import CLOSING, result

Results = tuple[RecipientResult, ...]

_QUIT_SECONDS = 2.0


class Connection:
    """An open, signed-in connection that sends mails one command at a time.

    `window` mails may be in flight; `room` says whether another one may be handed in now. `on_lost` is called once,
    when the connection can take no more.
    """

    mode = "plain"
    window = 1
    round_trips = 4  # MAIL, RCPT, DATA, and the content

    def __init__(self, client: aiosmtplib.SMTP, settings: RelaySettings, *, lifetime: float) -> None:
        self._client = client
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._sending: set[asyncio.Task[Results]] = set()
        self._opened = self._loop.time()
        self._retire_at = self._opened + lifetime
        self.sent = 0
        self.last_used = self._loop.time()
        self.lost_cause = ""
        self.turned_away = False  # the relay ended it before any mail, and not over a mail
        self.on_lost: Callable[[], None] = lambda: None
        self.announcement = Announcement.read(client)
        if client.transport is None or client.protocol is None:
            raise ConnectFailed("the relay closed the connection right after signing in")
        self._watch = _Watch(client.transport, client.protocol, self._lost)

    def __repr__(self) -> str:
        state = f"lost: {self.lost_cause}" if self.lost_cause else f"{len(self._sending)}/{self.window} in flight"
        return f"<Connection {self._settings.host} {state}, {self.sent} sent>"

    @classmethod
    async def open(cls, settings: RelaySettings, tls: ssl.SSLContext, *, lifetime: float) -> Self:
        """Connect, secure and sign in. `lifetime` is in seconds.

        Raises ConnectFailed, or SignInRefused, with a text that says what went wrong.
        """
        client = await dial(settings, tls)
        try:
            return cls(client, settings, lifetime=lifetime)
        except BaseException:
            client.close()
            raise

    @property
    def open_for_mail(self) -> bool:
        """Whether the connection still takes mails."""
        return not self.lost_cause

    @property
    def age(self) -> float:
        """Seconds since it was opened."""
        return self._loop.time() - self._opened

    @property
    def room(self) -> bool:
        """Whether another mail may be handed in now."""
        return self.open_for_mail and len(self._sending) < self.window

    @property
    def retire_at(self) -> float:
        """When the connection is to be replaced for its age or idleness, on the loop's clock."""
        return min(self._retire_at, self.last_used + self._settings.idle_seconds)

    @property
    def due(self) -> bool:
        """Whether it is to be replaced: too many mails sent, too old, or idle too long."""
        return self.sent >= self._settings.max_messages or self._loop.time() >= self.retire_at

    def send(self, envelope: Envelope) -> asyncio.Future[Results]:
        """Start sending; the future gets a result for each recipient, or ConnectionLost."""
        task = self._loop.create_task(self._transact(envelope))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        return task

    async def drained(self) -> None:
        """Wait until no mail is in flight."""
        if self._sending:
            await asyncio.wait(self._sending)

    async def close(self) -> None:
        """Take leave of the relay: QUIT, briefly waited for. Mails in flight are lost (uncertain)."""
        for task in list(self._sending):
            task.cancel()
        if self.open_for_mail:
            self.lost_cause = "closed"
            try:
                await self._client.quit(timeout=_QUIT_SECONDS)
            except (aiosmtplib.SMTPException, OSError):
                self._client.close()  # a relay that does not answer QUIT is left all the same
        self._client.close()

    async def _transact(self, envelope: Envelope) -> Results:
        refusal = self.announcement.cannot_take(envelope)
        if refusal is not None:
            return tuple(result(address, *refusal) for address in envelope.recipients)
        self.last_used = self._loop.time()
        try:
            return await self._transaction(envelope)
        except BaseException as error:
            # Whatever it is, cancelled or unforeseen, a reply may be owed and a transaction open.
            self._lost(f"a send ended early: {error!r}")
            raise
        finally:
            self.last_used = self._loop.time()
            if self.lost_cause:
                self._client.close()

    async def _transaction(self, envelope: Envelope) -> Results:
        """One mail transaction (RFC 5321, 3.3): MAIL, each RCPT, DATA, the content, its final reply."""
        code, text = await self._command(b"MAIL FROM:<%s>%s" % self._sender(envelope), good=(250,))
        if code != 250:
            return tuple(result(address, code, text) for address in envelope.recipients)
        results = {}
        for address in envelope.recipients:
            code, text = await self._command(b"RCPT TO:<%s>" % address.encode(), good=(250, 251, 252))
            results[address] = result(address, code, text)
        accepted = [address for address in envelope.recipients if results[address].accepted]
        if accepted:
            code, text = await self._command(b"DATA", good=(354,))
            if code == 354:
                code, text = await self._content(envelope.content)
            results |= {address: result(address, code, text) for address in accepted}
        if not accepted or code != 250:
            with suppress(ConnectionLost):  # what the relay has said about the mail stands all the same
                await self._command(b"RSET", good=(250,))
        return tuple(results.values())

    def _sender(self, envelope: Envelope) -> tuple[bytes, bytes]:
        parameters = b""
        if self.announcement.size is not None:
            parameters += b" SIZE=%d" % len(envelope.content)
        if envelope.smtputf8:
            parameters += b" SMTPUTF8 BODY=8BITMIME"
        return envelope.sender.encode(), parameters

    async def _command(self, line: bytes, *, good: tuple[int, ...]) -> tuple[int, str]:
        """Send a command and read its reply: one of `good`, or a refusal.

        Raises ConnectionLost, certain: whatever else is answered, the mail was not taken.
        """
        if self.lost_cause:  # a stray reply has been seen: the next one read could be that
            raise ConnectionLost(self.lost_cause)
        self._watch.expect_reply()
        try:
            reply = await self._client.execute_command(line)
        except (aiosmtplib.SMTPException, OSError) as error:
            raise self._fail(error, uncertain=False) from error
        return self._checked(reply, good, uncertain=False)

    async def _content(self, content: bytes) -> tuple[int, str]:
        """Send the content, dot-stuffed (RFC 5321, 4.5.2), and read its final reply."""
        protocol = self._client.protocol
        if protocol is None or self.lost_cause:
            raise self._fail(ConnectionError(self.lost_cause or "connection lost"), uncertain=False)
        self._watch.expect_reply()
        try:
            protocol.write(stuff(content))
            reply = await protocol.read_response(timeout=self._settings.final_timeout)
        except (aiosmtplib.SMTPException, OSError) as error:
            raise self._fail(error, uncertain=True) from error
        code, text = self._checked(reply, (250,), uncertain=True)
        self.sent += code == 250
        return code, text

    def _checked(self, reply: aiosmtplib.SMTPResponse, good: tuple[int, ...], *, uncertain: bool) -> tuple[int, str]:
        if reply.code == CLOSING:
            raise self._fail(ConnectionError(f"421 {reply.message}"), uncertain=False)
        if reply.code not in good and not 400 <= reply.code < 600:
            # Neither what was asked for nor a refusal: nobody knows where this relay stands.
            raise self._fail(ConnectionError(f"unexpected reply: {reply.code} {reply.message}"), uncertain=uncertain)
        return reply.code, reply.message

    def _fail(self, error: Exception, *, uncertain: bool) -> ConnectionLost:
        cause = words(error)
        self._lost(cause)
        return ConnectionLost(cause, uncertain=uncertain)

    def _lost(self, cause: str) -> None:
        if not self.lost_cause:
            self.lost_cause = cause
            self.turned_away = self.sent == 0 and (not self._sending or "421" in cause)
            self.on_lost()


class _Watch(asyncio.Protocol):
    """Stands between the transport and aiosmtplib's protocol, and counts replies against commands.

    A reply that nobody asked for would be taken for the next command's, and every one after it for another's: it ends
    the connection (aiosmtplib alone keeps it in its buffer). So does what a relay says while idle, a 421 as a rule.
    """

    def __init__(self, transport: asyncio.BaseTransport, inner: SMTPProtocol, lost: Callable[[str], None]) -> None:
        self._inner = inner
        self._lost = lost
        self._owed = 0
        self._line = b""
        transport.set_protocol(self)

    def expect_reply(self) -> None:
        """A command is about to be written."""
        self._owed += 1

    def data_received(self, data: bytes) -> None:
        """Count the replies in `data`, and pass it on."""
        *lines, self._line = (self._line + data).split(b"\n")
        # The last, or only, line of a reply has no dash behind its code (RFC 5321, 4.2.1).
        self._owed -= sum(line[3:4] != b"-" for line in lines)
        if self._owed < 0 or (self._owed == 0 and self._line):
            said = (lines[-1:] or [self._line])[0].decode("utf-8", "replace").strip()
            self._lost(f"the relay said unasked: {said[:200]}")
        self._inner.data_received(data)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def eof_received(self) -> bool:
        self._lost("the relay closed the connection")
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(f"connection lost: {exc}" if exc else "connection lost")
        self._inner.connection_lost(exc)


def stuff(content: bytes) -> bytes:
    """Content as DATA carries it: a dot before each line that opens with one, and the final dot line."""
    stuffed = content.replace(b"\r\n.", b"\r\n..")
    if stuffed.startswith(b"."):
        stuffed = b"." + stuffed
    return stuffed + (b".\r\n" if stuffed.endswith(b"\r\n") or not stuffed else b"\r\n.\r\n")
