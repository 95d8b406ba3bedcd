"""Authentication of callers: by a token, by a certificate, or as anonymous."""

import sys
from contextlib import suppress
from functools import partial
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost import lines_run
from otpmail.api.auth import AUTHORIZATION, MOST_CHARACTERS, Authenticator, authorization_of
from otpmail.callers import ANONYMOUS, Caller, Callers, Permissions
from otpmail.errors import PermissionDenied, Unauthenticated

METHOD = "/otpmail.v1.OtpService/SendCode"
SHOP, NEWS = Caller("shop"), Caller("news", Permissions(methods=frozenset({METHOD})))
TOKENS = {sha256(token).digest(): caller for token, caller in ((b"one", SHOP), (b"two", SHOP), (b"three", NEWS))}


class Context:
    """A call over a connection whose client has shown a certificate with these names."""

    def __init__(self, **names: bytes) -> None:
        self._names = names

    def auth_context(self) -> dict[str, list[bytes]]:
        """Return the properties of the connection, as gRPC does."""
        return {"transport_security_type": [b"ssl"], **{key: [name] for key, name in self._names.items()}}


def _admit(authenticator: Authenticator, *authorization: str, method: str = METHOD, **names: bytes) -> Caller:
    AUTHORIZATION.set(authorization)
    return authenticator.admit(method, Context(**names))


def _by_token(anonymous: Caller | None = None) -> Authenticator:
    return Authenticator(Callers(TOKENS, {}, anonymous), by_certificate=False)


@pytest.mark.parametrize("authorization", ["Bearer one", "bearer two", "BEARER  one ", " Bearer one "])
def test_a_token_names_its_caller(authorization: str) -> None:
    """Any of a caller's tokens is good, and the scheme in any case of letters (RFC 9110, 11.1)."""
    assert _admit(_by_token(), authorization) == SHOP


@pytest.mark.parametrize(
    ("authorization", "words"),
    [
        ((), "this service wants a token: send `authorization: Bearer TOKEN`, as metadata of gRPC or a header of HTTP"),
        (("Bearer four",), "the token is not one of this service"),
        (("Bearer One",), "the token is not one of this service"),
        (("Bearer one two",), "the token is not one of this service"),
        (("Bearer \xff\u20ac",), "the token is not one of this service"),
        ((f"Bearer {'x' * 100_000}",), "the token is not one of this service"),
        (("one",), "`authorization` must come once, as `Bearer TOKEN`"),
        (("Basic one",), "`authorization` must come once, as `Bearer TOKEN`"),
        (("Bearer",), "`authorization` must come once, as `Bearer TOKEN`"),
        (("Bearer one", "Bearer one"), "`authorization` must come once, as `Bearer TOKEN`"),
    ],
)
def test_a_token_that_is_missing_or_wrong(authorization: tuple[str, ...], words: str) -> None:
    """The words about a missing or wrong token are fixed, and hold nothing of it."""
    with pytest.raises(Unauthenticated) as caught:
        _admit(_by_token(), *authorization)
    assert str(caught.value) == words


def test_a_wrong_token_is_not_anonymous() -> None:
    """Where calls without a token are allowed, one with a wrong token is refused all the same."""
    anonymous = Caller(ANONYMOUS.name, Permissions(methods=frozenset({METHOD})))
    authenticator = _by_token(anonymous)
    assert _admit(authenticator) is anonymous
    with pytest.raises(Unauthenticated):
        _admit(authenticator, "Bearer four")


_VALUE = st.one_of(
    st.sampled_from(["Bearer one", "Bearer", "Bearer ", "Bearer  three ", "bearer two", " Bearer one", "Bearer\tone"]),
    st.text(max_size=20).map("Bearer {}".format),
    st.sampled_from([1015, 1017, 1018, 2000]).map(lambda length: f"Bearer {'x' * length}"),
)


