"""The asyncio shell of a session: writes what may go out, reads what came in, and minds the clock. It decides nothing.

It takes the transport over from aiosmtplib after sign-in, whose reader drops the replies to pipelined commands, and can
give it back for QUIT.
"""

import asyncio
from collections.abc import Callable, Iterable
from math import inf

from aiosmtplib.protocol import SMTPProtocol

from otpmail.errors import ConnectFailed, ConnectionLost, ProbeFailed
from otpmail.model import Envelope
from otpmail.relays.tcp_info import unheard
from otpmail.smtp.mode import Mode
from otpmail.smtp.session import Session
from otpmail.smtp.transaction import Results, Transaction

# So long the last of some mails may wait for the others, by what the relay took for each the last time, to be sent
# together with them though other connections are idle.
_QUICK_SECONDS = 0.005

# How long nothing may be heard before a connection counts as stalled: some round trips, or this where none is known.
_STALL_ROUND_TRIPS = 3
_STALL_SECONDS = 0.1
SLICE = 64 << 10
"""Octets handed to the transport at once."""

_HIGH_WATER = 2 * SLICE  # a large mail stays with us, not in the transport's buffer, until the relay has room
_GOODBYE_SECONDS = 2.0  # how long a relay that said 421 may take to close: till then it may answer what it had read
# A relay that closes this long after its last reply closes for idleness, not for the number of mails.
_IDLE_SECONDS = 0.2

Tell = Callable[[Results | ConnectionLost], None]
"""Who is told what became of a mail."""


