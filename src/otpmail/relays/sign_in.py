"""Signs in on an open connection, by the first mechanism that both sides take."""

import base64
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress

import aiosmtplib
from aiosmtplib import SMTPResponse

from otpmail.errors import ConnectFailed, SignInRefused
from otpmail.model import RecipientResult
from otpmail.relays.refusal import failed_by, read_reply
from otpmail.settings import AuthMechanism, RelaySettings
from otpmail.settings.terms import in_terms_of
from otpmail.smtp.redaction import MASK, Redactor
from otpmail.smtp.sasl import MECHANISMS, Credentials, Mechanism, Unanswerable, read_challenge

# Under TLS a plain password is as safe as a digest of it, and the relay need not store the password itself.
_BY_PASSWORD: tuple[AuthMechanism, ...] = ("plain", "login", "cram-md5")
_BY_TOKEN: tuple[AuthMechanism, ...] = ("xoauth2", "oauthbearer")

_MOST_CHALLENGES = 5
_CONTINUE = 334
# These refuse the mechanism, not the password (RFC 4954, 4 and 6; Exchange says 504 5.7.4, qmail's kin 553).
_NOT_THIS_MECHANISM = frozenset({500, 501, 502, 504, 553})
_UNSUPPORTED = re.compile(r"5\.7\.4\b|5\.5\.4\b|mechanism\b.{0,40}\bweak", re.IGNORECASE | re.DOTALL)

# The digest of CRAM-MD5 (RFC 2195, 2), whole or in pieces, and what may be that in base64.
_DIGEST = re.compile(r"\b[0-9a-f]{8,32}\b")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{8,}={0,2}")


async def sign_in(
    client: aiosmtplib.SMTP, offered: Sequence[str], settings: RelaySettings, known: Credentials, redactor: Redactor
) -> None:
    """Sign in by EMAIL_AUTH, or by the mechanisms that fit the credentials, until the relay takes one.

    A refused mechanism is followed by the next one, a refused password is not: providers lock accounts over these.
    Raises SignInRefused, or ConnectFailed when the relay refuses for now.
    """
    mechanisms = _common(offered, settings)
    if not mechanisms:
        raise SignInRefused(redactor.line(_no_mechanism(offered, settings)))
    refusals: dict[str, str] = {}
    last = RecipientResult("")
    for name in mechanisms:
        try:
            reply = await _exchange(client, name, MECHANISMS[name](known))
        except Unanswerable as error:
            refusals[name] = redactor.line(str(error))
            continue
        except aiosmtplib.SMTPServerDisconnected:
            if refusals:  # it closes over the mechanism before
                break
            raise ConnectFailed(f"the relay closed the connection over AUTH {name.upper()}, without a reply") from None
        if reply.code // 100 == 2:
            return
        message = _without_digests(reply.message) if name == "cram-md5" else reply.message
        last, refusals[name] = read_reply(reply.code, message, redactor), redactor.line(f"{reply.code} {message}")
        if 400 <= reply.code < 500:
            raise failed_by(last, ConnectFailed, f"signing in failed for now: {refusals[name]}")
        if not _refuses_mechanism(reply):
            break
    raise failed_by(last, SignInRefused, redactor.line(_refused(settings.user, refusals)))


def _common(offered: Sequence[str], settings: RelaySettings) -> list[AuthMechanism]:
    """The mechanisms to try, in their order: EMAIL_AUTH alone, else those that fit the credentials."""
    wanted = (settings.auth,) if settings.auth else _BY_TOKEN if settings.has_token else _BY_PASSWORD
    return [name for name in wanted if name in offered]


async def _exchange(client: aiosmtplib.SMTP, name: str, mechanism: Mechanism) -> SMTPResponse:
    """Run one exchange to the reply that ends it. Raises Unanswerable once it is cancelled (RFC 4954, 4)."""
    first = [] if mechanism.initial is None else [base64.b64encode(mechanism.initial) or b"="]
    reply = await client.execute_command(b"AUTH", name.upper().encode(), *first)
    for _ in range(_MOST_CHALLENGES):
        if reply.code != _CONTINUE:
            return reply
        try:
            response = mechanism.respond(read_challenge(reply.message))
        except Unanswerable:
            with suppress(aiosmtplib.SMTPException):  # a relay may close over it
                await client.execute_command(b"*")
            raise
        reply = await client.execute_command(base64.b64encode(response))
    return reply


def _refuses_mechanism(reply: SMTPResponse) -> bool:
    return reply.code in _NOT_THIS_MECHANISM or _UNSUPPORTED.search(reply.message) is not None


def _without_digests(message: str) -> str:
    return _BASE64.sub(_without_digest, _DIGEST.sub(MASK, message))


def _refused(user: str, refusals: Mapping[str, str]) -> str:
    whose = f"sign {user} in" if user else "sign in by the client certificate"
    named = [f"{name.upper()}: {said}" for name, said in refusals.items()] if len(refusals) > 1 else refusals.values()
    return f"the relay refused to {whose}: {'; '.join(named)}"


def _no_mechanism(offered: Sequence[str], settings: RelaySettings) -> str:
    if not offered:
        cure = in_terms_of(settings, "leave EMAIL and APP_PASSWORD unset")
        return f"the relay offers no sign-in on this connection; if it needs none, {cure}"
    if settings.auth:
        why, cure = f"EMAIL_AUTH={settings.auth} is not among them", "set EMAIL_AUTH to one of these, or leave it unset"
    elif settings.has_token:
        why, cure = "none of these takes a token", "set APP_PASSWORD in place of EMAIL_TOKEN_FILE"
    else:
        why = "none of these takes a password"
        cure = "set EMAIL_TOKEN_FILE to a file with an access token, in place of APP_PASSWORD"
    return f"the relay offers {', '.join(offered).upper()} to sign in with; {in_terms_of(settings, f'{why}: {cure}')}"


def _without_digest(match: re.Match[str]) -> str:
    """Mask a word in base64 that holds hexadecimal digits and nothing else."""
    word = match[0].rstrip("=")
    for before in range(4):
        whole = word[before : before + (len(word) - before) // 4 * 4]
        if _DIGEST.fullmatch(base64.b64decode(whole).decode("latin-1")):
            return MASK
    return match[0]
