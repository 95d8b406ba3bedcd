"""Mails that the relay in use can't take: which other relay gets them, and what becomes of them at a stop."""

import asyncio
from collections.abc import AsyncIterator, Callable
from math import inf
from types import SimpleNamespace
from typing import Any, cast

import pytest

from delivery.fakes import make_job
from otpmail.delivery.detours import Detours
from otpmail.delivery.job import Job
from otpmail.errors import ConnectFailed, ConnectionLost
from otpmail.events import ALL_EVENTS, ConnectionClosed, Event
from otpmail.model import Envelope, RecipientResult
from otpmail.relays.failover import Failover
from otpmail.relays.owner import ConnectionOwner
from otpmail.smtp.capabilities import Capabilities
from otpmail.smtp.reply_kind import ReplyKind
from otpmail.smtp.transaction import Callback, Outcome, Results, Unasked

REFUSED = Unasked((RecipientResult("ada@x.org", 550, "5.6.7", "it announces no SMTPUTF8"),))
TAKEN = (RecipientResult("ada@x.org", 250, "2.0.0", "taken"),)


class Other:
    """Another relay, and the connection to it, which answers `outcome`; `error` is why it can't be reached."""

    name = "other:25"
    sent = 0
    lost_cause = ""
    is_available = takes_urgent = True
    is_exhausted = False
    has_place = True
    in_flight = 0
    retire_at = inf
    crossed = False
    parting_kind = ReplyKind.OTHER

    def __init__(self, outcome: Outcome = TAKEN, *, error: str = "", takes: bool = True) -> None:
        self.owner = self
        self.outcome = outcome
        self.error = error
        self.capabilities = Capabilities({} if takes else {"SIZE": "1"})
        self.throttle: Any = SimpleNamespace(is_limited=False)
        self.may_open = asyncio.Event()
        self.may_open.set()
        self.calls: list[str] = []

    async def connect(self, *, patient: bool = True) -> "Other":
        """Return the connection, once it may open."""
        assert not patient
        self.calls.append("connect")
        await self.may_open.wait()
        if self.error:
            raise ConnectFailed(self.error)
        return self

    def send(self, envelope: Envelope, callback: Callback) -> bool:
        """Answer at once."""
        assert self.is_available or self.takes_urgent
        self.calls.append(envelope.content.decode())
        callback(self.outcome)
        return True

    def accepted_mail(self, connection: object) -> None:
        """Note it."""
        assert connection is self
        self.calls.append("accepted")

    def released(self, connection: object) -> None:
        """Note it."""
        assert connection is self
        self.calls.append("released")
        self.is_available, self.is_exhausted = True, False  # a further connection would be

    def watch(self, *, on_lost: Callable[[], None], on_available: Callable[[], None]) -> None:
        """Keep what to call."""
        self.on_lost, self.on_available = on_lost, on_available

    async def drained(self) -> None:
        """Return at once: each mail is answered at once."""

    async def close(self) -> None:
        """Note it."""
        self.calls.append("closed")


class Rig:
    """The detours of a worker between other relays and a handler."""

    event_types = ALL_EVENTS

    def __init__(self, *others: Other) -> None:
        self.relays = others
        self.told: list[tuple[str, object]] = []
        self.refused: set[str] = set()
        self.changed = asyncio.Event()
        self.events: list[Event] = []
        self.fault: Exception | None = None
        self.detours = Detours(cast("Failover", self), cast("Any", self), self)
        self.running = asyncio.create_task(self.detours.run())

    def others(self, owner: object, envelope: Envelope) -> list[Other]:
        """Return the other relays."""
        assert (owner, envelope.content) != (None, b"")
        return list(self.relays)

    def take(self, name: str) -> bool:
        """Hand a job over whose content is its name."""
        return self.detours.take(cast("ConnectionOwner", "first"), make_job(name), REFUSED)

    async def stop(self) -> None:
        """Stop the detours, as their worker does."""
        self.running.cancel()
        await asyncio.wait([self.running])

    async def has_told(self, count: int) -> None:
        """Wait until the handler knows of so many jobs."""
        async with asyncio.timeout(10):
            while len(self.told) < count:
                self.changed.clear()
                await self.changed.wait()

    def _tell(self, job: Job, what: object) -> None:
        self.told.append((job.id, what))
        self.changed.set()

    def may_send(self, job: Job) -> bool:
        """Return whether the job may be sent."""
        if job.id in self.refused:
            self._tell(job, "refused")
        return job.id not in self.refused

    def replied(self, job: Job, results: Results) -> None:
        """Note the codes, unless there is a `fault`."""
        if self.fault is not None:
            raise self.fault
        self._tell(job, [result.code for result in results])

    def connection_lost(self, job: Job, error: ConnectionLost) -> None:
        """Note the error."""
        self._tell(job, str(error))

    def put_back(self, job: Job) -> None:
        """Note it."""
        self._tell(job, "put back")

    def notify(self, event: Event) -> None:
        """Keep the event: this is the observer, too."""
        self.events.append(event)


