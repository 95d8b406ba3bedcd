"""The asyncio shell of a session: writes its octets, feeds it those that arrive, and calls back with outcomes.

After sign-in it takes the transport from aiosmtplib, which drops replies to pipelined commands; for QUIT it returns it.
"""

import asyncio
from collections.abc import Callable, Iterable

from aiosmtplib.protocol import SMTPProtocol

from otpmail.errors import ConnectionLost, ProbeFailed
from otpmail.model import Envelope
from otpmail.relays.congestion import CongestionWindow
from otpmail.relays.handover import GONE, check_handover
from otpmail.relays.pause import IDLE_SECONDS, Pause
from otpmail.relays.refusal import failed_by
from otpmail.relays.tcp_info import seconds_unacknowledged
from otpmail.relays.timeouts import Timeouts
from otpmail.relays.turnaround import STALLED, Turnaround
from otpmail.relays.watchdog import GOODBYE_SECONDS, Watchdog
from otpmail.smtp.mode import Mode
from otpmail.smtp.redaction import clean, cut
from otpmail.smtp.session import BACKLOG, Session
from otpmail.smtp.transaction import Callback, Transaction

# A connection counts as stalled after some round trips without a reply, or after this where none was measured.
_STALL_ROUND_TRIPS, _STALL_SECONDS = 3, 0.1

_SLICE = 64 << 10  # octets handed to the transport at once, a tenth of a millisecond with TLS
_SLICES_AT_ONCE = 8  # then other callbacks run: a relay that reads as fast as it gets would take all of a large mail
HIGH_WATER = 2 * _SLICE
"""Octets in the transport's buffer, beyond which a large mail stays here until the relay has read on."""