@given(st.lists(_VALUE, min_size=1, max_size=2))
def test_values_are_kept_as_the_digest_that_they_have(values: list[str]) -> None:
    """Values kept at the start of a call name the caller that later values name, or are refused in the same words."""
    cut = [value[:MOST_CHARACTERS] for value in values]
    outcomes = []
    for kept in (cut, authorization_of(values)):
        AUTHORIZATION.set(kept)
        try:
            outcomes.append(_by_token().admit(METHOD, Context()).name)
        except (Unauthenticated, UnicodeEncodeError) as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


def test_a_usual_token_is_not_kept() -> None:
    """Of a token as nearly every client writes it only the digest is kept, from the start of the call."""
    assert authorization_of(["Bearer one"]) == sha256(b"one").digest()
    assert authorization_of([f"Bearer {'x' * 5000}"]) == sha256(b"x" * (MOST_CHARACTERS - 7)).digest()


def test_a_token_is_looked_at_once() -> None:
    """No token outlives the look at it, since timers that a call starts keep its context: a digest takes its place."""
    authenticator = _by_token()
    _admit(authenticator, "Bearer one")
    assert AUTHORIZATION.get() == sha256(b"one").digest()
    with pytest.raises(Unauthenticated):
        _admit(authenticator, "Bearer one", "Bearer one")
    assert not AUTHORIZATION.get()


def test_a_call_that_is_asked_again() -> None:
    """A running call is known by the callers that there are when it is asked again."""
    authenticator = _by_token()
    assert _admit(authenticator, "Bearer three") is NEWS
    changed = Caller("news", Permissions(methods=frozenset()))
    authenticator.renew(Callers({sha256(b"three").digest(): changed}, {}))
    with pytest.raises(PermissionDenied):
        authenticator.admit(METHOD, Context())
    authenticator.renew(Callers({}, {}, SHOP))
    with pytest.raises(Unauthenticated):
        authenticator.admit(METHOD, Context())


def test_a_look_costs_little_right_or_wrong() -> None:
    """The look-up of a token takes the same few steps and lines right or wrong, however many there are.

    Tokens that differ in their last character alone from a right one take as many as any other. The time that they
    take is in benchmarks/scenarios/test_tokens.py.
    """
    few = _by_token()
    many = {sha256(b"%d" % number).digest(): SHOP for number in range(1000)}
    authenticators = few, Authenticator(Callers(many | TOKENS, {}), by_certificate=False)
    kinds = "Bearer one", "Bearer four", "Bearer onf"
    steps = [_steps(authenticator, authorization) for authenticator in authenticators for authorization in kinds]
    assert steps == steps[:1] * 6
    right, *wrong = [lines_run(partial(_look, authenticators[1], authorization)) for authorization in kinds]
    assert right <= 20
    assert wrong[0] == wrong[1] <= right + 1  # since 3.12 an error passes the line of `with` again


def _look(authenticator: Authenticator, authorization: str) -> None:
    AUTHORIZATION.set(authorization_of([authorization]))
    with suppress(Unauthenticated):
        authenticator.identify(Context())


def _steps(authenticator: Authenticator, authorization: str) -> list[str]:
    """Return the functions that a look calls, those in C included."""
    called: list[str] = []

    def note(_: Any, event: str, function: Any) -> None:
        if event == "c_call":
            called.append(function.__name__)

    AUTHORIZATION.set([authorization])
    sys.setprofile(note)
    try:
        authenticator.identify(Context())
    except Unauthenticated:
        pass
    finally:
        sys.setprofile(None)
    return called[: called.index("compare_digest") + 1]


def test_a_method_that_is_not_allowed() -> None:
    """A caller with a list of methods is refused others, with the place where they could be allowed."""
    assert _admit(_by_token(), "Bearer three") == NEWS
    with pytest.raises(PermissionDenied) as caught:
        _admit(_by_token(), "Bearer three", method="/otpmail.v1.MailService/SendMail")
    words = "add it to `methods` in [callers.news] of CALLERS_FILE"
    assert str(caught.value) == f"method: news may not call otpmail.v1.MailService/SendMail; {words}"


def test_what_every_caller_may_call() -> None:
    """Health needs a caller at most, whatever its list of methods holds."""
    AUTHORIZATION.set(["Bearer three"])
    assert _by_token().admit_anybody("/grpc.health.v1.Health/Check", Context()) == NEWS


