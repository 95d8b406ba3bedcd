"""How many mails should wait, by the connections that are open."""

from delivery.fakes import make_job
from otpmail.delivery.queue import MailQueue
from otpmail.delivery.supply import Supply
from otpmail.events import ConnectionOpened
from otpmail.model import Priority


async def test_the_mark_follows_the_window_of_the_connections() -> None:
    """Two mails wait for each that may be in flight, whatever EMAIL_WINDOW says and the relay does not allow."""
    queue = MailQueue()
    supply = Supply(queue, workers=3, window=1000)
    for window in (2, 1, 16):
        supply.notify(ConnectionOpened("relay", "data", window))
        while not queue.is_above_high_water(Priority.NORMAL):
            queue.put_nowait(make_job(f"m{queue.qsize()}"))
        assert queue.qsize() == max(12, 6 * window)


async def test_a_raised_mark_calls_producers_at_half_of_it() -> None:
    """A producer that waits below the new low-water mark is called when the next job leaves."""
    queue, called = MailQueue(high_water=2), list[None]()
    for number in range(8):
        queue.put_nowait(make_job(f"m{number}"))
    queue.call_below_low_water(Priority.NORMAL, lambda: called.append(None))
    queue.set_high_water(16)
    queue.get_nowait()
    assert called == [None]
