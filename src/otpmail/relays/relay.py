"""One relay, shared by all workers: decides which worker may dial it and when, and knows whether it is down.

While the relay is well, every worker dials for itself. After a failure one worker at a time dials, with backoff, and
the others wait for its result. A relay in trouble gets no storm of dials, and no provider locks the account over
repeated sign-ins. The breaker decides when the next dial may start.
"""

import asyncio
from collections.abc import Callable
from functools import partial

from otpmail.errors import ConnectFailed
from otpmail.events import ChunkingDisabled, ConnectionOpened, Observer
from otpmail.relays.availability import NOTICE_SECONDS, Availability
from otpmail.relays.breaker import Breaker, Failure
from otpmail.relays.connection import Connection
from otpmail.relays.dialler import Credentials, Dialler
from otpmail.relays.learned import Learned
from otpmail.relays.refusal import kind_of_error
from otpmail.relays.throttle import Limits
from otpmail.relays.turns import Turns
from otpmail.settings import RelaySettings
from otpmail.smtp.capabilities import Capabilities
from otpmail.smtp.mode import Mode
from otpmail.smtp.reply_kind import ReplyKind

_LOOK_SECONDS = 1.0  # between two looks at the result of another worker's dial


class Relay:
    """Opens connections to one relay, as many as it takes, and knows whether it is down.

    `workers` is how many connections are wanted, `alone` whether there is no other relay. `random` returns [0, 1).
    `look_seconds` and `notice_seconds` (`Availability`) are in seconds.
    """

    is_in_trouble = False
    """Whether something has failed, and a mail that the relay accepts may prove that it is well again."""
    capabilities: Capabilities | None = None
    """The capabilities that it announced last; None before the first connection."""
    on_change: Callable[[], None]
    """Called when `down` may have changed."""
    on_refuses_all: Callable[[], None]
    """Called after each mail that it has refused as too fast, while it `refuses_all`."""

    def __init__(
        self,
        settings: RelaySettings,
        observer: Observer,
        *,
        workers: int,
        alone: bool = True,
        random: Callable[[], float],
        look_seconds: float = _LOOK_SECONDS,
        notice_seconds: float = NOTICE_SECONDS,
    ) -> None:
        self.on_change = self.on_refuses_all = lambda: None
        self.name, self._observer = settings.endpoint, observer
        self._look_seconds, self._alone = look_seconds, alone
        self._loop = loop = asyncio.get_running_loop()
        self._dialler = Dialler(settings, observer, random)
        self._learned = Learned(settings, observer, workers=workers, now=loop.time, call_later=loop.call_later)
        self.throttle, self._concurrency = self._learned.throttle, self._learned.concurrency
        self.standby = settings.standby
        most, doubt = settings.retry_max_seconds, settings.max_age
        self._breaker = Breaker(random, first=settings.retry_seconds, most=most, doubt=doubt, spares_first=alone)
        self._availability = Availability(
            self.name,
            observer,
            retry_after=lambda: self.retry_after,
            next_dial=lambda: self._breaker.next_try,
            call_later=self._loop.call_later,
            on_change=self._availability_changed,
            notice_seconds=notice_seconds,
        )
        self._turns = Turns(self.name, self._breaker, self._availability, self._concurrency, look_seconds=look_seconds)

    def __repr__(self) -> str:
        return f"<Relay {self.name} {self._availability!r} {self._breaker!r}>"

    @property
    def down(self) -> bool:
        """Whether no connection is open although one is wanted (`Availability.down`)."""
        return self._availability.down

    @property
    def outage(self) -> str:
        """Why it is down, in words that any caller may read; empty unless it is."""
        return self._breaker.effect if self._availability.down else ""

    @property
    def retry_after(self) -> float:
        """Seconds until the relay may be dialled again, 0 for now."""
        return max(0.0, self._breaker.next_try - self._loop.time())

    @property
    def refuses_all(self) -> bool:
        """Whether it has refused each mail as too fast for some time: mails go over another relay, if one serves."""
        return self.throttle.refuses_all

    @property
    def return_at(self) -> float:
        """When a worker may try this one, or look at the result of another worker's dial, on the loop's clock."""
        if self._turns.are_taken_while_down or self._is_tried_as_too_fast:
            wait = self._look_seconds
        else:
            wait = max(self.retry_after, self.throttle.pause() if self.refuses_all else 0.0)
        return max(self._loop.time() + wait, self._concurrency.free_at())

    @property
    def has_place(self) -> bool:
        """Whether one more connection may be dialled."""
        return self._concurrency.has_place

    @property
    def closes_idle(self) -> bool:
        """Whether the relay is known to close idle connections after some time."""
        return self._learned.idle_time.known is not None

    @property
    def limits(self) -> Limits:
        """The limits that the relay is given at present."""
        return self.throttle.limits

    @property
    def credentials(self) -> Credentials:
        """How it is dialled now."""
        return self._dialler.credentials

    def renew(self, credentials: Credentials) -> None:
        """Use other credentials and authorities from the next dial on; open connections stay as they are."""
        self._dialler.credentials = credentials
        self._breaker.settings_changed(self._loop.time())
        self._notify_changed()

    async def connect(self, *, patient: bool = True) -> Connection:
        """A new connection, open and signed in; waits as long as it takes to get one.

        With `patient=False` it raises ConnectFailed where it would only wait. The relay is then down, refuses the
        sign-in, or takes no further connection. It also does where another worker tries a relay that `refuses_all`.
        """
        if not patient and self._turns.are_taken_while_down:
            raise self._turns.taken_by_another()
        if not patient and self._is_tried_as_too_fast:
            raise ConnectFailed(f"{self.name} refuses mails as too fast, and another worker tries it")
        self._availability.wanted += 1
        try:
            connection = None
            while connection is None:
                if self.throttle.is_full():
                    await self._turns.next_place(patient=patient)
                    continue
                if self._is_well:
                    connection = await self._dial()
                    continue
                await self._turns.acquire(patient=patient)
                try:
                    await self._turns.next_try(patient=patient)
                    if not (self._is_well or self.throttle.is_full()):  # another worker may have got through
                        connection = await self._dial()
                finally:
                    self._turns.release()
            return connection
        finally:
            self._availability.wanted -= 1

    async def changed(self) -> None:
        """Wait until it may be dialled sooner: a connection was opened or closed, or a mail accepted on a new one."""
        await self._turns.changed()

    def _availability_changed(self) -> None:
        self.on_change()

    def _notify_changed(self) -> None:
        self._look_at_trouble()
        self._turns.notify_changed()

    def _look_at_trouble(self) -> None:
        self.is_in_trouble = self._breaker.has_failures or self.throttle.lowered

    def accepted_mail(self, connection: Connection) -> None:
        """The relay accepted a mail: it is well if the connection was dialled after the last failure."""
        refused_all = self.refuses_all
        self.throttle.accepted_mail()
        if self._breaker.took_mail(connection.begun) or refused_all:
            self._notify_changed()
        if not (self._breaker.hangs_up or self.refuses_all):
            self._availability.proved()
        self._look_at_trouble()

    def refused(self, connection: Connection, kind: ReplyKind) -> None:
        """The relay refused a mail because too much comes at once: by fewer connections, or slower, it takes it."""
        self._learned.refused(connection, kind)
        self._look_at_trouble()
        if kind is ReplyKind.TOO_FAST and self.refuses_all:
            self.on_refuses_all()

    def leave(self) -> None:
        """Use no connection to it any more, since it refuses each mail as too fast and another relay serves."""
        self._learned.dismiss("the relay refuses each mail as too fast; mails go on to the next relay")

    def released(self, connection: Connection) -> None:
        """A connection that `connect` returned takes no more mails. The breaker judges how it ended."""
        self._availability.open -= 1
        self._learned.released(connection)
        is_idle = connection.idle_at_end is not None or connection.is_idle_too_long
        # A relay that hung up before it accepted a mail gets no dial for that, or it would be dialled on and on.
        connection.on_closed = partial(
            self._closed, connection, frees_slot=connection.answered > 0 or not connection.lost_cause
        )
        if not self._learned.excuses(connection) and self._breaker.ended(connection, self._loop.time()):
            self._availability.failed(f"it ended a connection before any mail was taken: {connection.lost_cause}")
            if not self._alone:
                cause = "the relay ended another one; mails go on to the next relay"
                self._learned.dismiss(cause, unproven_only=True)
        if self._availability.open == 0:
            was_left = self.refuses_all and bool(connection.dismissed)
            self._availability.emptied("" if was_left else connection.lost_cause, is_idle=is_idle)
        self._notify_changed()

    def _closed(self, connection: Connection, *, frees_slot: bool) -> None:
        self._learned.closed(connection)
        if frees_slot:
            self._breaker.slot_freed(self._loop.time())
        self._notify_changed()

    @property
    def _is_tried_as_too_fast(self) -> bool:
        return self.refuses_all and self._concurrency.taken > 0

    @property
    def _is_well(self) -> bool:
        """Whether every worker may dial it now."""
        return self._availability.is_well and self._breaker.closed and not self.retry_after

    async def _dial(self) -> Connection | None:
        begun = self._loop.time()
        connection: Connection | None = None
        refused = False
        self._concurrency.dialled()
        try:
            self._availability.dialling += 1
            try:
                connection = await self._dialler.dial(avoids_chunks=self._breaker.avoids_chunks(begun))
            finally:
                self._availability.dialling -= 1
        except ConnectFailed as error:
            refused = kind_of_error(error) is ReplyKind.TOO_MANY_CONNECTIONS
            self._failed(error, begun, is_one_too_many=refused)
            return None
        finally:
            if connection is None:
                self._concurrency.closed(self._loop.time(), refused=refused)
                self._notify_changed()
        connection.owner, connection.begun, self.capabilities = self, begun, connection.capabilities
        self._learned.opened(connection)
        self._availability.opened(
            connection.mode,
            connection.window,
            doubtful=self._breaker.hangs_up or self.refuses_all,
            address=connection.address,
        )
        if not self._alone and self._breaker.doubts(begun):
            connection.dismiss("the relay ended another one; mails go on to the next relay")
        self._breaker.opened(begun=begun, probed=connection.mode is Mode.BDAT)
        self._notify_changed()
        self._observer.notify(ConnectionOpened(self.name, connection.mode, connection.window, connection.address))
        return connection

    def _failed(self, error: ConnectFailed, begun: float, *, is_one_too_many: bool) -> None:
        now = self._loop.time()
        if is_one_too_many:
            self.throttle.was_one_too_many()
            if self._availability.has_others:  # they serve on, or the last of them fails alone
                self._availability.leave_to_others(str(error))
                return
        avoided = self._breaker.avoids_chunks(now)
        failure = Failure.of(error)
        self._breaker.failed(failure, begun=begun, now=now)
        self._look_at_trouble()
        if self._breaker.avoids_chunks(now) and not avoided:
            self._observer.notify(ChunkingDisabled(self.name))
        if failure is not Failure.PROBE_COUNTED:
            self._availability.failed(str(error))
