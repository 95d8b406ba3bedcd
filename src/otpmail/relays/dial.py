"""Opens, secures and signs in a connection to a relay, at the first of its addresses that is ready."""

import ssl
from dataclasses import replace
from functools import partial

import aiosmtplib

from otpmail.errors import ConnectFailed, SignInRefused, Unreachable
from otpmail.relays.addresses import Address, Addresses
from otpmail.relays.opening import FAILURES, Opened, connect, failure, greet, raise_if_cancelled
from otpmail.relays.race import Race
from otpmail.relays.sign_in import sign_in
from otpmail.relays.token import Token
from otpmail.settings import RelaySettings
from otpmail.smtp.capabilities import Capabilities
from otpmail.smtp.ehlo import mechanisms
from otpmail.smtp.redaction import Redactor
from otpmail.smtp.sasl import Credentials, oauthbearer_message
from otpmail.values import frozen


@frozen()
class SignedIn:
    """An open connection, secured and signed in, and what takes its credentials out of the relay's words.

    `address` is the IP address that it leads to, `helo` the name that was said there.
    """

    client: aiosmtplib.SMTP
    redactor: Redactor
    capabilities: Capabilities
    address: str
    helo: str


async def dial(
    settings: RelaySettings, tls: ssl.SSLContext, token: Token | None = None, addresses: Addresses | None = None
) -> SignedIn:
    """Connect, secure and sign in, by `token` if EMAIL_AUTH asks for one, else by the password.

    Every address of the host is tried until one is ready (RFC 5321, 5.1). `addresses` remembers which one that was;
    by default it is forgotten. Raises ConnectFailed, or SignInRefused, with one line that names the cause and holds no
    secret.
    """
    addresses = addresses or Addresses(settings.host, settings.port)
    secret = await _read_secret(settings, token) if settings.signs_in else ""
    known = Credentials(settings.user, secret, settings.host, settings.port)
    redactor = Redactor.of_credentials(
        settings.user, secret, [oauthbearer_message(known)] if settings.has_token else []
    )
    opened = await _open(settings, tls, addresses, redactor)
    try:
        if settings.signs_in:
            await sign_in(opened.client, mechanisms(opened.capabilities), settings, known, redactor)
        raise_if_cancelled()
    except BaseException as error:
        opened.close()
        if not isinstance(error, SignInRefused):  # which another address would refuse as well
            addresses.broke(opened.address)
        if isinstance(error, ConnectFailed):
            raise _at(error, addresses, opened.address) from None
        if not isinstance(error, FAILURES):
            raise
        raise _at(failure(error, settings, redactor), addresses, opened.address) from None
    addresses.answered(opened.address)
    return SignedIn(
        opened.client, redactor, replace(opened.capabilities, relay=settings.endpoint), opened.address.text, opened.helo
    )


async def _read_secret(settings: RelaySettings, token: Token | None) -> str:
    """The password, or the token in EMAIL_TOKEN_FILE. Raises ConnectFailed when that can't be read."""
    if not settings.has_token:
        return settings.password.get_secret_value()
    assert token is not None
    return await token.read(settings.timeout)


async def _open(settings: RelaySettings, tls: ssl.SSLContext, addresses: Addresses, redactor: Redactor) -> Opened:
    """Return a connection to the first address that is ready. Raises ConnectFailed with what each of them said."""
    found = await addresses.find(settings.timeout)
    race = Race(
        found,
        partial(connect, timeout=settings.timeout),
        partial(greet, settings=settings, tls=tls, redactor=redactor),
        share=settings.timeout / len(found),
    )
    opened = await race.run()
    if opened is not None:
        return opened
    failures = list(race.failures.items())
    if len(failures) == 1:
        [(address, error)] = failures
        raise _at(error, addresses, address)
    said: dict[str, list[str]] = {}
    for address, error in failures:
        said.setdefault(str(error), []).append(address.text)
    lines = "; ".join(f"{', '.join(those)}: {words}" for words, those in said.items())
    is_unreachable = all(isinstance(error, Unreachable) for _, error in failures)
    kind = Unreachable if is_unreachable else ConnectFailed
    worst = max([error for _, error in failures], key=lambda error: error.code)
    raise kind(redactor.line(lines), code=worst.code, enhanced_code=worst.enhanced_code, reply=worst.reply)


def _at(error: ConnectFailed, addresses: Addresses, address: Address) -> ConnectFailed:
    """Return the error with the address that it is about, unless that is the host."""
    return error.reworded(addresses.describe(address, str(error)))