_CERTIFICATES = {"subject:CN=shop,O=Example": SHOP, "uri:spiffe://example/news": NEWS}
_NAMES: dict[str, Any] = {"x509_subject": b"CN=shop,O=Example", "peer_dns": b"shop.example.org"}


def test_a_certificate_names_its_caller() -> None:
    """A caller is known by the subject of its certificate, or by one of the other names in it."""
    authenticator = Authenticator(Callers({}, _CERTIFICATES), by_certificate=True)
    assert _admit(authenticator, **_NAMES) == SHOP
    assert _admit(authenticator, peer_uri=b"spiffe://example/news") == NEWS


def test_a_certificate_that_is_not_in_the_file() -> None:
    """The refusal of a certificate names what is in it, so that an operator can name its caller."""
    authenticator = Authenticator(Callers({}, _CERTIFICATES), by_certificate=True)
    with pytest.raises(Unauthenticated) as caught:
        _admit(authenticator, x509_subject=b"CN=other", peer_dns=b"other.example")
    assert str(caught.value) == "no caller has this certificate: dns:other.example, subject:CN=other"


def test_a_name_of_another_kind() -> None:
    """A name counts as its kind alone: an authority for names in the DNS can't make up another URI or subject."""
    authenticator = Authenticator(Callers({}, _CERTIFICATES), by_certificate=True)
    with pytest.raises(Unauthenticated):
        _admit(authenticator, peer_dns=b"spiffe://example/news")


def test_a_certificate_without_trust_counts_for_nothing() -> None:
    """Names of a connection count only where an authority of clients is set, which has signed them."""
    authenticator = Authenticator(Callers(TOKENS, _CERTIFICATES), by_certificate=False)
    with pytest.raises(Unauthenticated):
        _admit(authenticator, **_NAMES)


def test_a_token_comes_before_a_certificate() -> None:
    """A proxy with a certificate of its own may pass on calls of callers, whose tokens tell them apart."""
    authenticator = Authenticator(Callers(TOKENS, _CERTIFICATES), by_certificate=True)
    assert _admit(authenticator, "Bearer three", **_NAMES) == NEWS


def test_certificates_without_a_file() -> None:
    """Without CALLERS_FILE a caller has the name in its certificate, and can't send urgent mails."""
    caller = _admit(Authenticator(None, by_certificate=True), **_NAMES)
    assert caller.name == "cert:dns:shop.example.org"
    assert [priority.name for priority in caller.may.priorities] == ["NORMAL", "BULK"]
    with pytest.raises(Unauthenticated):
        _admit(Authenticator(None, by_certificate=True))


@pytest.mark.parametrize("name", [b"x" * 300, b"a\x01b", b"a\nb"])
def test_a_certificate_whose_name_is_none(name: bytes) -> None:
    """A name that is very long, or holds control characters, is no caller by itself; the file may know one by it."""
    with pytest.raises(Unauthenticated):
        _admit(Authenticator(None, by_certificate=True), peer_uri=name)
    known = Callers({}, {f"uri:{name.decode()}": SHOP})
    assert _admit(Authenticator(known, by_certificate=True), peer_uri=name) is SHOP


def test_a_name_with_a_nul_is_nobodys() -> None:
    """The HTTP door gives it whole: it is refused also where the file has it, or another name of the certificate."""
    known = Callers({}, {"dns:a\0b": SHOP, "dns:a": SHOP})
    for names in (
        {"peer_dns": b"a\0b"},
        {"peer_dns": b"a", "peer_uri": b"a\0b"},
        {"peer_dns": b"a", "peer_email": b"\0"},
    ):
        with pytest.raises(Unauthenticated, match="holds a NUL"):
            _admit(Authenticator(known, by_certificate=True), method=METHOD, **names)


def test_callers_are_exchanged_at_once() -> None:
    """The next call is asked for what a renewed file has."""
    authenticator = _by_token()
    authenticator.renew(Callers({}, {}, SHOP))
    assert _admit(authenticator) == SHOP
    with pytest.raises(Unauthenticated):
        _admit(authenticator, "Bearer one")