@pytest.fixture
async def rigs() -> AsyncIterator[list[Rig]]:
    """Return a list of rigs that are stopped at the end."""
    made: list[Rig] = []
    yield made
    for rig in made:
        await rig.stop()


class Throttle:
    """A rate whose next pauses are given; `during` is called in each of them."""

    is_limited = True

    def __init__(self, *pauses: float, during: Callable[[], object]) -> None:
        self._pauses = list(pauses)
        self._during = during
        self.slots: list[bool] = []

    def pause(self) -> float:
        """Return the next pause, 0 once there are no more."""
        if not self._pauses:
            return 0
        asyncio.get_running_loop().call_soon(self._during)
        return self._pauses.pop(0)

    def urgent_pause(self) -> float:
        """Return the pause of any mail."""
        return self.pause()

    def take_slot(self, *, urgent: bool) -> None:
        """Keep the kind of the slot."""
        self.slots.append(urgent)


def _end(other: Other) -> None:
    other.is_available = other.takes_urgent = False
    other.is_exhausted = True


async def test_one_connection_serves_all_that_wait(rigs: list[Rig]) -> None:
    """The mails go over one connection, in their order, and a stop closes it."""
    rigs.append(rig := Rig(other := Other()))
    assert all(rig.take(name) for name in "abc")
    await rig.has_told(3)
    await rig.stop()
    assert rig.told == [("a", [250]), ("b", [250]), ("c", [250])]
    sent = ["a", "accepted", "b", "accepted", "c", "accepted"]
    assert other.calls == ["connect", *sent, "released", "closed"]
    assert [type(event) for event in rig.events] == [ConnectionClosed]


async def test_without_another_relay_the_reply_stands(rigs: list[Rig]) -> None:
    """A service with one relay, or whose others announce no more, takes the first relay's reply for the answer."""
    rigs.append(rig := Rig())
    assert not rig.take("a")
    assert rig.told == []


@pytest.mark.parametrize(
    ("others", "codes"),
    [
        ([{"takes": False}], [550]),
        ([{"error": "refused"}], [451]),
        ([{"error": "refused"}, {"takes": False}], [451]),
        ([{"takes": False}, {}], [250]),
        ([{"error": "refused"}, {}], [250]),
    ],
)
async def test_the_first_relay_that_takes_it(rigs: list[Rig], others: list[Any], codes: list[int]) -> None:
    """A mail fails if no relay takes it, and is deferred if one that may take it can't be reached."""
    rigs.append(rig := Rig(*(Other(**fields) for fields in others)))
    assert rig.take("large")
    await rig.has_told(1)
    assert rig.told == [("large", codes)]


async def test_a_lost_connection_is_reported(rigs: list[Rig]) -> None:
    """The handler decides about a mail whose connection ended, as it does for other mails."""
    rigs.append(rig := Rig(Other(ConnectionLost("cut", uncertain=True))))
    rig.take("a")
    await rig.has_told(1)
    assert rig.told == [("a", "cut")]


async def test_the_handler_decides_again_before_a_mail_leaves(rigs: list[Rig]) -> None:
    """A mail that may not be sent any more once its relay is open is not sent; those behind it are."""
    rigs.append(rig := Rig(other := Other()))
    other.may_open.clear()
    for name in "ab":
        rig.take(name)
    await asyncio.sleep(0)
    rig.refused.add("a")
    other.may_open.set()
    await rig.has_told(2)
    await rig.stop()
    assert rig.told == [("a", "refused"), ("b", [250])]
    assert other.calls == ["connect", "b", "accepted", "released", "closed"]


async def test_a_mail_waits_until_it_has_a_slot(rigs: list[Rig]) -> None:
    """A mail that another one has overtaken in its pause waits again, until the relay's rate has room for it."""
    rigs.append(rig := Rig(other := Other()))
    other.throttle = throttle = Throttle(0.01, 0.01, during=lambda: waits.append(len(rig.told)))
    waits: list[int] = []
    rig.take("a")
    await rig.has_told(1)
    assert (waits, throttle.slots) == ([0, 0], [False])