class RelayProtocol(asyncio.Protocol):
    """The mails in flight on one connection.

    It calls `on_lost` once, when it can send no further mail, and `on_available` when it can again.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        inner: SMTPProtocol,
        session: Session,
        *,
        timeouts: Timeouts,
        goodbye_seconds: float = GOODBYE_SECONDS,
        idle_seconds: float = IDLE_SECONDS,
        turnaround: Turnaround | None = None,
    ) -> None:
        self._transport, self._inner, self._session = transport, inner, session
        self._loop = asyncio.get_running_loop()
        self._watchdog = Watchdog(
            session,
            timeouts=timeouts,
            goodbye_seconds=goodbye_seconds,
            unacknowledged=lambda: seconds_unacknowledged(self._transport),
            end=self._lose,
            clock=self._loop.time,
            call_later=self._loop.call_later,
        )
        self.turnaround, self.congestion = turnaround or Turnaround(), CongestionWindow()
        self._stall_seconds, self._paused = _STALL_SECONDS, False
        self._flushing: asyncio.Handle | None = None
        self._most_together: int | None = None  # mails that may be in flight after the flush to come, once asked for
        self._idle = asyncio.Event()
        self._idle.set()
        self._probed: asyncio.Future[None] | None = None
        self.lost_cause, self.hung_up = "", False  # by the relay, over its mails: not for idleness, nor after a fault
        self.lost_in_flight, self.pause = 0, Pause(idle_seconds)  # when the relay closed it without 421
        self.on_lost: Callable[[], None] = lambda: None
        self.on_available: Callable[[], None] = lambda: None
        check_handover(transport, inner, session)
        transport.set_write_buffer_limits(high=HIGH_WATER)
        transport.set_protocol(self)

    def __repr__(self) -> str:
        return f"<RelayProtocol {self.lost_cause or 'open'}, {self._session!r}>"

    @property
    def last_progress(self) -> float:
        """When the relay last replied or read on, on the loop's clock."""
        return self._watchdog.last_progress

    @property
    def stalled(self) -> bool:
        """Whether the relay has neither replied nor read on for the stall time: another connection is preferable."""
        return self._session.awaits_reply and self._loop.time() - self.last_progress > self._stall_seconds

    def load(self) -> int:
        """How many mails one more would wait for: hardly for those that leave with it, STALLED more if they stall."""
        in_flight = len(self._session.flights)
        if self._flushing is not None:
            if (most := self._most_together) is None:
                is_bdat = self._session.mode is Mode.BDAT
                most = self._most_together = self.turnaround.most_together(self._loop.time()) if is_bdat else 0
            if in_flight < most:
                return 0
        late = self._loop.time() - self._watchdog.last_progress > self._stall_seconds
        return in_flight + STALLED if in_flight and late else in_flight

    # Mails.

    async def probe(self) -> None:
        """Find out how mails may be sent on this connection (`Session.probe`).

        Raises ProbeFailed where the relay ends the connection over that, with 421 or without a word.
        """
        self._session.probe()
        if not self._session.is_probing:
            return
        self._probed = self._loop.create_future()
        self._flush_soon()
        asked = self._loop.time()
        try:
            await self._probed
        except ConnectionLost as error:
            words = f"asked how it reads a refused chunk: {error}"
            raise failed_by(self._session.words.parting, ProbeFailed, words) from error
        self.congestion.took(round_trip := self._loop.time() - asked)
        self._stall_seconds = max(_STALL_ROUND_TRIPS * round_trip, _STALL_SECONDS)

    def send(self, envelope: Envelope, callback: Callback) -> bool:
        """Start sending a mail, for which it must be available; returns whether the relay is asked at all.

        `callback` is called once with the outcome; before this returns where the relay is not asked.
        """
        session = self._session
        if self.lost_cause:
            callback(ConnectionLost(self.lost_cause))
            return False
        transaction = session.begin(envelope, callback)
        if transaction.outcome is not None:
            self._call_back((transaction,))
            return False
        if (in_flight := len(session.flights)) == 1:
            self._idle.clear()
            now = self._loop.time()
            self.pause.seconds, self.pause.replies = now - self._watchdog.last_progress, session.replies
            self._watchdog.last_progress = now
            self.turnaround.busy(session.begun - 1, now)
        if in_flight >= session.window:
            self._flush()  # no other mail can leave with it
        elif self._flushing is None:
            self._flush_soon()
        return True

    async def drained(self) -> None:
        """Wait until no mail is in flight."""
        await self._idle.wait()

    def hand_back(self) -> bool:
        """Give the transport back to aiosmtplib, for QUIT. One that is lost or in use is cut; returns False then."""
        usable = not self.lost_cause and not self._session.awaits_reply and not self._transport.is_closing()
        self._stop("closed")
        if usable:
            self._transport.set_protocol(self._inner)
            self._transport = GONE
        else:
            self._transport.abort()  # a close would wait for a relay that does not read
        return usable

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        """Read replies, call back with what they settle, and write what may follow."""
        session = self._session
        replies = session.replies
        settled = session.receive(data)
        progress = session.replies != replies  # a relay that sends a digit now and then makes none
        if progress:
            if (session.goodbye or session.ended) and not self.lost_cause:
                self.hung_up = self._ends_in_use(settled or session.flights) and bool(session.goodbye)
            now = self._watchdog.last_progress = self._loop.time()
            limit = self.congestion
            if settled and now >= limit.review_at and now - self.turnaround.busy_since >= limit.patience:
                busy = self.turnaround.busy_since, self.turnaround.begun_before
                limit.review(session.begun, len(session.flights), now, busy=busy, most=session.window)
        if session.ended:
            self._lose(session.ended)
            self._call_back(reversed(settled))  # mails that were lost go ahead of those behind them
            return
        self._call_back(settled)
        if self._probed is not None and not self._probed.done() and not session.is_probing:
            self._probed.set_result(None)
        if session.goodbye:
            self._read_goodbye(progress=progress)
            return
        if session.output.pending:
            self._flush()
        if not session.flights and not self._idle.is_set():
            self.turnaround.idle(session.begun, self._loop.time())
            self._idle.set()
        if settled:
            self.on_available()

    def eof_received(self) -> bool:
        """The relay has closed its side: close ours."""
        self._lose_to_close("the relay closed the connection")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Call back for the mails in flight, and notify aiosmtplib."""
        cause = cut(clean(f"connection lost: {exc}" if exc else "connection lost"))
        lose = self._lose_to_close if exc is None or isinstance(exc, ConnectionError) else self._lose
        lose(cause)
        self._inner.connection_lost(exc)
        self._transport = GONE

    def pause_writing(self) -> None:
        """The transport holds enough: keep the rest here."""
        self._paused = True

    def resume_writing(self) -> None:
        """The relay has read on: write on."""
        self._paused = False
        self._watchdog.last_progress = self._loop.time()
        self._flush()

    # Writing.

    def _flush_soon(self) -> None:
        """Write once this turn of the loop is over: mails that were handed in together leave together."""
        if self._flushing is None:
            self._flushing = self._loop.call_soon(self._flush)
            self._most_together = None

    def _flush(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        session = self._session
        # A mail that is not written is certain not to have arrived.
        if self.lost_cause or session.goodbye or self._transport.is_closing():
            return
        had_backlog = session.output.pending >= BACKLOG
        for _ in range(_SLICES_AT_ONCE):
            if not session.output.pending or self._paused:
                break
            self._transport.write(session.take(_SLICE))
        else:
            self._flush_soon()
        if had_backlog and session.is_available:
            self.on_available()
        if not self._watchdog.is_awake:
            self._watchdog.wake()

    # The end.

    def _ends_in_use(self, in_flight: object) -> bool:
        """Note that the relay ends the connection; returns whether it does so over its mails."""
        return self.pause.end(self._session.replies, self._loop.time() - self.last_progress, in_flight=bool(in_flight))

    def _read_goodbye(self, *, progress: bool) -> None:
        """The relay said 421: what it had already read may still be answered, until it closes."""
        if not progress:
            return
        if not self.lost_cause:
            self.lost_cause = self._session.goodbye
            self.on_lost()
        if self._session.flights:
            self._watchdog.await_close()
        else:
            self._lose(self._session.goodbye)

    def _lose_to_close(self, cause: str) -> None:
        """The relay, or a machine on the way, has closed the connection."""
        if not self.lost_cause:
            self.hung_up = self._ends_in_use(self._session.flights)
            self.lost_in_flight = len(self._session.flights)
        self._lose(cause)

    def _lose(self, cause: str) -> None:
        if not self._transport.is_closing():
            self._transport.abort()  # the mails in its buffer count as lost
        self._stop(cause)

    def _stop(self, cause: str) -> None:
        """Send nothing more, and call back for each mail in flight."""
        self._watchdog.close()
        first = not self.lost_cause
        self.lost_cause = self.lost_cause or cause
        # The last mail first: each goes to the front of the queue, so there they stand in their order.
        self._call_back(reversed(self._session.end(cause)))
        if self._probed is not None and not self._probed.done():  # the dial may have been cancelled
            self._probed.set_exception(ConnectionLost(cause))
        self._idle.set()
        if first:
            self.on_lost()

    def _call_back(self, transactions: Iterable[Transaction]) -> None:
        for transaction in transactions:
            assert transaction.outcome is not None
            try:
                transaction.callback(transaction.outcome)
            except Exception as error:  # noqa: BLE001  a fault over one mail must not end the others' connection
                context = {"message": "the callback for a mail's outcome failed", "exception": error}
                self._loop.call_exception_handler(context)
