"""Who waits for the next beat (`rpc.beat`), and the clock by which it comes."""

import asyncio

from otpmail.rpc.beat import Beat


class Turns:
    """Calls that have come and not begun. All begin in this turn of the loop or the next; what they do leaves together.

    Build it inside a running loop.
    """

    def __init__(self, beat: Beat | None = None) -> None:
        self._beat = beat or Beat()
        self._loop = asyncio.get_running_loop()
        self._waiting: list[asyncio.Future[None]] = []
        self._alarm: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Turns {len(self._waiting)} waiting, {self._beat!r}>"

    def take(self, under_way: int) -> asyncio.Future[None] | None:
        """What a call is to wait for before it begins, if anything; so many are under way, with this one.

        Who waits may be cancelled.
        """
        now = self._loop.time()
        if self._beat.is_due(now, waiting=len(self._waiting) + 1, under_way=under_way):
            self._begin(now)
            return None
        if self._alarm is None:
            self._alarm = self._loop.call_at(self._beat.next_at, self._ring)
        turn = self._loop.create_future()
        self._waiting.append(turn)
        return turn

    def _ring(self) -> None:
        self._begin(self._loop.time())

    def _begin(self, now: float) -> None:
        self._beat.began(now)
        if self._alarm is None:
            return
        self._alarm.cancel()
        self._alarm = None
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            if not turn.done():  # else its call was cancelled
                turn.set_result(None)