class RelayProtocol(asyncio.Protocol):
    """Mails in flight on one connection, and who is told what becomes of each.

    `timeout` and `final_timeout` are in seconds: how long the relay may owe a reply, and how long one that may wait for
    its word on a content (RFC 5321, 4.5.3.2). It calls `on_lost` once, when it can send no further mail; `on_available`
    when it can again.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        inner: SMTPProtocol,
        session: Session,
        *,
        timeout: float,
        final_timeout: float,
    ) -> None:
        self._transport = transport
        self._inner = inner
        self._session = session
        self._timeout = timeout
        self._final_timeout = final_timeout
        self._loop = asyncio.get_running_loop()
        self._paused = False
        self._flushing: asyncio.Handle | None = None
        self._stall_seconds = _STALL_SECONDS
        self._unheard_since = inf
        self._busy_since = 0.0
        self._begun_before = 0  # mails, when that was
        self._each = inf  # seconds that the relay took for a mail, from when one was sent until none was in flight
        self._clock: asyncio.TimerHandle | None = None
        self.last_progress = self._loop.time()
        self._idle = asyncio.Event()
        self._idle.set()
        self._probed: asyncio.Future[None] | None = None
        self.lost_cause = ""
        self.hung_up = False  # whether the relay ended it over its mails: not for idleness, nor after a fault
        self.unanswered = 0  # mails in flight when the relay closed it without a goodbye reply
        self.on_lost: Callable[[], None] = _nothing
        self.on_available: Callable[[], None] = _nothing
        self._take_over()

    def __repr__(self) -> str:
        return f"<Pipeline {self.lost_cause or 'open'}, {self._session!r}>"

    def _take_over(self) -> None:
        # aiosmtplib keeps what came in one piece behind the reply it waited for. A reply to a command that nobody has
        # sent yet would be taken for the first one's, and every later one for another's.
        surplus = bytes(self._inner._buffer)  # noqa: SLF001
        if surplus:
            raise ConnectFailed(f"the relay said more than it was asked for: {surplus[:80]!r}")
        if self._transport.is_closing():
            raise ConnectFailed("the relay closed the connection right after signing in")
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        self._transport.set_protocol(self)

    @property
    def stalled(self) -> bool:
        """Whether the relay has neither answered nor read on for so long that another connection is the better one."""
        return self._session.owed and self._loop.time() - self.last_progress > self._stall_seconds

    @property
    def batch_open(self) -> bool:
        """Whether mails are about to be written, and one more would hardly wait for the answers to them."""
        if self._flushing is None or self._session.mode is not Mode.BDAT:
            return False
        ahead = max(self._loop.time() - self._busy_since, (self._session.in_flight + 1) * self._each)
        return ahead <= _QUICK_SECONDS

    # Mails.

    async def probe(self) -> None:
        """Find out how mails may travel on this connection (`Session.probe`). Raises ProbeFailed."""
        self._session.probe()
        if not self._session.probing:
            return
        self._probed = self._loop.create_future()
        self._flush_soon()
        asked = self._loop.time()
        try:
            await self._probed
        except ConnectionLost as error:
            kind = ConnectFailed if self._session.farewell else ProbeFailed
            raise kind(f"asked how it reads a refused chunk: {error}") from error

        round_trip = self._loop.time() - asked
        self._stall_seconds = max(_STALL_ROUND_TRIPS * round_trip, _STALL_SECONDS)

    def send(self, envelope: Envelope, tell: Tell) -> bool:
        """Start sending a mail, which there must be room for; returns whether the relay is asked at all.

        `tell` is called once, with a result for each recipient, or with ConnectionLost; before this returns where the
        relay is not asked. It must not raise.
        """
        if self.lost_cause:
            tell(ConnectionLost(self.lost_cause))
            return False
        transaction = self._session.begin(envelope, tell)
        if transaction.outcome is not None:
            self._tell((transaction,))
            return False
        if self._idle.is_set():
            self._idle.clear()
            self.last_progress = self._busy_since = self._loop.time()
            self._begun_before = self._session.begun - 1
        if self._session.in_flight < self._session.window:
            self._flush_soon()
        else:
            self._flush()  # no other mail can leave with it
        return True

    async def drained(self) -> None:
        """Wait until no mail is in flight."""
        await self._idle.wait()

    def hand_back(self) -> bool:
        """Give the transport back to aiosmtplib, for QUIT; False when it is lost, or in doubt.

        It is cut then, and mails in flight get ConnectionLost.
        """
        usable = not self.lost_cause and not self._session.owed and not self._transport.is_closing()
        self._stop("closed")
        if usable:
            self._transport.set_protocol(self._inner)
        else:
            self._transport.abort()  # a close would wait for a relay that does not read
        return usable

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        """Read replies, tell what they settle, and write what may go now."""
        session = self._session
        replies = session.replies
        settled = session.receive(data)
        progress = session.replies != replies  # a relay that sends a digit now and then makes none
        if progress:
            if session.farewell and not self.lost_cause:
                self.hung_up = bool(settled) or self._is_at_work
            self.last_progress = self._loop.time()
        if session.ended:
            self._lose(session.ended)
            self._tell(reversed(settled))  # among them may be lost ones, which go ahead of those behind them
            return
        self._tell(settled)
        if self._probed is not None and not session.probing:
            if not self._probed.done():
                self._probed.set_result(None)
            self._probed = None
        if session.farewell:
            if progress:
                self._goodbye()
            return
        self._flush()
        if not session.in_flight and not self._idle.is_set():
            self._each = (self._loop.time() - self._busy_since) / (self._session.begun - self._begun_before)
            self._idle.set()
        if settled:
            self.on_available()

    def eof_received(self) -> bool:
        """The relay has said all it will: leave."""
        self._closed_by_relay("the relay closed the connection")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell what became of the mails in flight, and aiosmtplib that it is over."""
        if exc is None or isinstance(exc, ConnectionError):
            self._closed_by_relay(f"connection lost: {exc}" if exc else "connection lost")
        else:
            self._lose(f"connection lost: {exc}")
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """The transport holds enough: keep the rest here."""
        self._paused = True

    def resume_writing(self) -> None:
        """The relay has read on: write on."""
        self._paused = False
        self.last_progress = self._loop.time()
        self._flush()

    # Its own.

    def _flush_soon(self) -> None:
        """Write once this turn of the loop is over: mails that were handed in together leave together."""
        if self._flushing is None:
            self._flushing = self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        if self.lost_cause or self._transport.is_closing():  # what is not written is certain not to have arrived
            return
        full = not self._session.is_available
        while not self._paused and (data := self._session.take(SLICE)):
            self._transport.write(data)
        if full and self._session.is_available:
            self.on_available()
        if self._clock is None and self._session.owed:
            self._clock = self._loop.call_later(min(self._timeout, self._final_timeout), self._tick)

    def _tick(self) -> None:
        """Look whether the relay is overdue. One timer for a connection: it is not moved with every reply."""
        self._clock = None
        if self.lost_cause or not self._session.owed:
            self._unheard_since = inf  # what is seen next time is no second look in a row
            return
        limit = self._final_timeout if self._session.may_take_long else self._timeout
        left = self.last_progress + limit - self._loop.time()
        if left <= 0:
            self._lose(f"the relay owed a reply for {limit:g} s")
        elif self._is_gone():
            self._lose("the relay's machine acknowledges nothing any more")
        else:
            # What is owed by then may be due sooner than what is owed now.
            self._clock = self._loop.call_later(min(left, self._timeout, self._final_timeout), self._tick)

    def _is_gone(self) -> bool:
        """Whether nothing has been acknowledged at two looks in a row, EMAIL_TIMEOUT apart.

        One look is not enough: a relay that judges one mail for long has nothing to acknowledge till the next is sent,
        and a few of whose packets may be lost.
        """
        now = self._loop.time()
        if unheard(self._transport) < self._timeout:
            self._unheard_since = inf
        elif self._unheard_since == inf:
            self._unheard_since = now
        return now - self._unheard_since >= self._timeout

    def _goodbye(self) -> None:
        """The relay said 421: what it had already read may still be answered, until it closes."""
        if not self.lost_cause:
            self.lost_cause = self._session.farewell
            self.on_lost()
        if self._session.in_flight:
            if self._clock is not None:
                self._clock.cancel()
            self._clock = self._loop.call_later(_GOODBYE_SECONDS, self._overstayed)
        else:
            self._lose(self._session.farewell)

    def _closed_by_relay(self, cause: str) -> None:
        if not self.lost_cause:
            self.hung_up = self._is_at_work
            self.unanswered = self._session.in_flight
        self._lose(cause)

    @property
    def _is_at_work(self) -> bool:
        """Whether mails are in flight, or the last one was answered so lately that the connection is not idle."""
        return self._session.in_flight > 0 or self._loop.time() - self.last_progress < _IDLE_SECONDS

    def _overstayed(self) -> None:
        self._session.overstayed()
        self._lose(self._session.farewell)

    def _lose(self, cause: str) -> None:
        if not self._transport.is_closing():
            self._transport.abort()  # whatever is buffered has been counted as lost
        self._stop(cause)

    def _stop(self, cause: str) -> None:
        """Send nothing more, and tell each mail in flight what became of it."""
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
        first = not self.lost_cause
        self.lost_cause = self.lost_cause or cause
        self._tell(reversed(self._session.end(cause)))  # as each goes to the front of the queue, they stand in order
        if self._probed is not None:
            if not self._probed.done():  # whoever dialled may have given up
                self._probed.set_exception(ConnectionLost(cause))
            self._probed = None
        self._idle.set()
        if first:
            self.on_lost()

    def _tell(self, transactions: Iterable[Transaction]) -> None:
        for transaction in transactions:
            try:
                transaction.tag(transaction.outcome)
            except Exception as error:  # noqa: BLE001  a fault over one mail must not end the others' connection
                self._loop.call_exception_handler({"message": "a mail's outcome was not taken", "exception": error})


def _nothing() -> None:
    pass
