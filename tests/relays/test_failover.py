"""Several relays in order: which of them is asked for a connection, and when an earlier one is. No relay is real."""

import asyncio
from collections.abc import Callable, Sequence
from math import inf
from types import SimpleNamespace
from typing import cast

import pytest

from otpmail.errors import ConnectFailed
from otpmail.relays.connection import Connection
from otpmail.relays.failover import Failover
from otpmail.relays.relay import Relay


class Fake:
    """A relay that gives connections, refuses, or, if it is `silent`, never answers."""

    on_change: Callable[[], None]
    on_refuses_all: Callable[[], None]

    def __init__(self, *, down: bool = False, silent: bool = False, return_at: float = 0.0) -> None:
        self.down = down
        self.silent = silent
        self.refuses_all = False
        self.left = 0
        self.return_at = return_at
        self.retry_after = 0.0
        self.outage = ""
        self.asked = 0
        self.was_asked = asyncio.Event()
        self.has_changed = asyncio.Event()

    def becomes(self, *, down: bool) -> None:
        """Change, and tell the failover."""
        self.down = down
        self.on_change()

    async def connect(self, *, patient: bool = True) -> Connection:
        """Give a connection unless it is down."""
        assert not patient  # there are others
        self.asked += 1
        self.was_asked.set()
        if self.silent:
            await asyncio.Event().wait()
        if self.down:
            raise ConnectFailed("refused")
        return _connection(self)

    def leave(self) -> None:
        """Count it."""
        self.left += 1

    async def changed(self) -> None:
        """Wait until the test says so."""
        await self.has_changed.wait()


def _connection(owner: Fake) -> Connection:
    return cast("Connection", SimpleNamespace(owner=owner))


def _failover(relays: Sequence[Fake]) -> Failover:
    return Failover(cast("Sequence[Relay]", relays))


async def _owner(failover: Failover) -> object:
    async with asyncio.timeout(20):
        return (await failover.connect()).owner


async def test_the_first_that_is_up_is_taken() -> None:
    """The failover takes the first relay that is up, and does not ask a later one."""
    relays = Fake(), Fake()
    assert await _owner(_failover(relays)) is relays[0]
    assert relays[1].asked == 0


async def test_a_relay_that_is_down_is_not_waited_for_while_a_later_one_is_up() -> None:
    """The failover does not dial a relay that is down, and may be silent for long, while a later one is up."""
    relays = Fake(down=True, silent=True), Fake(down=True, silent=True), Fake(), Fake(down=True)
    assert await _owner(_failover(relays)) is relays[2]
    assert [relay.asked for relay in relays] == [0, 0, 1, 0]


async def test_a_relay_that_proves_to_be_well_is_dialled_at_once() -> None:
    """If all relays have refused, a mail that one of them accepts ends the minute's wait for it."""
    relays = Fake(down=True), Fake(down=True)
    for relay in relays:
        relay.return_at = asyncio.get_running_loop().time() + 60.0
    connecting = asyncio.create_task(_owner(_failover(relays)))
    await relays[1].was_asked.wait()
    relays[1].down = False
    relays[1].has_changed.set()
    assert await connecting is relays[1]


async def test_where_all_are_down_each_is_asked_in_order() -> None:
    """If all relays are down, the failover asks each in order and takes the first that is up again."""
    relays = Fake(down=True), Fake(down=True), Fake(down=True)
    connecting = asyncio.create_task(_owner(_failover(relays)))
    await relays[2].was_asked.wait()
    relays[1].down = False
    assert await connecting is relays[1]
    assert (relays[0].asked, relays[2].asked) == (1, 1)  # after that, one was known not to be down


async def test_where_those_that_are_not_down_refuse_the_others_are_asked() -> None:
    """If each relay that is not down refuses us, the failover asks the relays that are down."""

    class Back(Fake):
        async def connect(self, *, patient: bool = True) -> Connection:
            self.down = False
            return await super().connect(patient=patient)

    class Refusing(Fake):
        async def connect(self, *, patient: bool = True) -> Connection:
            raise ConnectFailed(str(patient))

    relays = Back(down=True), Refusing()
    assert await _owner(_failover(relays)) is relays[0]


