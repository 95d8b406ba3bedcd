"""Suppressions: why nothing is sent to an address, and what is known of an address to decide that."""

from enum import Enum

from otpmail.values import frozen

REMEMBERED_SECONDS = 30 * 86_400.0
"""How long after its end a refusal still makes the next one longer."""


class SuppressionScope(Enum):
    """The mails that a suppression keeps back: all of them, or those of the priority BULK alone."""

    ALL = "all"
    BULK = "bulk"

    __hash__ = object.__hash__  # Enum's own is written in Python


@frozen()
class Suppression:
    """Why nothing is sent to an address; `since` and `until` are in seconds since the epoch.

    `reason` is the reply of the relay, or the words that a caller has reported.
    """

    reason: str
    since: float
    until: float
    scope: SuppressionScope = SuppressionScope.ALL


@frozen()
class AddressRecord:
    """A record of one (caller, address). The rules that change it are in `limits.suppressing`.

    `refused` keeps all mails back, `complained` bulk alone. Either may be over. `strikes` is how many refusals have
    followed each other. `is_reported`: the caller has reported the latest one, which no relay had told.
    """

    refused: Suppression | None = None
    strikes: int = 0
    is_reported: bool = False
    complained: Suppression | None = None

    def suppression(self, now: float, *, bulk: bool) -> Suppression | None:
        """Return what keeps a mail back now, None where it may go; `bulk` is whether its priority is BULK."""
        refused, complained = self.refused, self.complained
        if refused is not None and refused.until > now:
            return refused
        return complained if bulk and complained is not None and complained.until > now else None

    @property
    def ends(self) -> float:
        """From when on it changes nothing any more."""
        refused = 0.0 if self.refused is None else self.refused.until + REMEMBERED_SECONDS
        return max(refused, 0.0 if self.complained is None else self.complained.until)
