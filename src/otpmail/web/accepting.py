"""Accepts connections from sockets that listen: for TLS, and where several processes have the same sockets."""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable

from otpmail.telemetry.logs import log_event

_AT_ONCE = 64  # connections that are accepted before anything else goes on
_PAUSE_SECONDS = 1.0  # where there is no descriptor

_SHARE_SECONDS = 0.0001  # for each open connection, a pause in which other processes take the next one
_MOST_COUNTED = 20  # of them
_ROUNDS = 16  # with a pause each, until one more is taken at once


class Acceptor:
    """Passes each connection to `take`, until `close`.

    With `held`, which returns how many connections the process has, it shares its sockets. After each connection it
    pauses, for longer where it has more, so that other processes get theirs. Whichever process the kernel wakes first
    would else take a whole burst. While there are ever more than it takes, it takes more at once.
    """

    def __init__(
        self, sockets: Iterable[socket.socket], take: Callable[[socket.socket], None], held: Callable[[], int] | None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sockets = tuple(sockets)
        self._take, self._held = take, held
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        self._rounds = 0  # since nothing waited after a pause
        for bound in self._sockets:
            bound.setblocking(False)  # noqa: FBT003  the socket module's own signature
            self._loop.add_reader(bound, self._accept, bound)

    def __repr__(self) -> str:
        return f"<Acceptor of {len(self._sockets)} sockets{', shared' * (self._held is not None)}>"

    def close(self) -> None:
        """Accept no more. The sockets stay open."""
        for bound in self._sockets:
            self._loop.remove_reader(bound)
        for pause in self._pauses.values():
            pause.cancel()
        self._sockets = ()
        self._pauses.clear()

    def _accept(self, bound: socket.socket) -> None:
        turn = _AT_ONCE if self._held is None else min(1 + self._rounds // _ROUNDS, _AT_ONCE)
        for _ in range(turn):
            try:
                accepted, _ = bound.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                self._rounds = 0
                return
            except OSError as error:  # the connection stays in the queue, so the loop would come back at once
                self._pause(bound, _PAUSE_SECONDS)
                log_event(logging.ERROR, "http-accept", f"HTTP_PORT takes no connection for now: {error.strerror}")
                return
            accepted.setblocking(False)  # noqa: FBT003  the socket module's own signature
            self._take(accepted)
        if self._held is not None:
            self._pause(bound, _SHARE_SECONDS * min(self._held() + 1, _MOST_COUNTED))

    def _pause(self, bound: socket.socket, seconds: float) -> None:
        self._loop.remove_reader(bound)
        self._pauses[bound] = self._loop.call_later(seconds, self._resume, bound)

    def _resume(self, bound: socket.socket) -> None:
        del self._pauses[bound]
        self._loop.add_reader(bound, self._accept, bound)
        self._rounds += 1
        self._accept(bound)
