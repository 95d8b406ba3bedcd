"""Requests that are half received: few at a time, and none for ever."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import grpc
import pytest

from delivery.fakes import Clock, Nothing
from otpmail.api.reads import Reads
from otpmail.api.status import Code
from otpmail.limits.memory import HEAD_OCTETS, LARGE, READ_FACTOR, Memory

MIB = 1 << 20
SLOW = 0.3  # seconds after which a read counts as slow, and more


class Context:
    """A call that is never received whole, unless the test says so, until it has its status."""

    def __init__(self, peer: str = "ipv4:127.0.0.1:1") -> None:
        self._peer = peer
        self.received: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.status: Any = None

    def peer(self) -> str:
        """Where it comes from."""
        return self._peer

    async def read(self) -> Any:
        """Wait for the request."""
        return await self.received

    async def abort(self, code: Any, *_: Any) -> None:
        """End the call, and so the read, as grpc.aio does."""
        self.status = code
        if not self.received.done():
            self.received.set_exception(grpc.aio.AbortError())
        raise grpc.aio.AbortError


class Rig:
    """Reads of which four may be slow, on a clock that the test moves, in a process whose memory the test says."""

    def __init__(self, *, budget: int = 16 * MIB) -> None:
        self.clock = Clock()
        self.memory = Memory(budget, Nothing(), Nothing())
        self.resident = 50 * MIB
        self.reads = Reads(
            self.memory,
            most_octets=MIB,
            ended=grpc.aio.BaseError,
            most_seconds=60,
            call_later=self.clock.call_later,
            resident=lambda: self.resident,
        )
        self.tasks: list[asyncio.Task[Any]] = []

    async def begin(self, *contexts: Context) -> None:
        """Begin to read."""
        self.tasks += [asyncio.create_task(self.reads.read(context)) for context in contexts]
        await _turns()

    async def pass_time(self, seconds: float) -> None:
        """Let the time pass, and what it causes happen."""
        self.clock.advance(seconds)
        await _turns()

    async def end(self) -> None:
        """Cancel what is left."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def _turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def _ended(contexts: list[Context]) -> list[int]:
    return [place for place, context in enumerate(contexts) if context.status is not None]


async def test_a_request_that_is_there() -> None:
    """A read returns the request, and leaves nothing behind that a timer would look at."""
    rig = Rig()
    context = Context()
    context.received.set_result(b"octets")
    assert await rig.reads.read(context) == b"octets"
    assert repr(rig.reads) == "<Reads 0 mails, 0 others, 0 streams, at most 4>"
    await rig.pass_time(1)
    await rig.end()


async def test_few_are_half_received() -> None:
    """Of more slow reads than there may be the oldest ones are RESOURCE_EXHAUSTED, and the others go on."""
    rig = Rig()
    contexts = [Context(f"ipv4:127.0.0.1:{port}") for port in range(7)]
    await rig.begin(*contexts)
    await rig.pass_time(SLOW)
    assert _ended(contexts) == [0, 1, 2]
    assert contexts[0].status is Code.RESOURCE_EXHAUSTED
    with pytest.raises(grpc.aio.AbortError):
        await rig.tasks[0]
    await rig.pass_time(10)
    assert _ended(contexts) == [0, 1, 2]
    contexts[6].received.set_result(b"whole")
    assert await rig.tasks[6] == b"whole"
    await rig.end()


async def test_the_most_greedy_connection_loses_first() -> None:
    """Half requests of one connection do not end another one's, which began earlier."""
    rig = Rig()
    quiet, greedy = [Context("ipv4:10.0.0.1:1")], [Context("ipv4:10.0.0.2:1") for _ in range(50)]
    await rig.begin(*quiet, *greedy)
    await rig.pass_time(SLOW)
    assert _ended(quiet) == []
    assert _ended(greedy) == list(range(47))
    await rig.end()


async def test_a_burst_is_not_slow() -> None:
    """Thousands of requests that have just begun are not ended, however many there are."""
    rig = Rig()
    contexts = [Context() for _ in range(2000)]
    await rig.begin(*contexts)
    await rig.pass_time(0.05)
    assert _ended(contexts) == []
    for context in contexts:
        context.received.set_result(b"whole")
    assert await asyncio.gather(*rig.tasks) == [b"whole"] * 2000