async def test_one_that_turns_out_to_be_down_is_passed_over() -> None:
    """If a relay turns out to be down, the failover asks the next one at once."""

    class Unknown(Fake):
        async def connect(self, *, patient: bool = True) -> Connection:
            self.down = True
            return await super().connect(patient=patient)

    relays = Unknown(), Fake(down=True), Fake()
    assert await _owner(_failover(relays)) is relays[2]


async def test_only_earlier_ones_are_returned_to() -> None:
    """`connect_before` asks the earlier relays in their order, without waiting for one that is down."""
    relays = Fake(down=True), Fake(), Fake()
    failover = _failover(relays)
    owner: object = (await failover.connect_before(_connection(relays[2]))).owner
    assert owner is relays[1]
    assert [relay.asked for relay in relays] == [1, 1, 0]
    for relay in relays[:2]:
        with pytest.raises(ConnectFailed):
            await failover.connect_before(_connection(relay))


async def test_when_to_return() -> None:
    """A worker returns when the earliest of the relays before its own may be tried, and never from the first."""
    relays = Fake(return_at=30.0), Fake(return_at=20.0), Fake(return_at=10.0)
    failover = _failover(relays)
    assert [failover.return_at(_connection(relay)) for relay in relays] == [inf, 30.0, 20.0]


async def test_it_is_down_when_all_are() -> None:
    """The failover is down when all relays are down, and an idle relay is not."""
    relays = [Fake(down=True), Fake()]
    failover = _failover(relays)
    assert not failover.down
    relays[1].becomes(down=True)
    assert failover.down
    relays[0].becomes(down=False)
    assert not failover.down


async def test_an_outage_has_the_cause_of_each_relay() -> None:
    """The outage says why every relay is down; it is empty while one is up."""
    first, second = relays = [Fake(down=True), Fake(down=True)]
    first.outage, second.outage = "the relay can't be reached", "the relay is shy"
    failover = _failover(relays)
    assert failover.outage == "the relay can't be reached; the relay is shy"
    second.becomes(down=False)
    assert failover.outage == ""


def _leaving(relays: Sequence[Fake]) -> list[int]:
    """Have the first relay refuse all as too fast, and say which of them are left."""
    _failover(relays)
    relays[0].refuses_all = True
    relays[0].on_refuses_all()
    return [relay.left for relay in relays]


async def test_a_relay_that_refuses_all_as_too_fast_is_left_for_one_that_serves() -> None:
    """The failover leaves such a relay if another one is up, is idle, or is down and may be dialled now."""
    assert _leaving([Fake(), Fake()]) == [1, 0]
    assert _leaving([Fake(), Fake(down=True)]) == [1, 0]


async def test_a_relay_that_refuses_all_as_too_fast_is_kept_where_no_other_serves() -> None:
    """The failover keeps such a relay if it is the only one, or the others are down or refuse all too."""
    assert _leaving([Fake()]) == [0]
    waiting, refusing = Fake(down=True), Fake()
    waiting.retry_after, refusing.refuses_all = 60.0, True
    assert _leaving([Fake(), waiting, refusing]) == [0, 0, 0]


async def test_a_relay_that_refuses_all_as_too_fast_is_asked_last() -> None:
    """The failover asks relays that serve first, then those that are down, and then those that refuse all."""
    relays = Fake(), Fake(down=True), Fake()
    failover = _failover(relays)
    relays[0].refuses_all = True
    assert await _owner(failover) is relays[2]
    assert [relay.asked for relay in relays] == [0, 0, 1]
    relays[2].becomes(down=True)
    assert await _owner(failover) is relays[0]
    assert [relay.asked for relay in relays] == [1, 1, 2]
