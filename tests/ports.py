"""Ports of loopback that a test holds, so that no other program gets them before its server does, or between two runs.

A server that takes PORT=0 needs none: the system chooses a port and the server says which.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

HOST = "127.0.0.1"
_TRIES = 1000


class ReservedPort:
    """A port that is held by a socket which never listens: a free one of `host`, or this `port`.

    Those that are `above` it by so many are held too. The system refuses connections to it, and gives it to nobody as a
    free one. A server that sets SO_REUSEADDR, as all of ours do, listens there as often as it likes (socket(7)).
    """

    def __init__(self, *above: int, host: str = HOST, port: int = 0) -> None:
        self._host = host
        self._sockets = ExitStack()
        for _ in range(1 if port else _TRIES):
            try:
                self.port = self._hold(port)
                for distance in above:
                    self._hold(self.port + distance)
            except (OSError, OverflowError) as error:  # another program has one, or it is above the highest port
                self._sockets.close()
                problem = error
            else:
                return
        raise problem

    def __repr__(self) -> str:
        return f"<ReservedPort {self.port}>"

    def close(self) -> None:
        """Let go of it."""
        self._sockets.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _hold(self, port: int) -> int:
        holder = self._sockets.enter_context(socket.socket(socket.AF_INET6 if ":" in self._host else socket.AF_INET))
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((self._host, port))
        return int(holder.getsockname()[1])
