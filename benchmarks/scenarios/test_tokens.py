"""The time in which a call's token is looked up, right or wrong."""

from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from timeit import repeat

from benchmarks.report.promise import Promise
from benchmarks.report.results import Results
from otpmail.api.auth import AUTHORIZATION, Authenticator, authorization_of
from otpmail.callers import Caller, Callers
from otpmail.errors import Unauthenticated

_TOKENS = 10_000
_TOKEN = f"{'x' * 50}a"
_KINDS = {"right": _TOKEN, "unknown": "y" * 51, "wrong in its last character": f"{'x' * 50}b"}


class _Context:
    """A call without a certificate."""

    def auth_context(self) -> dict[str, list[bytes]]:
        """Return no properties, as gRPC does without TLS."""
        return {}


def _looking_up(authenticator: Authenticator, token: str) -> Callable[[], None]:
    context, given = _Context(), [f"Bearer {token}"]

    def once() -> None:
        AUTHORIZATION.set(authorization_of(given))
        with suppress(Unauthenticated):
            authenticator.identify(context)

    return once


def test_look_up_of_a_token(results: Results, *, quick: bool) -> None:
    """A look-up takes less than 5 microseconds, with the reading of the metadata, and little more of a wrong token."""
    digests = [sha256(token.encode()).digest() for token in [_TOKEN, *map(str, range(_TOKENS - 1))]]
    authenticator = Authenticator(Callers(dict.fromkeys(digests, Caller("shop")), {}), by_certificate=False)
    lookups = [_looking_up(authenticator, token) for token in _KINDS.values()]
    turns = [[min(repeat(once, number=200, repeat=5)) / 200 for once in lookups] for _ in range(3 if quick else 100)]
    taken = [1e6 * min(times) for times in zip(*turns, strict=True)]  # whatever else the machine does only adds to it
    results.report(
        [{"token": kind, "us/look-up": time} for kind, time in zip(_KINDS, taken, strict=True)],
        Promise(what="microseconds a look-up", figure=max(taken), at_most=5, timed=True),
        Promise(what="a wrong token, times a right one", figure=max(taken[1:]) / taken[0], at_most=1.5),
    )
