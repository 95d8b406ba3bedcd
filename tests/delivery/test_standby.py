"""Which workers keep a connection while there is nothing to send, and how often that one is replaced."""

import asyncio
from collections.abc import Callable
from math import inf
from types import SimpleNamespace
from typing import Any, cast

import pytest

from delivery.fakes import make_job
from otpmail.delivery.dispatch import Dispatcher
from otpmail.delivery.queue import MailQueue
from otpmail.delivery.standby import Rest, Standby
from otpmail.delivery.worker import Worker
from otpmail.events import ALL_EVENTS, ConnectionClosed, Event, IdleTimeLearned
from otpmail.relays.connection import Connection
from otpmail.relays.failover import Failover
from otpmail.relays.relay import Relay
from otpmail.settings import RelaySettings
from relay import HOST, Faults
from relay import Relay as Server


def _idle(
    begun: float = 0.0,
    *,
    carried: int = 0,
    standby: int = 1,
    closes_idle: bool = False,
    lost_cause: str = "",
    age: float = 1.0,
) -> Connection:
    owner = SimpleNamespace(standby=standby, closes_idle=closes_idle)
    return cast(
        "Connection",
        SimpleNamespace(
            begun=begun,
            carried=carried,
            age=age,
            owner=owner,
            lost_cause=lost_cause,
            is_idle_too_long=not lost_cause,
            idle_at_end=1.0 if lost_cause else None,
        ),
    )


@pytest.mark.parametrize("kept", [0, 1, 3, 5])
def test_all_but_those_that_are_kept_go_without(kept: int) -> None:
    """Of five workers whose connections were idle for too long, as many as EMAIL_STANDBY keep theirs."""
    standby = Standby(5)
    asleep = 0
    for _ in range(5):
        if standby.next_dial(_idle(standby=kept)) == inf:
            standby.fell_asleep()
            asleep += 1
    assert asleep == 5 - kept
    if asleep:
        standby.woke()
        assert standby.next_dial(_idle(standby=kept)) == inf


def test_a_relay_that_closes_for_the_first_time_may_only_have_restarted() -> None:
    """All workers dial again until the relay is known to close what is idle."""
    standby = Standby(5)
    assert standby.next_dial(_idle(lost_cause="421 4.3.2 restarting")) < inf
    assert standby.next_dial(_idle(lost_cause="421 4.4.2 timeout", closes_idle=True)) == inf


def _quiet_hour(lasts: float, lost_cause: str = "") -> tuple[int, float]:
    """Return how many dials an hour without mail has, and for how many seconds of it a connection was open."""
    standby = Standby(1)
    now, dials, is_open = 0.0, 0, 0.0
    while now < 3600.0:
        connection = _idle(now, age=lasts, lost_cause=lost_cause)
        dials += 1
        is_open += lasts
        now = max(now + lasts, standby.next_dial(connection))
        standby.ended(connection)
    return dials, is_open


@pytest.mark.parametrize("lost_cause", ["", "421 4.4.2 timeout"])
def test_an_hour_without_mail_has_about_sixty_sign_ins(lost_cause: str) -> None:
    """Connections that last a moment and carry no mail follow each other ever more slowly, up to one a minute."""
    dials, _ = _quiet_hour(1.0, lost_cause)
    assert 60 <= dials <= 70


@pytest.mark.parametrize("lost_cause", ["", "451 4.4.2 timeout"])
@pytest.mark.parametrize(("lasts", "dials"), [(8.5, 424), (240.0, 15)])
def test_one_that_can_be_kept_is_open_at_any_time(lasts: float, dials: int, lost_cause: str) -> None:
    """A connection that lasts is replaced as soon as it ends, at a steady rate: one that is idle is always there."""
    assert _quiet_hour(lasts, lost_cause) == (dials, dials * lasts)


def test_a_connection_that_carried_mail_is_followed_at_once() -> None:
    """A mail begins the series anew."""
    standby = Standby(1)
    for begun in range(10):
        standby.ended(_idle(float(begun)))
    assert standby.next_dial(_idle(10.0)) == 70.0
    assert standby.next_dial(_idle(10.0, carried=1)) == 10.0
    standby.ended(_idle(10.0, carried=1))
    assert standby.next_dial(_idle(11.0)) == 11.0


