"""Suppressions: why nothing is sent to an address, and what is known of an address to decide that."""

from enum import Enum

from otpmail.values import frozen

REMEMBERED_SECONDS = 30 * 86_400.0
"""How long after its end a refusal still makes the next one longer."""


ANY_SPELLING = b""
"""In place of a spelling: a refusal holds for each."""

MOST_SPELLINGS = 4
"""Spellings of one address that a record notes; the oldest gives way to a further one."""


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
    followed each other. `is_reported`: the caller has reported the latest one, which no relay had told. `spellings` are
    those of the address which the relay has refused (`Address.spelling`), the newest last; empty for each of them.
    """

    refused: Suppression | None = None
    strikes: int = 0
    is_reported: bool = False
    complained: Suppression | None = None
    spellings: tuple[bytes, ...] = ()

    def suppression(self, now: float, spelling: bytes, *, bulk: bool) -> Suppression | None:
        """Return what keeps a mail back now, None where it may go.

        `spelling` is that of the mail's recipient; `bulk` is whether its priority is BULK.
        """
        refused, complained = self.refused, self.complained
        if refused is not None and refused.until > now and self.holds_for(spelling):
            return refused
        return complained if bulk and complained is not None and complained.until > now else None

    def holds_for(self, spelling: bytes) -> bool:
        """Whether the refusal is one of this spelling, or of each; `ANY_SPELLING` asks for the latter."""
        return not self.spellings or spelling in self.spellings

    def is_over(self, now: float) -> bool:
        """Whether it keeps no mail back now, in no spelling."""
        return all(part is None or part.until <= now for part in (self.refused, self.complained))

    @property
    def ends(self) -> float:
        """From when on it changes nothing any more."""
        refused = 0.0 if self.refused is None else self.refused.until + REMEMBERED_SECONDS
        return max(refused, 0.0 if self.complained is None else self.complained.until)