async def test_a_connection_that_ends_while_a_mail_waits_for_its_slot(rigs: list[Rig]) -> None:
    """The mail goes over another connection, since one that is lost or used up takes no more mails."""
    rigs.append(rig := Rig(other := Other()))
    other.throttle = Throttle(0.01, during=lambda: _end(other))
    rig.take("a")
    await rig.has_told(1)
    await rig.stop()
    assert rig.told == [("a", [250])]
    assert other.calls == ["connect", "released", "closed", "connect", "a", "accepted", "released", "closed"]


async def test_a_mail_that_is_too_late_after_its_pause(rigs: list[Rig]) -> None:
    """A mail that may not be sent any more is let go, also where its connection has ended, and none is dialled."""
    rigs.append(rig := Rig(other := Other()))

    def end() -> None:
        _end(other)
        rig.refused.add("a")

    other.throttle = Throttle(0.01, during=end)
    rig.take("a")
    await rig.has_told(1)
    await rig.stop()
    assert rig.told == [("a", "refused")]
    assert other.calls == ["connect", "released", "closed"]


async def test_an_unforeseen_error_ends_the_detours(rigs: list[Rig]) -> None:
    """An error of ours is raised to the worker. The connection is closed, and what waits is put back."""
    rigs.append(rig := Rig(other := Other()))
    rig.fault = ValueError("boom")
    for name in "ab":
        rig.take(name)
    await asyncio.wait([rig.running])
    assert rig.running.exception() is rig.fault
    assert rig.told == [("b", "put back")]
    assert other.calls[-2:] == ["released", "closed"]


async def test_a_stop_puts_back_what_has_not_left(rigs: list[Rig]) -> None:
    """Mails whose relay is still being dialled return to the queue in their order, and nothing stays open."""
    rigs.append(rig := Rig(other := Other()))
    other.may_open.clear()
    for name in "ab":
        rig.take(name)
    await asyncio.sleep(0)
    await rig.stop()
    assert rig.told == [("b", "put back"), ("a", "put back")]
    assert other.calls == ["connect"]


async def test_a_full_connection_is_waited_for(rigs: list[Rig]) -> None:
    """A mail for which the connection has no room goes over it once it has, and opens no other."""
    rigs.append(rig := Rig(other := Other()))
    other.is_available = other.takes_urgent = False
    rig.take("a")
    await asyncio.sleep(0.01)
    assert other.calls == ["connect"]
    other.is_available = True
    other.on_available()
    await rig.has_told(1)
    assert other.calls == ["connect", "a", "accepted"]


async def test_relays_have_a_connection_each(rigs: list[Rig]) -> None:
    """Mails for two relays in turn dial each of them once."""
    one, two = Other(), Other()
    rigs.append(rig := Rig(one, two))
    for name, relay in (("a", one), ("b", two), ("c", one), ("d", two)):
        rig.relays = (relay,)
        rig.take(name)
        await rig.has_told("abcd".index(name) + 1)
    assert [other.calls.count("connect") for other in (one, two)] == [1, 1]
    assert len(rig.detours.connections) == 2


@pytest.mark.parametrize("cause", ["idle", "lost", "no-place"])
async def test_when_a_connection_is_closed(rigs: list[Rig], cause: str) -> None:
    """A connection is closed once it has been idle for too long, is lost, or others need its place."""
    rigs.append(rig := Rig(other := Other()))
    rig.take("a")
    await rig.has_told(1)
    assert "closed" not in other.calls
    if cause == "idle":
        other.retire_at = asyncio.get_running_loop().time()
    elif cause == "lost":
        other.lost_cause = "cut"
    other.has_place = cause != "no-place"
    other.on_lost()
    async with asyncio.timeout(10):
        while "closed" not in other.calls:  # noqa: ASYNC110  in the next turns of the loop
            await asyncio.sleep(0)
    assert rig.detours.connections == ()


async def test_a_mail_that_ended_processes_goes_alone(rigs: list[Rig]) -> None:
    """Nothing is in flight beside a mail that may have ended processes before."""
    rigs.append(rig := Rig(other := Other()))
    job = make_job("suspect")
    job.deaths = 1
    drained: list[int] = []

    async def drain() -> None:
        drained.append(len(rig.told))

    other.drained = drain  # type: ignore[method-assign]
    rig.detours.take(cast("ConnectionOwner", "first"), job, REFUSED)
    rig.take("a")
    await rig.has_told(2)
    assert drained == [0, 1]
