"""How a stop leaves the mails that have not settled: their numbers, and the words for those who wait for them."""

from typing import NamedTuple

STOPPED = "the service stopped before the mail could be sent"


class Closed(NamedTuple):
    """How many unsettled mails a stop left: `kept` by the store for the next start, or `failed`.

    `lost` are those of the failed ones that were guaranteed, or whose callers were answered that they go on. The relay
    may have accepted `uncertain` of these.
    """

    kept: int
    failed: int
    lost: int = 0
    uncertain: int = 0
