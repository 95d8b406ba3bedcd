"""A relay that accepts mails, delivers none, and hands each to a callback: aiosmtpd with two more extensions."""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence

from aiosmtpd.smtp import SMTP, Envelope, Session, syntax

from otpmail.dev import failing
from otpmail.dev.caught import CaughtMail

CAUGHT = "250 2.6.0 caught"
"""The reply to each mail."""

_MAX_BYTES = 160 << 20
_LONGEST = 12  # letters of a command
_log = logging.getLogger("mail.log")  # aiosmtpd's


Catch = Callable[[CaughtMail], asyncio.Task[None] | None]
"""Takes a mail that was caught. Returns what ends once it has it, None where it has it at once."""

Refusal = Callable[[str, str], str | None]
"""Returns the reply to a recipient that is refused, None for one that is taken.

It takes the address and the ENVID of the mail (RFC 3461, 4.4) in capitals, which for a service is the mail's id.
"""


class _Envelope(Envelope):
    """An envelope that also keeps its ENVID, and the recipients that were refused."""

    def __init__(self) -> None:
        super().__init__()
        self.id = ""
        self.refused: list[tuple[str, str]] = []


class _Handler:
    """The hooks of aiosmtpd: announce more extensions, refuse some recipients, and hand over each mail."""

    def __init__(self, caught: Catch, refusal: Refusal) -> None:
        self._caught = caught
        self._refusal = refusal

    async def handle_EHLO(  # noqa: N802  aiosmtpd's name for the hook
        self, _server: SMTP, session: Session, _envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        """Announce PIPELINING, CHUNKING and DSN too; aiosmtpd calls it after EHLO."""
        session.host_name = hostname
        # aiosmtpd reads one command after the other from a buffered stream, so pipelined commands are safe.
        more = ("PIPELINING", "CHUNKING", "ENHANCEDSTATUSCODES", "DSN")
        return [*responses[:-1], *(f"250-{name}" for name in more), responses[-1]]

    async def handle_RCPT(  # noqa: N802  as above
        self, _server: SMTP, _session: Session, envelope: _Envelope, address: str, options: list[str]
    ) -> str:
        """Take a recipient, or refuse it as its address asks; aiosmtpd calls it with each RCPT."""
        if (reply := self._refusal(address, envelope.id)) is not None:
            envelope.refused.append((address, reply))
            return reply
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 recipient ok"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: _Envelope) -> str:  # noqa: N802  as above
        """Hand the mail over; aiosmtpd calls it with the content of DATA."""
        await self.hand_over_whole(envelope)
        return CAUGHT

    async def hand_over_whole(self, envelope: _Envelope) -> None:
        """Hand over the mail of an envelope, once, and return when it is caught, also if the client goes meanwhile."""
        if (catching := self.hand_over(envelope)) is not None:
            await asyncio.shield(catching)

    def hand_over(self, envelope: _Envelope) -> asyncio.Task[None] | None:
        """Hand over the mail of an envelope, once. Returns what ends once it is caught, None where it is already."""
        content = envelope.original_content or b""
        refused = tuple(envelope.refused)
        envelope.refused.clear()
        return self._caught(CaughtMail(envelope.mail_from or "", tuple(envelope.rcpt_tos), content, refused))


class _Session(SMTP):
    """A session of aiosmtpd that knows BDAT (RFC 3030)."""

    event_handler: _Handler

    def _create_envelope(self) -> _Envelope:
        return _Envelope()

    def _getparams(self, params: Sequence[str]) -> dict[str, str | bool] | None:
        """Read the parameters of a command, in capitals, and keep those of DSN, which aiosmtpd does not know."""
        found: dict[str, str | bool] | None = super()._getparams(params)
        if found and isinstance(self.envelope, _Envelope):
            found.pop("RET", None)
            self.envelope.id = str(found.pop("ENVID", ""))
        return found

    @syntax("BDAT <octets> [LAST]")
    async def smtp_BDAT(self, arg: str | None) -> None:  # noqa: N802  aiosmtpd's name for the command
        """Read one chunk; after the last one hand over the mail."""
        octets, _, last = (arg or "").partition(" ")
        if not octets.isdecimal() or last.upper() not in ("", "LAST") or int(octets) > _MAX_BYTES:
            await self.push("501 5.5.4 Syntax: BDAT <octets> [LAST]")
            return
        # The client sends the chunk before it sees a reply, so a refused chunk is read too (RFC 3030, section 2).
        chunk = await self._reader.readexactly(int(octets))
        envelope = self.envelope
        taken = isinstance(envelope, _Envelope) and bool(envelope.rcpt_tos)
        if isinstance(envelope, _Envelope) and (taken or envelope.refused):
            envelope.original_content = (envelope.original_content or b"") + chunk
        if not isinstance(envelope, _Envelope) or not taken:
            if last:
                self._hand_over_refused()
            await self.push("503 5.5.1 need RCPT first")
            return
        if not last:
            await self.push(f"250 2.0.0 {octets} octets")
            return
        await self.event_handler.hand_over_whole(envelope)
        self.envelope = self._create_envelope()
        await self.push(CAUGHT)

    @syntax("RSET")
    async def smtp_RSET(self, arg: str | None) -> None:  # noqa: N802  as above
        """Hand over a mail that was refused before its content came, and begin anew."""
        if not arg:
            self._hand_over_refused()
        await super().smtp_RSET(arg)

    def connection_lost(self, error: Exception | None) -> None:
        """Hand over a mail that was refused before its content came; asyncio calls it at the end of a connection."""
        self._hand_over_refused()
        super().connection_lost(error)

    def _hand_over_refused(self) -> None:
        if isinstance(self.envelope, _Envelope) and self.envelope.refused:
            self.event_handler.hand_over(self.envelope)


class _NoCommand(logging.Filter):
    """Words aiosmtpd's warning of a line that is no command: it shows all octets, of a TLS client's first ones too."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the message of such a warning, and let every record pass."""
        if "unrecognised" in record.msg and isinstance(record.args, tuple) and len(record.args) == 2:
            peer, command = record.args
            known = isinstance(command, str) and command.isascii() and command.isalpha() and len(command) <= _LONGEST
            said = f"the unknown command {command}" if known else "a line that is no SMTP command, maybe TLS"
            where = ":".join(map(str, peer[:2])) if isinstance(peer, tuple) else ""
            record.msg, record.args = "the relay of otpmail dev got %s; its client is %s", (said, where)
        return True


class CatchAllRelay:
    """Listens on a free port of 127.0.0.1, and calls `caught` with each mail, also with one that it refused.

    It replies to a mail that it takes once `caught` has it.
    Without `refusal` it refuses addresses that name their failure.
    """

    def __init__(self, caught: Catch, refusal: Refusal = lambda address, _: failing.reply_to(address)) -> None:
        self._handler = _Handler(caught, refusal)
        self._server: asyncio.Server | None = None
        self._filter = _NoCommand()

    async def start(self) -> int:
        """Start to listen, and return the port."""
        _log.addFilter(self._filter)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._session, "127.0.0.1", 0, family=socket.AF_INET)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Stop listening; open connections end with the process."""
        _log.removeFilter(self._filter)
        if self._server is not None:
            self._server.close()

    def _session(self) -> _Session:
        return _Session(
            self._handler, data_size_limit=_MAX_BYTES, enable_SMTPUTF8=True, hostname="otpmail-dev", timeout=3600
        )
