"""Opens, secures and signs in a connection, by aiosmtplib."""

import asyncio
import ssl

import aiosmtplib

from otpmail.errors import ConnectFailed, SignInRefused
from otpmail.settings import AuthMechanism, RelaySettings
from otpmail.smtp.replies import CLOSING

# Under TLS a plain password is as safe as a digest of it, and the relay need not store the password itself.
_PREFERENCE: tuple[AuthMechanism, ...] = ("plain", "login", "cram-md5")

_NO_TLS = "does not speak TLS on this port, or not from the first byte"
_PLAIN_TEXT = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "UNKNOWN_PROTOCOL"})

# ValueError: a malformed host name, a token file that is no text.
_FAILURES = (aiosmtplib.SMTPException, OSError, ValueError)


async def dial(settings: RelaySettings, tls: ssl.SSLContext) -> aiosmtplib.SMTP:
    """Connect, secure and sign in.

    Raises ConnectFailed, or SignInRefused, with a text that names the cause.
    """
    client = aiosmtplib.SMTP(
        hostname=settings.host,
        port=settings.port,
        use_tls=settings.security == "tls",
        start_tls=False,  # done below, where a relay without STARTTLS is an error
        tls_context=tls,
        timeout=settings.timeout,
        local_hostname=settings.helo,
    )
    try:
        await client.connect()
        await client.ehlo()
        if settings.security == "starttls":
            await _start_tls(client, tls, settings.host)
        if settings.user:
            await _sign_in(client, settings)
        _raise_if_cancelled()
    except BaseException as error:
        client.close()
        if isinstance(error, ConnectFailed) or not isinstance(error, _FAILURES):
            raise
        raise ConnectFailed(_NO_TLS if answers_without_tls(error) else describe(error)) from error
    return client


def _raise_if_cancelled() -> None:
    """Raise the CancelledError that asyncio.wait_for, which aiosmtplib waits with, may have swallowed.

    Python 3.11 does so if a reply arrives in the turn of the loop in which the task is cancelled.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _start_tls(client: aiosmtplib.SMTP, tls: ssl.SSLContext, host: str) -> None:
    if not client.supports_extension("starttls"):
        raise ConnectFailed("the relay does not announce STARTTLS, which EMAIL_SECURITY=starttls requires")
    await client.starttls(server_hostname=host, tls_context=tls)
    await client.ehlo()  # capabilities from before TLS do not count (RFC 3207, 4.2)


async def _sign_in(client: aiosmtplib.SMTP, settings: RelaySettings) -> None:
    announced = client.server_auth_methods
    mechanism = settings.auth or next((name for name in _PREFERENCE if name in announced), None)
    if mechanism not in announced:
        offered = ", ".join(announced).upper() or "nothing"
        wanted = f"EMAIL_AUTH asks for {mechanism.upper()}" if mechanism else "none of these takes a password"
        raise SignInRefused(f"the relay offers {offered} to sign in with, and {wanted}")
    password = settings.password.get_secret_value()
    try:
        match mechanism:
            case "xoauth2":
                assert settings.token_file is not None
                token = await asyncio.to_thread(settings.token_file.read_text)
                await client.auth_xoauth2(settings.user, token.strip())
            case "cram-md5":
                await client.auth_crammd5(settings.user, password)
            case "plain":
                await client.auth_plain(settings.user, password)
            case "login":
                await client.auth_login(settings.user, password)
    except aiosmtplib.SMTPAuthenticationError as error:
        if error.code == CLOSING or 400 <= error.code < 500:
            raise ConnectFailed(f"signing in failed for now: {describe(error)}") from error
        raise SignInRefused(f"the relay refused to sign {settings.user} in: {describe(error)}") from error


def answers_without_tls(error: BaseException | None) -> bool:
    """Whether the relay answered in plain text, as with a greeting by SMTP, which OpenSSL takes for a TLS version."""
    while error is not None:
        if isinstance(error, ssl.SSLError) and error.reason in _PLAIN_TEXT:
            return True
        error = error.__cause__
    return False


def describe(error: Exception) -> str:
    """An error in one line, for people."""
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return f"{error.code} {error.message}".replace("\n", " ")
    if isinstance(error, aiosmtplib.SMTPConnectError) and isinstance(error.__cause__, OSError):
        # The library's own text repeats the host and the port, which every message begins with.
        return f"cannot connect: {error.__cause__.strerror or describe(error.__cause__)}"
    return str(error).replace("\n", " ") or type(error).__name__
