"""The signals of a running service: SIGTERM and SIGINT stop it, the second one ends it, SIGHUP reloads."""

import os
import signal
from asyncio import AbstractEventLoop
from collections.abc import Callable
from types import FrameType

_STDIN = 0


class Signals:
    """Handles the signals of this process, from its construction on. Before `attach` there is nothing to stop.

    The first SIGTERM or SIGINT stops the service, and a later one ends the process with 128 + its number. SIGHUP
    reloads the settings. It stops the service if `hangup_stops`, or if standard input is a terminal that has gone,
    except under nohup.
    These are handlers of Python, which run in the middle of the loop's work: a busy loop delays no end.
    """

    def __init__(self, *, hangup_stops: bool) -> None:
        # Under nohup a service is to outlive its terminal.
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._hangup_stops = hangup_stops and not ignored
        self._had_terminal = os.isatty(_STDIN) and not ignored
        self._loop: AbstractEventLoop | None = None
        self._stopping = False
        self._ending = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_hangup)

    def __repr__(self) -> str:
        return f"<Signals stopping={self._stopping} ending={self._ending}>"

    def attach(
        self,
        loop: AbstractEventLoop,
        *,
        stop: Callable[[], None],
        reload: Callable[[], None],
        give_up: Callable[[], None],
    ) -> None:
        """Call `stop` and `reload` on the loop from now on, and `give_up` at once, before the process ends."""
        self._stop, self._reload, self._give_up = stop, reload, give_up
        self._loop = loop

    def ignore_hangup(self) -> None:
        """Ignore SIGHUP from now on. Python's exit restores the default, which ends the process, for other handlers."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _on_stop(self, number: int, _: FrameType | None) -> None:
        if self._loop is None or self._loop.is_closed() or self._ending:
            os._exit(128 + number)
        if not self._stopping:
            self._stopping = True
            self._loop.call_soon_threadsafe(self._stop)
            return
        self._ending = True
        try:
            self._give_up()
        finally:
            os._exit(128 + number)

    def _on_hangup(self, number: int, _: FrameType | None) -> None:
        stops = self._hangup_stops or (self._had_terminal and not os.isatty(_STDIN))
        if self._loop is None or self._loop.is_closed():
            if stops:
                os._exit(128 + number)
        elif not stops:
            self._loop.call_soon_threadsafe(self._reload)
        elif not self._stopping:  # a terminal that goes may send it twice, so it never ends a stop
            self._stopping = True
            self._loop.call_soon_threadsafe(self._stop)
