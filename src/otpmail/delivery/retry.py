"""When a mail is tried again: a pure schedule, with jitter."""

from collections.abc import Callable

# Short at first, since a code is worth nothing late; then as RFC 5321, 4.5.4.1 advises for the rest of the day.
# Greylisting relays usually take a mail again after a minute, some after five.
SCHEDULE = (2.0, 5.0, 15.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
JITTER = 0.2


def delay(attempt: int, random: Callable[[], float]) -> float:
    """Seconds until the try after the `attempt`th (1 is the first).

    `random` gives [0, 1). The jitter keeps mails that failed together from coming back together.
    """
    base = SCHEDULE[min(attempt, len(SCHEDULE)) - 1]
    return base * (1 - JITTER + 2 * JITTER * random())
