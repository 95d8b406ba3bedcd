"""Decides whether a call is repeated, and when. Pure: the time and the randomness are passed in."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from otpmail.client.arguments import seconds
from otpmail.client.errors import Error, TimedOut, Unavailable

_FIRST_SECONDS = 0.1
_MOST_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a call is made at most, and the longest time that the client waits between two.

    A service that asks for a longer wait gets none: the call raises, with the time in `retry_after`.
    """

    attempts: int = 5
    most_wait: float = 5.0

    def __post_init__(self) -> None:
        if not isinstance(self.attempts, int) or not isinstance(self.most_wait, int | float):
            raise TypeError(f"retries: attempts and most_wait must be numbers: {self}")
        if self.attempts < 1 or not self.most_wait >= 0:
            raise ValueError(f"retries: attempts must be 1 or more, and most_wait 0 or more: {self}")


class CallLimits:
    """How long the calls of a client take at most, and how often each is made. `timeout` is in seconds.

    Raises TypeError and ValueError for an argument of a client that is wrong.
    """

    def __init__(
        self, timeout: float | None, retries: Retries, *, now: Callable[[], float], random: Callable[[], float]
    ) -> None:
        self._timeout = seconds(timeout, "timeout")
        if not isinstance(retries, Retries):
            raise TypeError(f"retries: must be Retries, as in Retries(attempts=3), not {type(retries).__name__}")
        self.retries = retries
        self._now, self._random = now, random

    def __repr__(self) -> str:
        return f"<CallLimits {self._timeout} s, {self.retries}>"

    def attempts(self, timeout: float | None, usual: float | None, *, is_repeatable: bool = True) -> "Attempts":
        """Return the attempts of one call: its own `timeout` holds, else the client's, else the usual one.

        Raises TypeError and ValueError for a timeout that is wrong.
        """
        given = self._timeout if timeout is None else seconds(timeout, "timeout")
        return Attempts(
            self.retries,
            timeout=usual if given is None else given,
            is_repeatable=is_repeatable,
            now=self._now,
            random=self._random,
        )


class Attempts:
    """The attempts of one call: how long the next one may take, and how long to wait before it."""

    def __init__(
        self,
        retries: Retries,
        *,
        timeout: float | None,
        is_repeatable: bool,
        now: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._retries = retries
        self._is_repeatable = is_repeatable
        self._now, self._random = now, random
        self._ends = None if timeout is None or timeout == inf else now() + timeout
        self._failures = 0

    def __repr__(self) -> str:
        return f"<Attempts {self._failures} failed of {self._retries.attempts}>"

    def left(self) -> float | None:
        """Return how many seconds are left for the call, None for any time. Raises TimedOut if none are."""
        left = self._left()
        if left is not None and left <= 0:
            raise TimedOut("the time for the call had passed before it was made")
        return left

    def _left(self) -> float | None:
        return None if self._ends is None else self._ends - self._now()

    def succeeded(self) -> None:
        """Start to count again, as an answer has come over a stream."""
        self._failures = 0

    def wait_after(self, error: Error) -> float:
        """Return the seconds to wait before the next attempt. Raises the error if there is no next one.

        The wait grows twofold with each failure, and is not below what the service asks. Both have jitter. The error
        is raised without gRPC's as its context, which says the same.
        """
        self._failures += 1
        if not self._is_repeatable or not isinstance(error, Unavailable):
            raise error from None
        if self._failures >= self._retries.attempts:
            raise error from None
        grown: float = min(_MOST_SECONDS, _FIRST_SECONDS * 2 ** (self._failures - 1))
        spread = self._random()
        wait = max(grown * (0.5 + spread), (error.retry_after or 0.0) * (1 + spread / 4))
        left = self._left()
        if wait > self._retries.most_wait or (left is not None and wait >= left):
            raise error from None
        return wait
