"""Tells who calls: by the token in a call's metadata, else by the certificate of its connection."""

import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from hashlib import sha256
from itertools import chain

from otpmail.api.calls import Context
from otpmail.api.certificate import properties_of_pem
from otpmail.callers import ANONYMOUS, CALLER, CERTIFICATE_PREFIX, Caller, Callers, Permissions
from otpmail.errors import PermissionDenied, Unauthenticated
from otpmail.settings.callers import USUAL_PRIORITIES

Admit = Callable[[str, Context], Caller]
"""Returns who calls a method, by its context. Raises Unauthenticated or PermissionDenied."""

KEY = "authorization"
"""The metadata with the token of a caller."""

MOST_CHARACTERS = 1024
"""The most that is looked at of one value of it; a token of ours has 51 characters."""

AUTHORIZATION: ContextVar[Sequence[str] | bytes] = ContextVar("AUTHORIZATION", default=())
"""The SHA-256 of a call's token, or all values of that metadata until `api.auth` looks at them.

gRPC would read the metadata of a call again, in 8 us.
"""

_SCHEME = "bearer"
_PEM = "x509_pem_cert"
_USUAL = "Bearer "
_LONGEST_NAME = 256  # characters; each mail of the caller keeps it
_MISSING = "this service wants a token: send `authorization: Bearer TOKEN`, as metadata of gRPC or a header of HTTP"
_NOT_ONE = "`authorization` must come once, as `Bearer TOKEN`"
_UNKNOWN = "the token is not one of this service"
_NOBODY = (bytes(32), ANONYMOUS)

# Names in a certificate, in the order in which one of them is the caller's name: by gRPC's property, and our kind.
_NAMES = (
    ("peer_uri", "uri"),
    ("peer_dns", "dns"),
    ("peer_email", "email"),
    ("peer_ip", "ip"),
    ("x509_subject", "subject"),
)
_WHOLE = ("peer_uri", "peer_dns", "peer_email")


class Authenticator:
    """Tells who calls, and whether the caller may call a method.

    `callers` may be exchanged at any time. With None no token is asked for. With `by_certificate` each TLS connection
    has shown a certificate of a trusted authority. Without `callers` its name is the caller's.
    """

    def __init__(self, callers: Callers | None, *, by_certificate: bool) -> None:
        self._by_certificate = by_certificate
        self.renew(callers)

    def __repr__(self) -> str:
        return f"<Authenticator {len(self._tokens)} tokens, {len(self._certificates)} certificates>"

    def renew(self, callers: Callers | None) -> None:
        """Know these callers, and no others, from the next call on."""
        self._names_itself = callers is None
        callers = callers or Callers({}, {})
        self._tokens = {digest: (digest, caller) for digest, caller in callers.by_token.items()}
        self._certificates = callers.by_certificate
        self._anonymous = callers.anonymous

    def admit(self, method: str, context: Context) -> Caller:
        """Return who calls. Raises Unauthenticated, and PermissionDenied for a method that the caller may not call."""
        caller = self.identify(context)
        methods = caller.may.methods
        if methods is not None and method not in methods:
            CALLER.set(caller)  # the line of the log about the refusal names the caller
            raise PermissionDenied(
                f"method: {caller.name} may not call {method[1:]}; add it to `methods` in {caller.place}"
            )
        return caller

    def admit_anybody(self, _: str, context: Context) -> Caller:
        """Return who calls a method that every caller may call. Raises Unauthenticated."""
        return self.identify(context)

    def identify(self, context: Context) -> Caller:
        """Return who calls, by the present callers, also for a call that was asked before.

        Raises Unauthenticated.
        """
        if given := AUTHORIZATION.get():
            if not isinstance(given, bytes):
                AUTHORIZATION.set(())  # no token outlives this look, since timers keep the context of a call
                AUTHORIZATION.set(given := _digest_of(given))
            # A dict may find it, since the digest of a nearly right token is another one.
            known, caller = self._tokens.get(given, _NOBODY)
            if not hmac.compare_digest(known, given):
                raise Unauthenticated(_UNKNOWN)
            return caller
        if self._by_certificate and (names := _names_of(context.auth_context())):
            return self._of_certificate(names)
        if self._anonymous is None:
            raise Unauthenticated(_MISSING)
        return self._anonymous

    def _of_certificate(self, names: list[str]) -> Caller:
        for name in names:
            if (caller := self._certificates.get(name)) is not None:
                return caller
        if self._names_itself:
            if len(names[0]) > _LONGEST_NAME or not names[0].isprintable():
                raise Unauthenticated("the name in this certificate is too long, or holds control characters")
            return Caller(f"{CERTIFICATE_PREFIX}{names[0]}", Permissions(priorities=USUAL_PRIORITIES))
        if self._anonymous is None:
            raise Unauthenticated(f"no caller has this certificate: {', '.join(names)}")
        return self._anonymous


def authorization_of(given: Sequence[str]) -> Sequence[str] | bytes:
    """Return what AUTHORIZATION is to hold of a call with these values, cut to MOST_CHARACTERS each."""
    # fast path: a token as nearly every client writes it, 1 us; held to the full path by tests/api/test_auth.py
    if len(given) == 1 and (value := given[0]).startswith(_USUAL) and value.isascii():
        token = value[len(_USUAL) : MOST_CHARACTERS].strip()
        if token:
            return sha256(token.encode()).digest()
    return [value[:MOST_CHARACTERS] for value in given]


def _digest_of(given: Sequence[str]) -> bytes:
    """Return the SHA-256 of the token in the values of `authorization`. Raises Unauthenticated unless there is one."""
    scheme, _, token = given[0].strip().partition(" ")
    if len(given) > 1 or scheme.lower() != _SCHEME or not token:
        raise Unauthenticated(_NOT_ONE)
    return sha256(token.strip().encode()).digest()


def _names_of(properties: Mapping[str, Iterable[bytes]]) -> list[str]:
    """Return the names in the certificate of a connection, none without one. Host names are in lower case.

    Raises Unauthenticated for a name with a NUL, and for a certificate that can't be read whole. Many programs read the
    part before a NUL, which may be the name of another. gRPC gives no more, so the certificate itself is read.
    """
    for pem in properties.get(_PEM, ()):
        properties = properties_of_pem(pem)
    if any(b"\0" in name for name in chain(*[properties.get(key, ()) for key in _WHOLE])):
        raise Unauthenticated("a name in this certificate holds a NUL")
    names = [(kind, name.decode(errors="replace")) for key, kind in _NAMES for name in properties.get(key, ())]
    return [f"{kind}:{name.lower() if kind == 'dns' else name}" for kind, name in names]
