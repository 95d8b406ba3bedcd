"""When a relay may be dialled: at once while dialling works, later each time while it does not. Rules, no loop."""

from collections.abc import Callable

_JITTER = 0.25
_MOST_DOUBLINGS = 16


class Breaker:
    """Opens at a failure, for longer each time; closed again when the relay has proved to be well.

    Times are on the caller's clock, in seconds. `random` gives [0, 1): without jitter, services that lost the same
    relay would come back to it at the same moment.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self.failures = 0
        self.next_try = 0.0
        self._random = random
        self.over_sign_in = False  # whether it was a refused sign-in that opened it

    def __repr__(self) -> str:
        return f"<Breaker {'closed' if self.closed else f'open, {self.failures} failures'}>"

    @property
    def closed(self) -> bool:
        """Whether whoever wants to may dial."""
        return self.failures == 0

    def failed(self, now: float, *, first: float, most: float, over_sign_in: bool = False) -> None:
        """Note a failure: the wait is `first`, twice as long each time, at most `most`.

        Failures before the next try is due are one failure: those of dials that were under way together. A refused
        sign-in counts all the same, since its wait is the longer one.
        """
        if self.failures and now < self.next_try and (self.over_sign_in or not over_sign_in):
            return
        if over_sign_in and not self.over_sign_in:
            self.failures = 0
        delay = min(most, first * 2 ** min(self.failures, _MOST_DOUBLINGS))
        self.failures += 1
        self.over_sign_in = over_sign_in
        self.next_try = now + delay * (1 - _JITTER + 2 * _JITTER * self._random())

    def signed_in(self) -> None:
        """A sign-in was taken, which says that the next one will be, and no more than that."""
        if self.over_sign_in:
            self._close()

    def took_mail(self) -> None:
        """The relay took a mail: it is well. But what it says on an old connection says nothing of the next sign-in."""
        if not self.over_sign_in:
            self._close()

    def _close(self) -> None:
        self.failures = 0
        self.next_try = 0.0
        self.over_sign_in = False
