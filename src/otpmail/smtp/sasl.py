"""The mechanisms of sign-in (RFC 4954): what is sent first, and what answers each challenge of the relay. No I/O."""

import hmac
import re
from binascii import Error as NoBase64
from binascii import a2b_base64
from collections.abc import Callable, Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Protocol

from otpmail.values import frozen


@frozen()
class Credentials:
    """The name to sign in with and its secret, a password or a token, at a relay's host and port."""

    user: str
    secret: str = field(repr=False)
    host: str
    port: int


class Unanswerable(ValueError):
    """The relay asks for what otpmail does not have, or must not send there. The exchange is to be cancelled."""


class Mechanism(Protocol):
    """One exchange by one mechanism."""

    initial: bytes | None
    """The initial response, which goes out with AUTH; None where the relay speaks first."""

    def respond(self, challenge: bytes) -> bytes:
        """Return the response to what the relay sent behind 334. Raises Unanswerable."""


class _Said:
    """A mechanism whose whole message is its initial response.

    A relay that ignores an initial response asks for it again (RFC 4954, 4).
    """

    def __init__(self, message: str) -> None:
        self.initial: bytes | None = message.encode("utf-8", "surrogateescape")
        self._is_repeated = False

    def respond(self, challenge: bytes) -> bytes:
        """Return the message a second time, if the challenge asks for it. Raises Unanswerable the third time."""
        del challenge
        if self._is_repeated:
            raise Unanswerable("the relay asks for the same response a third time")
        self._is_repeated = True
        return self.initial or b""


class _Bearer(_Said):
    """A mechanism with a token. A challenge with content is an error, after which the relay waits for `dismissal`."""

    def __init__(self, message: str, dismissal: bytes) -> None:
        super().__init__(message)
        self._dismissal = dismissal

    def respond(self, challenge: bytes) -> bytes:
        """Return the dismissal to an error, else the message a second time. Raises Unanswerable."""
        return self._dismissal if challenge.strip() else super().respond(challenge)


_ASKS = re.compile(
    r"(?P<password>pass|pwd|kennwort|contrase|senha|parol|has[lł]o|heslo|wachtwoord|l[öo]senord|пароль|密码|密碼|口令|パスワード)"
    r"|(?P<user>user|name|login|account|mail|benutzer|konto|utilisateur|identifiant|usuari|utente|логин|имя|用户|使用者|ユーザ)",
    re.IGNORECASE,
)


class _Login:
    """LOGIN, which no RFC defines: the relay asks for the user name and the password, each once, in its own words.

    The password goes out only where it is asked for, or to an empty second challenge.
    """

    initial: bytes | None = None

    def __init__(self, user: str, secret: str) -> None:
        self._left = {"user": user, "password": secret}

    def respond(self, challenge: bytes) -> bytes:
        """Return the user name or the password, whichever the prompt asks for. Raises Unanswerable."""
        prompt = _readable(challenge)
        asked = _ASKS.search(prompt)
        if asked is not None:
            wanted = str(asked.lastgroup)
        elif "user" in self._left:
            wanted = "user"  # it comes first, and is no secret
        elif not prompt:
            wanted = "password"
        else:
            raise Unanswerable(f"the relay asks for what LOGIN does not have: {prompt}")
        if wanted not in self._left:
            raise Unanswerable(f"the relay asks for the {wanted} a second time" if asked else "the relay asks again")
        return self._left.pop(wanted).encode("utf-8", "surrogateescape")


class _CramMd5:
    """CRAM-MD5 (RFC 2195): a digest of the challenge, keyed with the password."""

    initial: bytes | None = None

    def __init__(self, user: str, secret: str) -> None:
        self._user = user
        self._key = secret.encode("utf-8", "surrogateescape")
        self._is_answered = False

    def respond(self, challenge: bytes) -> bytes:
        """Return the name and the digest of the challenge, once. Raises Unanswerable."""
        if self._is_answered:
            raise Unanswerable("the relay sends a second challenge")
        self._is_answered = True
        return f"{self._user} {hmac.new(self._key, challenge, 'md5').hexdigest()}".encode("utf-8", "surrogateescape")


def _plain(known: Credentials) -> Mechanism:
    return _Said(f"\0{known.user}\0{known.secret}")  # RFC 4616, 2


def _login(known: Credentials) -> Mechanism:
    return _Login(known.user, known.secret)


def _cram_md5(known: Credentials) -> Mechanism:
    return _CramMd5(known.user, known.secret)


def _xoauth2(known: Credentials) -> Mechanism:
    return _Bearer(f"user={known.user}\1auth=Bearer {known.secret}\1\1", b"")


def oauthbearer_message(known: Credentials) -> str:
    """The initial response of OAUTHBEARER (RFC 7628, 3.1)."""
    user = known.user.replace("=", "=3D").replace(",", "=2C")  # RFC 5801, 4
    where = f"host={known.host}\1port={known.port}"
    return f"n,a={user},\1{where}\1auth=Bearer {known.secret}\1\1"


def _oauthbearer(known: Credentials) -> Mechanism:
    return _Bearer(oauthbearer_message(known), b"\1")  # RFC 7628, 3.2.3


def _external(known: Credentials) -> Mechanism:
    return _Said(known.user)  # RFC 4422, appendix A: empty, the relay takes the name from the certificate


MECHANISMS: Mapping[str, Callable[[Credentials], Mechanism]] = MappingProxyType(
    {
        "plain": _plain,
        "login": _login,
        "cram-md5": _cram_md5,
        "xoauth2": _xoauth2,
        "oauthbearer": _oauthbearer,
        "external": _external,
    }
)
"""The start of an exchange, by the mechanism's name in lower case."""


def read_challenge(text: str) -> bytes:
    """Decode what the relay sent behind 334; a text that is not base64 stands for itself."""
    encoded = text.strip().encode("utf-8", "surrogateescape")
    try:
        decoded = a2b_base64(encoded, strict_mode=True) if encoded else b""
    except NoBase64:
        return encoded
    # "Password" is base64 too, of octets that are no text.
    return encoded if _ASKS.search(text) and not _is_text(decoded) else decoded


def _is_text(octets: bytes) -> bool:
    try:
        return octets.decode().rstrip("\0\r\n").isprintable()
    except ValueError:
        return False


def _readable(challenge: bytes) -> str:
    return challenge.decode("utf-8", "replace").strip("\0 \t\r\n")
