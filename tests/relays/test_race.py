"""The race between the addresses of a relay, without sockets."""

import asyncio
from collections.abc import Callable, Mapping

import pytest

from otpmail.errors import ConnectFailed
from otpmail.relays.addresses import Address
from otpmail.relays.race import Race

A, B, C = (Address(2, (f"192.0.2.{number}", 587)) for number in (1, 2, 3))
NEVER = 60.0


class _Open:
    """An open connection, or one that is ready."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


class _Network:
    """Addresses that connect and greet on command, or fail."""

    def __init__(self) -> None:
        self.tried: list[Address] = []
        self.opened: list[_Open] = []
        self.stopped: list[Address] = []
        self.connects: Mapping[Address, asyncio.Future[None]] = {a: _future() for a in (A, B, C)}
        self.greets: Mapping[Address, asyncio.Future[None]] = {a: _future() for a in (A, B, C)}
        self.on_try: Callable[[Address], None] = lambda _: None

    async def connect(self, address: Address) -> _Open:
        self.tried.append(address)
        self.on_try(address)
        try:
            await asyncio.shield(self.connects[address])
        except asyncio.CancelledError:
            self.stopped.append(address)
            raise
        return self._open(address)

    async def greet(self, address: Address, socket: _Open) -> _Open:
        assert socket.address == address
        await asyncio.shield(self.greets[address])
        return self._open(address)

    def _open(self, address: Address) -> _Open:
        opened = _Open(address)
        self.opened.append(opened)
        return opened

    def race(self, *, stagger: float, share: float) -> Race[_Open, _Open]:
        return Race((A, B, C), self.connect, self.greet, stagger=stagger, share=share)


def _future() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


def _fail(future: asyncio.Future[None], words: str) -> None:
    future.set_exception(ConnectFailed(words))
    future.exception()


async def test_the_first_address_alone() -> None:
    """Where the first address is ready soon, no other one is asked."""
    network = _Network()
    network.connects[A].set_result(None)
    network.greets[A].set_result(None)
    ready = await network.race(stagger=NEVER, share=NEVER).run()
    assert ready is not None
    assert (ready.address, network.tried) == (A, [A])


async def test_an_address_that_swallows_packets() -> None:
    """The next address is tried after the delay of RFC 8305, and the first one is given up once that is connected."""
    network = _Network()
    network.connects[B].set_result(None)
    network.greets[B].set_result(None)
    ready = await network.race(stagger=0.01, share=NEVER).run()
    assert ready is not None
    assert (ready.address, network.tried, network.stopped) == (B, [A, B], [A])


async def test_an_address_that_refuses() -> None:
    """The next address is tried at once when one fails, to connect or to greet."""
    network = _Network()
    _fail(network.connects[A], "refused")
    network.connects[B].set_result(None)
    _fail(network.greets[B], "421 later")
    network.connects[C].set_result(None)
    network.greets[C].set_result(None)
    race = network.race(stagger=NEVER, share=NEVER)
    ready = await race.run()
    assert ready is not None
    assert (ready.address, network.tried) == (C, [A, B, C])
    assert {address: str(error) for address, error in race.failures.items()} == {A: "refused", B: "421 later"}
    assert [opened.is_closed for opened in network.opened] == [True, False, False]  # the sockets of B and C, and C


async def test_an_address_that_does_not_greet() -> None:
    """An address that is connected and silent keeps its connection while the next is tried, and may still win."""
    network = _Network()
    network.connects[A].set_result(None)

    def tried(address: Address) -> None:
        if address == B:
            network.greets[A].set_result(None)

    network.on_try = tried
    ready = await network.race(stagger=NEVER, share=0.01).run()
    assert ready is not None
    assert (ready.address, network.tried, network.stopped) == (A, [A, B], [B])


async def test_a_connection_stops_the_others_for_now() -> None:
    """An address that was given up because another connected is tried again when that one fails."""
    network = _Network()

    def tried(_: Address) -> None:
        if network.tried == [A, B]:
            network.connects[B].set_result(None)
            _fail(network.greets[B], "554 no")
        if network.tried == [A, B, A]:
            network.connects[A].set_result(None)
            network.greets[A].set_result(None)

    network.on_try = tried
    ready = await network.race(stagger=0.01, share=NEVER).run()
    assert ready is not None
    assert ready.address == A
    assert network.tried[:3] == [A, B, A]


async def test_nowhere() -> None:
    """When all addresses have failed there is a reason for each."""
    network = _Network()
    for address in (A, B, C):
        _fail(network.connects[address], f"no {address.text}")
    race = network.race(stagger=NEVER, share=NEVER)
    assert await race.run() is None
    assert [str(error) for error in race.failures.values()] == [f"no 192.0.2.{number}" for number in (1, 2, 3)]


@pytest.mark.parametrize("is_connected", [False, True])
async def test_a_race_that_is_cancelled(is_connected: bool) -> None:  # noqa: FBT001
    """A cancelled race leaves neither a task nor an open connection behind."""
    network = _Network()
    if is_connected:
        network.connects[A].set_result(None)
    started = _future()
    network.on_try = lambda _: started.set_result(None)
    racing = asyncio.create_task(network.race(stagger=NEVER, share=NEVER).run())
    await started
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    racing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await racing
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert all(opened.is_closed for opened in network.opened)


async def test_two_that_are_ready_at_once() -> None:
    """Of two addresses that are ready in the same turn of the loop one is used, and the other one is closed."""
    network = _Network()
    network.connects[A].set_result(None)
    network.connects[B].set_result(None)

    def tried(address: Address) -> None:
        if address == B:
            asyncio.get_running_loop().call_later(0.01, both)

    def both() -> None:
        network.greets[A].set_result(None)
        network.greets[B].set_result(None)

    network.on_try = tried
    ready = await network.race(stagger=NEVER, share=0.01).run()
    await asyncio.sleep(0)
    assert ready is not None
    assert [opened for opened in network.opened[2:] if not opened.is_closed] == [ready]
