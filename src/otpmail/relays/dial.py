"""Opens, secures and signs in a connection, by aiosmtplib."""

import asyncio
import base64
import re
import ssl
from collections.abc import Sequence

import aiosmtplib

from otpmail.errors import ConnectFailed, SignInRefused
from otpmail.relays.token import Token
from otpmail.settings import AuthMechanism, RelaySettings
from otpmail.smtp.redaction import MASK, Redactor
from otpmail.smtp.replies import CLOSING
from otpmail.values import frozen

# Under TLS a plain password is as safe as a digest of it, and the relay need not store the password itself.
_PREFERENCE: tuple[AuthMechanism, ...] = ("plain", "login", "cram-md5")

_NO_TLS = "does not speak TLS on this port, or not from the first byte"
_PLAIN_TEXT = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "UNKNOWN_PROTOCOL"})

# ValueError: a malformed host name.
_FAILURES = (aiosmtplib.SMTPException, OSError, ValueError)

# The digest of CRAM-MD5 (RFC 2195, 2), whole or in pieces, and what may be that in base64.
_DIGEST = re.compile(r"\b[0-9a-f]{8,32}\b")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{8,}={0,2}")


@frozen()
class SignedIn:
    """An open connection, secured and signed in, and what takes its credentials out of the relay's words."""

    client: aiosmtplib.SMTP
    redactor: Redactor


async def dial(settings: RelaySettings, tls: ssl.SSLContext, token: Token | None = None) -> SignedIn:
    """Connect, secure and sign in, by `token` if EMAIL_AUTH is xoauth2, else by the password.

    Raises ConnectFailed, or SignInRefused, with one line that names the cause and holds no secret.
    """
    secret = await _read_secret(settings, token) if settings.user else ""
    redactor = Redactor.of_credentials(settings.user, secret)
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
            await _sign_in(client, settings, secret, redactor)
        _raise_if_cancelled()
    except BaseException as error:
        client.close()
        if isinstance(error, ConnectFailed) or not isinstance(error, _FAILURES):
            raise
        without_tls = _answers_without_tls(error)
        # Not from the library's error, whose text holds the relay's words as they came.
        raise ConnectFailed(
            _NO_TLS if without_tls else _silence(error, settings) or redactor.line(_describe(error)),
            without_tls=without_tls,
        ) from None
    return SignedIn(client, redactor)


async def _read_secret(settings: RelaySettings, token: Token | None) -> str:
    """The password, or the token in EMAIL_TOKEN_FILE. Raises ConnectFailed when that can't be read."""
    if settings.auth != "xoauth2":
        return settings.password.get_secret_value()
    assert token is not None
    return await token.read(settings.timeout)


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


async def _sign_in(client: aiosmtplib.SMTP, settings: RelaySettings, secret: str, redactor: Redactor) -> None:
    announced = client.server_auth_methods
    mechanism = settings.auth or next((name for name in _PREFERENCE if name in announced), None)
    if mechanism not in announced:
        raise SignInRefused(redactor.line(_no_mechanism(announced, mechanism)))
    try:
        match mechanism:
            case "xoauth2":
                await client.auth_xoauth2(settings.user, secret)
            case "cram-md5":
                await client.auth_crammd5(settings.user, secret)
            case "plain":
                await client.auth_plain(settings.user, secret)
            case "login":
                await client.auth_login(settings.user, secret)
    except aiosmtplib.SMTPAuthenticationError as error:
        said = _describe(error)
        if mechanism == "cram-md5":
            said = _BASE64.sub(_without_digest, _DIGEST.sub(MASK, said))
        said = redactor.line(said)
        if error.code == CLOSING or 400 <= error.code < 500:
            raise ConnectFailed(f"signing in failed for now: {said}") from None
        raise SignInRefused(f"the relay refused to sign {settings.user} in: {said}") from None


def _no_mechanism(announced: Sequence[str], wanted: str | None) -> str:
    if not announced:
        return "the relay offers no sign-in on this connection; if it needs none, leave EMAIL and the password unset"
    why = f"EMAIL_AUTH asks for {wanted.upper()}" if wanted else "none of these takes a password"
    return f"the relay offers {', '.join(announced).upper()} to sign in with, and {why}"


def _without_digest(match: re.Match[str]) -> str:
    """Mask a word in base64 that holds hexadecimal digits and nothing else."""
    word = match[0].rstrip("=")
    for before in range(4):
        whole = word[before : before + (len(word) - before) // 4 * 4]
        if _DIGEST.fullmatch(base64.b64decode(whole).decode("latin-1")):
            return MASK
    return match[0]


def _answers_without_tls(error: BaseException | None) -> bool:
    """Whether the relay answered in plain text, as with a greeting by SMTP, which OpenSSL takes for a TLS version."""
    while error is not None:
        if isinstance(error, ssl.SSLError) and error.reason in _PLAIN_TEXT:
            return True
        error = error.__cause__
    return False


def _silence(error: Exception, settings: RelaySettings) -> str:
    """Return what the relay did not answer in time, empty for another failure; the library's types tell them apart."""
    after, cause, is_tls = f"after {settings.timeout:g} s", error.__cause__, settings.security == "tls"
    if not isinstance(error, aiosmtplib.SMTPConnectError):
        return f"connected, but no reply to a command {after}" if isinstance(error, TimeoutError) else ""
    if isinstance(cause, aiosmtplib.SMTPTimeoutError):
        advice = "is this an SMTP server?" if is_tls else "is this an SMTP server, and not one for EMAIL_SECURITY=tls?"
        return f"connected, but no greeting {after}; {advice}"
    # A handshake of TLS that takes too long is aborted by asyncio. An errno is that of the operating system.
    if not isinstance(cause, TimeoutError | ConnectionAbortedError) or cause.errno is not None:
        return ""
    return (
        f"no connection with TLS {after}; does it speak TLS here?" if is_tls else f"cannot connect: no answer {after}"
    )


def _describe(error: Exception) -> str:
    """Return the reason of a failure, in the words of the relay or the library."""
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return f"{error.code} {error.message}"
    if isinstance(error, aiosmtplib.SMTPConnectError) and isinstance(error.__cause__, OSError):
        # The library's own text repeats the host and the port, which every message begins with.
        return f"cannot connect: {error.__cause__.strerror or _describe(error.__cause__)}"
    return str(error) or type(error).__name__
