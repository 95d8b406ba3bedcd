"""Reports replies that are about the settings of this service, and not about a mail."""

from collections.abc import Callable, Iterable
from math import inf

from otpmail.events import HeloRefused, Observer, SignInWanted
from otpmail.model import RecipientResult
from otpmail.smtp.reply_kind import NOT_SIGNED_IN, ReplyKind, kind_of_result

AGAIN_SECONDS = 60.0
"""How long the same fault is not reported again: each mail may meet it."""


class Faults:
    """Notifies `observer` of faults, once a minute; `now` is the clock, in seconds."""

    def __init__(self, observer: Observer, now: Callable[[], float]) -> None:
        self._observer = observer
        self._now = now
        self._reported = -inf

    def __repr__(self) -> str:
        return f"<Faults reported at {self._reported:g}>"

    def note(self, results: Iterable[RecipientResult]) -> None:
        """Look for a relay that refuses the name in EHLO, or wants a sign-in."""
        for result in results:
            if result.code >= 400 and (fault := _fault(result)) is not None:
                if self._now() >= self._reported + AGAIN_SECONDS:
                    self._reported = self._now()
                    self._observer.notify(fault)
                return


def _fault(result: RecipientResult) -> HeloRefused | SignInWanted | None:
    if result.code == NOT_SIGNED_IN:
        return SignInWanted(result.said)
    return HeloRefused(result.said) if kind_of_result(result) is ReplyKind.HELO_FAULT else None