async def test_none_is_half_received_for_ever() -> None:
    """A single request that does not arrive whole ends after some time."""
    rig = Rig()
    contexts = [Context(), Context(), Context()]
    await rig.begin(contexts[0], contexts[1])
    await rig.pass_time(50)
    await rig.begin(contexts[2])
    await rig.pass_time(15)
    assert _ended(contexts) == [0, 1]
    await rig.end()


async def test_a_batch_waits_for_memory() -> None:
    """A stream reads its next batch once requests take less than their part."""
    rig = Rig()
    rig.memory.reading = rig.memory.for_reading + 1
    context = Context()
    context.received.set_result(b"batch")
    reading = asyncio.create_task(rig.reads.read_batch(context, _not_called))
    await _turns()
    assert not reading.done()
    rig.memory.reading = 0
    assert await asyncio.wait_for(reading, 20) == b"batch"


def _not_called() -> None:
    raise AssertionError


async def test_a_batch_counts_while_it_is_worked_on() -> None:
    """A batch counts until its mails are accepted, a large one several times."""
    rig = Rig()
    for octets, counted in ((10, 10), (LARGE, READ_FACTOR * LARGE)):
        with rig.reads.counted(bytes(octets)):
            assert rig.memory.reading == counted
        assert rig.memory.reading == 0


async def test_mails_wait_for_their_turn() -> None:
    """Of mails no more than four are read at a time, and the connections that wait take turns."""
    rig = Rig()
    greedy, other = [Context("ipv4:10.0.0.1:1") for _ in range(10)], Context("ipv4:10.0.0.2:1")
    order: list[Context] = []

    async def read(context: Context) -> None:
        await rig.reads.read(context, is_mail=True)
        order.append(context)

    tasks = [asyncio.create_task(read(context)) for context in (*greedy, other)]
    await _turns()
    assert repr(rig.reads) == "<Reads 4 mails, 0 others, 0 streams, at most 4>"
    for context in (*greedy, other):
        context.received.set_result(b"mail")
    await asyncio.gather(*tasks)
    assert order.index(other) == 5
    assert repr(rig.reads) == "<Reads 0 mails, 0 others, 0 streams, at most 4>"
    await asyncio.wait_for(rig.reads.read(other, is_mail=True), 20)


async def test_a_mail_that_keeps_others_waiting_is_ended() -> None:
    """A half mail goes on while nobody waits, and ends after half a second where somebody does."""
    rig = Rig()
    contexts = [Context(f"ipv4:127.0.0.1:{port}") for port in range(5)]
    rig.tasks = [asyncio.create_task(rig.reads.read(context, is_mail=True)) for context in contexts[:4]]
    await _turns()
    await rig.pass_time(10)
    assert _ended(contexts) == []
    rig.tasks.append(asyncio.create_task(rig.reads.read(contexts[4], is_mail=True)))
    await _turns()
    await rig.pass_time(0.02)
    assert _ended(contexts) == [0]
    await rig.pass_time(10)
    assert _ended(contexts) == [0]
    contexts[4].received.set_result(b"mail")
    assert await rig.tasks[4] == b"mail"
    await rig.end()


async def test_no_mail_is_ended_for_one_that_has_gone() -> None:
    """A half mail goes on where the only call that waited for its turn was cancelled."""
    rig = Rig()
    contexts = [Context(f"ipv4:127.0.0.1:{port}") for port in range(5)]
    rig.tasks = [asyncio.create_task(rig.reads.read(context, is_mail=True)) for context in contexts]
    await _turns()
    rig.tasks[4].cancel()
    await _turns()
    await rig.pass_time(10)
    assert _ended(contexts) == []
    await rig.end()


