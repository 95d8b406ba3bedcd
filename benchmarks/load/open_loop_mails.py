"""Calls of `mail.MailService/SendMail` that start by the clock (an open loop), by a client that costs little.

See `open_loop` for how calls are timed. This client speaks HTTP/2 itself, so that it leaves the processors to the
server, and waits in select(2), whose timeout counts in microseconds.
"""

import argparse
import json
import select
import socket
import time
from collections import deque

from benchmarks.load.h2load import PATH, framed_request
from benchmarks.load.http2 import Connection
from benchmarks.load.open_loop import Times, figures, schedule

_TIMEOUT_SECONDS = 60  # after the last call was due


class Offer:
    """The calls of one run on one socket."""

    def __init__(self, address: str) -> None:
        host, port = address.rsplit(":", 1)
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(0)
        self._connection = Connection(address, PATH, framed_request())
        self._in_flight: dict[int, tuple[float, float]] = {}  # by stream: when it was due, and started
        self.done: list[Times] = []

    def __repr__(self) -> str:
        return f"<Offer {len(self._in_flight)} in flight, {len(self.done)} done>"

    def run(self, arrivals: deque[float]) -> None:
        """Start each call when it is due, and wait for all. Raises ConnectionError or TimeoutError."""
        ends = arrivals[-1] + _TIMEOUT_SECONDS
        while arrivals or self._in_flight:
            now = time.monotonic()
            while arrivals and arrivals[0] <= now and self._connection.is_available:
                self._in_flight[self._connection.call()] = arrivals.popleft(), now
            self._wait(arrivals[0] - now if arrivals and self._connection.is_available else ends - now)
        self._socket.close()

    def _wait(self, seconds: float) -> None:
        """Write and read what the socket allows; return when a call is due or an answer came."""
        output = self._connection.output
        if output:
            del output[: self._socket.send(output)]
        readable, writable, _ = select.select([self._socket], [self._socket] if output else [], [], max(0.0, seconds))
        if readable:
            data = self._socket.recv(1 << 18)
            if not data:
                raise ConnectionError("the server closed the connection")
            now = time.monotonic()
            self.done += [(*self._in_flight.pop(stream), now) for stream in self._connection.receive(data)]
        elif not writable and seconds <= 0 and not self._connection.is_available:
            raise TimeoutError(f"{self!r}: no answer in {_TIMEOUT_SECONDS} s")


def offer(address: str, rate: float, seconds: float, seed: int) -> dict[str, object]:
    """Offer so many calls a second, and return how long each took, in microseconds, and the other figures."""
    calls = Offer(address)
    began, cpu = time.monotonic(), time.process_time()
    calls.run(deque(began + after for after in schedule(rate, seconds, seed)))
    return figures(calls.done, began=began, cpu=cpu)


def main() -> None:
    """Call, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--rate", type=float, required=True, help="calls a second")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(json.dumps(offer(given.address, given.rate, given.seconds, given.seed)), flush=True)


if __name__ == "__main__":
    main()