def test_connections_that_end_together_count_as_one() -> None:
    """Five that were dialled together and carried nothing do not make the next dial wait for long."""
    standby = Standby(5)
    for n in range(5):
        standby.ended(_idle(100.0 + n / 1000))
    assert standby.next_dial(_idle(110.0, standby=5)) == 111.0


class Rig:
    """A worker's rest, with a queue that a test fills."""

    def __init__(self, workers: int = 2) -> None:
        self.queue = MailQueue()
        self.dispatcher = Dispatcher(self.queue)
        self.rest = Rest(Standby(workers), self.dispatcher)

    async def resting(self, connection: Connection) -> "asyncio.Task[None]":
        """Rest after that connection; return the task once it has begun."""
        self.rest.ended(connection)
        task = asyncio.create_task(self.rest.over())
        await asyncio.sleep(0)
        return task


async def test_a_mail_that_finds_no_idle_connection_ends_a_rest() -> None:
    """The worker dials as soon as a mail needs its connection."""
    rig = Rig()
    resting = await rig.resting(_idle())
    assert not resting.done()
    rig.dispatcher.put(make_job("a"))
    async with asyncio.timeout(20):
        await resting


async def test_no_rest_while_mails_wait() -> None:
    """A worker whose idle connection has ended dials at once if a mail waits."""
    rig = Rig()
    rig.queue.put_nowait(make_job("a"))
    resting = await rig.resting(_idle())
    assert resting.done()


async def test_a_rest_ends_when_the_next_connection_is_due() -> None:
    """A kept connection is dialled again by the clock."""
    rig = Rig(workers=1)
    begun = asyncio.get_running_loop().time()
    for n in range(3):
        rig.rest.ended(_idle(begun - 10 + n))
    resting = await rig.resting(_idle(begun - 3.9))
    assert not resting.done()
    async with asyncio.timeout(20):
        await resting


async def test_no_rest_after_a_connection_that_was_in_use() -> None:
    """A worker whose connection was lost with mails in flight dials at once."""
    rig = Rig()
    connection = _idle(lost_cause="connection lost")
    connection.idle_at_end = None  # type: ignore[misc]
    resting = await rig.resting(connection)
    assert resting.done()


async def test_a_stopped_rest_leaves_nothing_behind() -> None:
    """A worker that is cancelled while it rests is woken for no mail."""
    rig = Rig()
    resting = await rig.resting(_idle())
    resting.cancel()
    await asyncio.gather(resting, return_exceptions=True)
    rig.dispatcher.put(make_job("a"))
    assert rig.queue.qsize() == 1


class Noted(list[Event]):
    """An observer that keeps the events, and knows when connections were replaced once the idle time was learned."""

    event_types = ALL_EVENTS

    def __init__(self) -> None:
        super().__init__()
        self.has_replaced = asyncio.Event()

    def notify(self, event: Event) -> None:
        """Keep it."""
        self.append(event)
        learned = [place for place, event in enumerate(self) if isinstance(event, IdleTimeLearned)]
        closed = [event for event in self[learned[0] :] if isinstance(event, ConnectionClosed)] if learned else []
        if sum(event.recycled for event in closed) > 1:
            self.has_replaced.set()


async def test_a_kept_connection_is_replaced_before_the_relay_closes_it() -> None:
    """Once the time is known the successor is open before the old one sends QUIT."""
    noted = Noted()
    async with Server(Faults(auth=(), idle_close=1.0)) as server:
        make: Callable[..., RelaySettings] = RelaySettings
        settings = make(host=HOST, port=server.port, security="plain", helo="test")
        relay = Relay(settings, noted, workers=1, random=lambda: 0.5)
        dispatcher, standby = Dispatcher(MailQueue()), Standby(1, worth_seconds=0.1)
        worker = Worker(Failover([relay]), dispatcher, cast("Any", None), noted, standby)
        working = asyncio.create_task(worker.run())
        async with asyncio.timeout(50):
            await noted.has_replaced.wait()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    assert server.max_open > 1