async def test_a_mail_that_is_cancelled_while_it_waits() -> None:
    """A call that goes while it waits for its turn, or as it gets it, leaves the turn to the next."""
    rig = Rig()
    contexts = [Context() for _ in range(7)]
    tasks = [asyncio.create_task(rig.reads.read(context, is_mail=True)) for context in contexts]
    await _turns()
    tasks[4].cancel()
    contexts[0].received.set_result(b"mail")
    await tasks[0]
    tasks[5].cancel()
    await _turns()
    contexts[6].received.set_result(b"mail")
    assert await tasks[6] == b"mail"
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert repr(rig.reads) == "<Reads 0 mails, 0 others, 0 streams, at most 4>"


class Copying(Context):
    """A call whose read copies its message when it goes on, and notes in which round of the loop that is."""

    def __init__(self, octets: int, rounds: "Rounds") -> None:
        super().__init__()
        self.octets = octets
        self.rounds = rounds
        self.cancelled = False

    async def read(self) -> Any:
        """Wait for the message, and copy it."""
        try:
            await self.received
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        self.rounds.copies.append((self.rounds.now, self.octets))
        return bytes(self.octets)


class Rounds:
    """Counts the rounds of the loop."""

    def __init__(self) -> None:
        self.now = 0
        self.copies: list[tuple[int, int]] = []

    async def count(self) -> None:
        """Count until cancelled."""
        while True:
            self.now += 1
            await asyncio.sleep(0)


@pytest.mark.parametrize("what", ["request", "mail", "batch"])
async def test_one_large_message_is_copied_at_a_time(what: str) -> None:
    """Of large messages that are there in one moment one is copied in a round of the loop; small ones are at once."""
    rig, rounds = Rig(budget=1 << 30), Rounds()
    contexts = [Copying(octets, rounds) for octets in (10, 10, LARGE, LARGE, LARGE, LARGE - 1)]
    counting = asyncio.create_task(rounds.count())
    ways: dict[str, Callable[[Any], Coroutine[Any, Any, Any]]] = {
        "request": rig.reads.read,
        "mail": partial(rig.reads.read, is_mail=True),
        "batch": partial(rig.reads.read_batch, refuse=_not_called),
    }
    tasks = [asyncio.create_task(ways[what](context)) for context in contexts]
    await asyncio.sleep(0)
    for context in contexts:
        context.received.set_result(None)
    assert [len(octets) for octets in await asyncio.gather(*tasks)] == [context.octets for context in contexts]
    counting.cancel()
    large = [now for now, octets in rounds.copies if octets == LARGE]
    assert large[0] < large[1] < large[2]
    assert [now for now, octets in rounds.copies if octets == 10] == large[:1] * 2


async def test_a_call_that_is_cancelled_before_its_message_is_copied() -> None:
    """A call that goes while its message waits to be copied ends, and the next one is copied."""
    rig, rounds = Rig(budget=1 << 30), Rounds()
    contexts = [Copying(LARGE, rounds) for _ in range(3)]
    tasks = [asyncio.create_task(rig.reads.read(context, is_mail=True)) for context in contexts]
    await asyncio.sleep(0)
    for context in contexts:
        context.received.set_result(None)
    assert await tasks[0] == bytes(LARGE)
    tasks[1].cancel()
    assert await tasks[2] == bytes(LARGE)
    with pytest.raises(asyncio.CancelledError):
        await tasks[1]
    assert contexts[1].cancelled
    assert repr(rig.reads) == "<Reads 0 mails, 0 others, 0 streams, at most 256>"


async def test_octets_that_arrive_are_counted_while_a_flood_is_looked_for() -> None:
    """Each request counts for its connection, with its head, while a flood is looked for, and no other time."""
    rig = Rig()
    peers = [Context("ipv4:127.0.0.1:1") for _ in range(3)] + [Context("ipv4:127.0.0.1:2")]
    await rig.begin(*peers)
    peers[0].received.set_result(b"before")
    await _turns()
    rig.memory.arrived = {}
    for context in peers[1:]:
        context.received.set_result(b"12345")
    await _turns()
    assert rig.memory.arrived == {"ipv4:127.0.0.1:1": 2 * (HEAD_OCTETS + 5), "ipv4:127.0.0.1:2": HEAD_OCTETS + 5}
    await rig.end()
