"""How many mails should wait for the connections: enough to keep them busy, and no more."""

from otpmail.delivery.queue import MailQueue
from otpmail.events import ConnectionOpened, Event

_FOR_EACH = 2  # mails that wait for each that may be in flight: more would only wait longer


class Supply:
    """An Observer that sets the queue's high-water mark by the window of the connections that are opened.

    A relay without CHUNKING has a smaller window than EMAIL_WINDOW says. `workers` is how many connections there are,
    `window` the one that the settings allow, which counts until the first connection is open.
    """

    event_types: frozenset[type[Event]] = frozenset({ConnectionOpened})

    def __init__(self, queue: MailQueue, *, workers: int, window: int) -> None:
        self._queue = queue
        self._workers = workers
        self._follow(window)

    def __repr__(self) -> str:
        return f"<Supply of {self._workers} workers, {self._queue!r}>"

    def notify(self, event: Event) -> None:
        """Follow the connection that was opened last: all lead to one relay, but for a moment of failover."""
        if isinstance(event, ConnectionOpened):
            self._follow(event.window)

    def _follow(self, window: int) -> None:
        self._queue.set_high_water(_FOR_EACH * self._workers * window)
