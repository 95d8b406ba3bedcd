"""Opens a connection to one address of a relay: TCP, TLS, greeting and EHLO, before any sign-in, by aiosmtplib."""

import asyncio
import os
import socket
import ssl

import aiosmtplib
from aiosmtplib import SMTPResponse

from otpmail.errors import ConnectFailed, Unreachable
from otpmail.relays.addresses import Address
from otpmail.relays.helo import address_literal, cure_helo
from otpmail.relays.refusal import failed_by, read_reply
from otpmail.relays.secure import cure_no_starttls, cure_silence, explain
from otpmail.settings import RelaySettings
from otpmail.settings.terms import in_terms_of
from otpmail.smtp.capabilities import Capabilities
from otpmail.smtp.ehlo import read_capabilities
from otpmail.smtp.redaction import Redactor
from otpmail.smtp.reply_kind import Command, ReplyKind, kind_of

FAILURES = (aiosmtplib.SMTPException, OSError, ValueError)
"""The errors of aiosmtplib. ValueError: a malformed host name."""

_NO_REPLY = -1  # the code that aiosmtplib gives to a line that is no reply
_BROKEN_OFF = "the relay broke off the handshake of TLS; it may speak only versions before TLS 1.2, which are not safe"


class Opened:
    """An open connection, secured where EMAIL_SECURITY asks for it, with what the relay announced last."""

    def __init__(self, client: aiosmtplib.SMTP, address: Address, helo: str) -> None:
        self.client = client
        self.address = address
        self.helo = helo
        self.capabilities = Capabilities({})

    def __repr__(self) -> str:
        return f"<Opened {self.address.text}>"

    def close(self) -> None:
        """Close it without QUIT."""
        self.client.close()


async def connect(address: Address, timeout: float) -> socket.socket:
    """Connect to the address in `timeout` seconds. Raises Unreachable."""
    try:
        sock = _socket(address.family)
    except OSError as error:  # a machine without IPv6, or without a free descriptor
        raise _unreachable(error) from None
    try:
        async with asyncio.timeout(timeout):
            await asyncio.get_running_loop().sock_connect(sock, address.target)
    except BaseException as error:
        sock.close()
        if isinstance(error, TimeoutError) and not error.errno:
            raise Unreachable(f"cannot connect: no answer after {timeout:g} s") from None
        if isinstance(error, OSError):
            raise _unreachable(error) from None
        raise
    return sock


