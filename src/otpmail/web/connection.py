"""One connection of HTTP/1.1: its requests are answered one after the other, each within its time.

`web.requests` reads them, `web.exchange` is one of them with its answer, and the listener has the connections.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Coroutine
from contextvars import Context
from http import HTTPStatus
from typing import Any, Protocol

from otpmail.limits.memory import Memory
from otpmail.web.answers import closing_answer
from otpmail.web.binding import peer_of
from otpmail.web.eager import start_eagerly
from otpmail.web.ending import STALLED_SECONDS, TIMES, EndingConnection, Times
from otpmail.web.exchange import Exchange
from otpmail.web.heads import Head
from otpmail.web.requests import RequestReader
from otpmail.web.tls import Handshake

_MOST_PIPELINED = 64
_MOST_READ_AHEAD = 32  # requests that wait for their answers; then the connection is read no more
_OCTETS_READ_AHEAD = 64 << 10  # of them

Handler = Callable[[Exchange], Coroutine[Any, Any, None]]
"""Answers a request. An error that it raises is in the log already."""


class Connections(Protocol):
    """The connections of a server, the date of their answers, and the memory in which their requests count."""

    date: bytes
    memory: Memory

    def add(self, connection: "Connection") -> None:
        """Count a connection, or close it or another one where there are too many."""

    def discard(self, connection: "Connection") -> None:
        """Count it no more."""


class Connection(EndingConnection):
    """One connection. `peer` is its client as gRPC writes it. It closes after its first answer from `ends_at` on."""

    peer = "unix:"
    ends_at = 0.0

    def __init__(
        self,
        handler: Handler,
        connections: Connections,
        loop: asyncio.AbstractEventLoop,
        *,
        times: Times = TIMES,
        eager_paths: Collection[str] = (),
    ) -> None:
        super().__init__(loop, times)
        self._handler, self._connections, self._eager_paths = handler, connections, eager_paths
        self._fresh: Exchange | None = None  # a request that may be answered at once, if its body is here
        self.memory = connections.memory
        self._reader = RequestReader(self._begin)
        # The request that is answered, those that wait for it, and the status of one that could not be read after them.
        self._current: Exchange | None = None
        self._waiting: deque[Exchange] = deque()
        self._ahead = 0  # octets that came since requests wait
        self._refusal = 0
        self.running: asyncio.Task[None] | None = None
        """The task that makes an answer, or has made the last one."""
        self._is_reading = True
        self.is_for_probes = False
        """Whether it came beyond the limit of connections, so that only probes are answered."""
        self.opened = self.used = self._idle_since = loop.time()
        self._head_since: float | None = self.opened

    def __repr__(self) -> str:
        return f"<Connection {self.peer}{' idle' * self.is_idle}>"

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self._current is None

    @property
    def evictable_since(self) -> float | None:
        """Since when it waits for its client, so that another may take its place; None where it is busy."""
        unread, now, current = self._unread_seconds(), self._loop.time(), self._current
        if self.transport.get_write_buffer_size() > 0:
            since: float | None = now - unread
        elif current is None or self._is_ending:
            return self.used
        else:
            since = current.waits_since
        return since if since is not None and now - since >= STALLED_SECONDS else None

    @property
    def is_new(self) -> bool:
        """Whether it has had no request."""
        return self.is_idle and self.used == self.opened

    @property
    def certificate(self) -> bytes | None:
        """The certificate that the client has shown, as DER; None without one."""
        found = self.transport.get_extra_info("ssl_object")
        return None if found is None else found.getpeercert(binary_form=True)

    @property
    def date(self) -> bytes:
        """The field of an answer with the present date."""
        return self._connections.date

    # asyncio calls these.

    def begin(self, transport: asyncio.Transport) -> None:
        """Count it, and give it time for the head of its first request; TLS begins with a handshake as transport."""
        self.transport = transport
        self._connections.add(self)
        self._timer = self._loop.call_later(self._times.head, self._look)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take note of the client."""
        if self._timer is None:
            self.begin(transport)
        self.transport = transport
        self.peer = peer_of(transport.get_extra_info("peername"))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's own signature
        """Cancel the call that runs: its caller has gone."""
        if self._timer is not None:
            self._timer.cancel()
        for exchange in (self._current, self._reader.latest, *self._waiting):
            if exchange is not None:
                exchange.give_up()
        self._waiting.clear()
        self.resume_writing()
        if self.running is not None:
            self.running.cancel()
        self._connections.discard(self)
        # Without these its memory would wait for a collection of garbage: that of TLS is 40 KB.
        self._reader.close()
        self._current = self._fresh = self.running = None

    def data_received(self, data: bytes) -> None:
        """Read on. A head must be whole in time."""
        if self._refusal or self._is_ending or self.transport.is_closing():
            return
        if status := self._reader.feed(data):
            self.refuse(status)
        elif self._head_since is None and self._reader.is_in_head:
            self._head_since = self._loop.time()
        if (fresh := self._fresh) is not None:
            self._fresh = None
            self._start_fresh(fresh)
        if self._waiting:
            self._ahead += len(data)
            if self._is_ahead():
                self.pause_reading()

    def _is_ahead(self) -> bool:
        return self._ahead > _OCTETS_READ_AHEAD or len(self._waiting) >= _MOST_READ_AHEAD

    # Answering.

    def _begin(self, head: Head) -> Exchange | None:
        """Answer a request, or let it wait for those before it."""
        self._head_since = None
        self.used = now = self._loop.time()
        is_old = head.version == "1.0"
        keep_alive = head.goes_on and not is_old and now < self.ends_at and not self.is_for_probes
        exchange = Exchange(
            self, head.method, head.path, head.query, head.headers, is_old=is_old, keep_alive=keep_alive
        )
        if self._current is None and head.path in self._eager_paths:
            self._current = self._fresh = exchange
        elif self._current is None:
            self._start(exchange)
        elif len(self._waiting) < _MOST_PIPELINED and exchange.wait_in_line():
            self._waiting.append(exchange)
        else:
            return None
        return exchange

    def _start(self, exchange: Exchange) -> None:
        self._current = exchange
        # The task that ends one request starts the next one, whose caller may be another.
        self.running = self._loop.create_task(self._answer(exchange), context=Context())

    def _start_fresh(self, exchange: Exchange) -> None:
        # fast path: an answer that waits for nothing needs no task, 4 us; held by tests/web/test_eager.py
        if exchange.has_ended:  # refused
            return
        if not exchange.is_whole:
            self._start(exchange)
            return
        self.running = None
        if (task := start_eagerly(self._loop, self._answer(exchange))) is not None:
            self.running = task

    async def _answer(self, exchange: Exchange) -> None:
        try:
            await self._handler(exchange)
        except Exception:  # noqa: BLE001  the handler has logged it
            if not exchange.has_begun:
                await exchange.answer_status(HTTPStatus.INTERNAL_SERVER_ERROR)
        self._current = None
        if self._is_ending or self.transport.is_closing():
            pass
        elif not exchange.has_ended:
            exchange.give_up()
            self.transport.abort()  # so that its client takes no part of an answer for the whole
        elif self._waiting:
            self._start(self._waiting.popleft())
            if not self._waiting:
                self._ahead = 0
            self.resume_reading()
        elif self._refusal:
            self._write_refusal()
        else:
            self._idle_since = self._loop.time()
            if not self._is_reading:
                self.resume_reading()

    def pause_reading(self) -> None:
        """Read no more for now."""
        if self._is_reading and not self.transport.is_closing():
            self._is_reading = False
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on, unless too many requests wait, or one could not be read."""
        if not (self._is_reading or self._is_ahead() or self._refusal or self.transport.is_closing()):
            self._is_reading = True
            self.transport.resume_reading()

    # Ends.

    def close(self) -> None:
        """Close once all is sent. Octets that a client still sends are read and dropped for a while.

        A close with octets that are not read would reset the connection, and the answer would be lost with it.
        """
        is_sending = self._refusal or self._waiting or not self._is_reading or self._reader.latest is not None
        self._end(lingers=bool(is_sending))

    def retire(self) -> None:
        """Close after the answer that is being made, or after the next one."""
        self.ends_at = 0.0
        if self._current is not None:
            self._current.keep_alive = False

    def shutdown(self) -> None:
        """Close, once the answer that is being made is sent."""
        self.retire()
        if self.is_idle and not self._is_ending:
            self._close()

    def refuse(self, status: int) -> None:
        """Answer that the latest request can't be taken, once those before it are answered, and close."""
        if isinstance(self.transport, Handshake):
            self.transport.abort()
            return
        self.pause_reading()
        self._refusal = status
        broken, self._reader.latest = self._reader.latest, None
        if broken is not None and broken in self._waiting:
            self._waiting.remove(broken)
            broken.give_up()
        elif broken is not None and broken.has_begun:
            self.transport.abort()  # a part of its answer is sent, or all of it
        elif broken is not None or self.is_idle:
            self._write_refusal()

    def _write_refusal(self) -> None:
        self.transport.write(closing_answer(HTTPStatus(self._refusal), self.date))
        self.close()
        if self._current is not None:
            self._current.give_up()
            if self.running is not None:
                self.running.cancel()

    def _look(self) -> None:
        """Close where a head or the next request has not come in time. Look again in a while otherwise."""
        if self._looks_at_end():
            return
        now, times = self._loop.time(), self._times
        due = now + times.head
        if self._head_since is not None and not self._refusal:
            due = self._head_since + times.head
            if now >= due:
                self.refuse(408)
        elif self._current is not None:
            if self._current.seconds_behind(now) >= times.upload:
                self.refuse(408)
        else:
            due = self._idle_since + times.keep
            if now >= due:
                self._close()
        if not self._is_ending:
            self._look_in(min(max(due - now, 0), times.head))