def _socket(family: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.settimeout(0)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _unreachable(error: OSError) -> Unreachable:
    # Not in the words of asyncio, which repeat the address and do not say why.
    return Unreachable(f"cannot connect: {os.strerror(error.errno) if error.errno else error}")


async def greet(
    address: Address, sock: socket.socket, settings: RelaySettings, tls: ssl.SSLContext, redactor: Redactor
) -> Opened:
    """Make a connected socket ready for sign-in. Raises ConnectFailed with one line that names the cause and the cure.

    The caller closes the socket when this fails.
    """
    helo = settings.name_in_ehlo or address_literal(str(sock.getsockname()[0]))
    client = aiosmtplib.SMTP(
        hostname=settings.server_name,
        use_tls=settings.security == "tls",
        start_tls=False,  # done below, where a relay without STARTTLS is an error
        tls_context=tls,
        timeout=settings.timeout,
        local_hostname=helo,
        sock=sock,
    )
    opened = Opened(client, address, helo)
    try:
        await client.connect()
        await _say_hello(opened, settings, redactor)
        if settings.security == "starttls":
            await _start_tls(opened, settings, tls, redactor)
        raise_if_cancelled()
    except BaseException as error:
        if isinstance(client.transport, asyncio.Transport):
            client.transport.abort()  # at once, since its socket is closed next
        client.close()
        if isinstance(error, ConnectFailed) or not isinstance(error, FAILURES):
            raise
        raise failure(error, settings, redactor) from None
    return opened


async def _start_tls(opened: Opened, settings: RelaySettings, tls: ssl.SSLContext, redactor: Redactor) -> None:
    if "STARTTLS" not in opened.capabilities:
        setting = in_terms_of(settings, "EMAIL_SECURITY=starttls")
        requires = f"the relay does not announce STARTTLS, which {setting} requires"
        raise ConnectFailed(f"{requires}; {cure_no_starttls(settings)}")
    try:
        await opened.client.starttls(server_hostname=settings.server_name, tls_context=tls)
    except aiosmtplib.SMTPResponseException as error:
        said = redactor.line(f"{error.code} {error.message}")
        reply = read_reply(error.code, error.message, redactor)
        raise failed_by(reply, ConnectFailed, f"the relay refused STARTTLS: {said}") from None
    await _say_hello(opened, settings, redactor)  # capabilities from before TLS do not count (RFC 3207, 4.2)


async def _say_hello(opened: Opened, settings: RelaySettings, redactor: Redactor) -> None:
    """Send EHLO, and HELO to a relay that refuses EHLO (RFC 5321, 3.2): it announces nothing then.

    Where that is too little, since STARTTLS or a sign-in is needed, EHLO's refusal is the error.
    """
    client, name = opened.client, opened.helo.encode()
    reply = await client.execute_command(b"EHLO", name)
    if reply.code // 100 == 2:
        client.last_ehlo_response = reply
        opened.capabilities = read_capabilities(reply.message)
        return
    if reply.code // 100 == 5 and not settings.signs_in and settings.security != "starttls":
        try:
            older = await client.execute_command(b"HELO", name)
        except aiosmtplib.SMTPException:  # it closes after its refusal
            older = reply
        if older.code // 100 == 2:
            client.last_helo_response = older
            opened.capabilities = Capabilities({})
            return
        reply = older
    raise _hello_refused(reply, opened, settings, redactor)


def _hello_refused(reply: SMTPResponse, opened: Opened, settings: RelaySettings, redactor: Redactor) -> ConnectFailed:
    said = redactor.line(f"{reply.code} {reply.message}")
    split = read_reply(reply.code, reply.message, redactor)
    if kind_of(Command.EHLO, split.code, split.enhanced_code, split.reply) is ReplyKind.HELO_FAULT:
        refused = f"the relay refused the name {opened.helo} in EHLO: {said}"
        return failed_by(split, ConnectFailed, f"{refused}; {cure_helo(settings)}")
    return failed_by(split, ConnectFailed, f"the relay refused EHLO: {said}")


def raise_if_cancelled() -> None:
    """Raise the CancelledError that asyncio.wait_for, which aiosmtplib waits with, may have swallowed.

    Python 3.11 does so if a reply arrives in the turn of the loop in which the task is cancelled.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def failure(error: BaseException, settings: RelaySettings, redactor: Redactor) -> ConnectFailed:
    """Return the error of a dial, which does not show the library's: its text holds the relay's words as they came."""
    said = explain(error, settings) or _explain_end(error, settings) or redactor.line(_describe(error))
    is_silent = isinstance(error, aiosmtplib.SMTPConnectError) and isinstance(
        error.__cause__, TimeoutError | ConnectionAbortedError
    )
    is_closed = isinstance(error, aiosmtplib.SMTPConnectError) and isinstance(
        error.__cause__, aiosmtplib.SMTPServerDisconnected
    )
    if isinstance(error, aiosmtplib.SMTPResponseException):
        if error.code == _NO_REPLY:
            return Unreachable(f"{redactor.line(error.message)}; is this an SMTP server?")
        return failed_by(read_reply(error.code, error.message, redactor), ConnectFailed, said)
    return Unreachable(said) if is_silent or is_closed else ConnectFailed(said)


def _explain_end(error: BaseException, settings: RelaySettings) -> str:
    """Return how far a dial came that the relay ended, or did not answer; empty for another failure.

    The library's types tell these apart.
    """
    cause = error.__cause__
    if isinstance(error, aiosmtplib.SMTPServerDisconnected):
        is_handshake = isinstance(cause, ConnectionError)  # after STARTTLS
        return _BROKEN_OFF if is_handshake else "the relay closed the connection in place of a reply"
    if not isinstance(error, aiosmtplib.SMTPConnectError):
        return f"connected, but no reply to a command {_after(settings)}" if isinstance(error, TimeoutError) else ""
    if isinstance(cause, aiosmtplib.SMTPTimeoutError | aiosmtplib.SMTPServerDisconnected):
        return _without_greeting(cause, settings)
    if settings.security != "tls":
        return ""
    if isinstance(cause, ConnectionResetError):
        return _BROKEN_OFF
    # A handshake of TLS that takes too long is aborted by asyncio. An errno is that of the operating system.
    is_silent = isinstance(cause, TimeoutError | ConnectionAbortedError) and cause.errno is None
    return f"no connection with TLS {_after(settings)}; does it speak TLS here?" if is_silent else ""


def _without_greeting(cause: BaseException, settings: RelaySettings) -> str:
    is_tls = settings.security == "tls"
    if isinstance(cause, aiosmtplib.SMTPServerDisconnected):
        hint = in_terms_of(settings, "; it may want a client certificate (EMAIL_CERT_FILE)")
        hint = hint if is_tls and settings.cert_file is None else ""
        return f"the relay closed the connection without a greeting{hint}"
    hint = "" if is_tls else f" {cure_silence(settings)}"
    return f"connected, but no greeting {_after(settings)}; is this an SMTP server?{hint}"


def _after(settings: RelaySettings) -> str:
    return f"after {settings.timeout:g} s"


def _describe(error: BaseException) -> str:
    """Return the reason of a failure, in the words of the relay or the library."""
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return f"{error.code} {error.message}"
    if isinstance(error, aiosmtplib.SMTPConnectError) and isinstance(error.__cause__, OSError):
        # The library's own text repeats the host and the port, which every message begins with.
        return f"cannot connect: {error.__cause__.strerror or _describe(error.__cause__)}"
    return str(error) or type(error).__name__
