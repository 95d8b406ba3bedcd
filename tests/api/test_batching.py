"""Batches of unary calls: which call waits, for how many others, and how long. All clocks are moved by hand."""

import asyncio
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpmail.api.batching import MOST_SECONDS, Batching


class Timer:
    """A callback that is due at a time."""

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        """Never call back."""
        self.cancelled = True


class Process:
    """A process whose clock, timers and used processor time are moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.cpu_used = 0.0
        self._timers: list[Timer] = []

    def time(self) -> float:
        """Return the time."""
        return self.now

    def wanted(self) -> float:
        """Return the processor time."""
        return self.cpu_used

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Note a timer, for `advance` to fire."""
        timer = Timer(when, callback)
        self._timers.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        """Let time pass, and fire what is due in it."""
        until = self.now + seconds
        for timer in list(self._timers):
            if timer.when <= until and not timer.cancelled:
                self.now = max(self.now, timer.when)
                self._timers.remove(timer)
                timer.callback()
        self.now = until


def _start(process: Process, **options: float) -> Batching:
    return Batching(process, wanted=process.wanted, **options)


def _busy(process: Process, part: float = 1.0, *, in_flight: int = 1) -> Batching:
    """Keep this part of a core busy for a second, and then begin a batch at which so many calls were in flight."""
    batching = _start(process)
    batching.take(1)
    process.advance(1.0)
    process.cpu_used = part
    batching.take(1)
    batching.take(in_flight)
    process.advance(MOST_SECONDS * max(0.0, min(1.0, part) - 0.9) * 10)
    return batching


def _done(turns: Sequence[asyncio.Future[None] | None]) -> list[bool]:
    return [turn is None or turn.done() for turn in turns]


@pytest.fixture
def process() -> Process:
    """Return a process that has used no processor time."""
    return Process()


async def test_the_first_call_begins_at_once(process: Process) -> None:
    """A call to a service that has nothing to do is not held back."""
    assert _start(process).take(1) is None


async def test_calls_that_follow_each_other_begin_at_once(process: Process) -> None:
    """A caller that makes its next call after the last response is not slowed down, however fast that goes."""
    batching = _busy(process)
    for _ in range(10):
        process.advance(MOST_SECONDS / 100)
        assert batching.take(1) is None


async def test_a_batch_waits_for_as_many_as_were_in_flight(process: Process) -> None:
    """The last expected call begins at once, and with it all that wait; the next ones are held back again."""
    batching = _busy(process, in_flight=5)
    turns = [batching.take(count) for count in range(1, 5)]
    assert _done(turns) == [False, False, False, False]
    assert batching.take(5) is None
    assert _done(turns) == [True, True, True, True]
    assert _done([batching.take(1)]) == [False]


@pytest.mark.parametrize(("in_flight", "waits"), [(3, False), (4, True)])
async def test_few_calls_do_not_wait_for_each_other(process: Process, in_flight: int, waits: bool) -> None:  # noqa: FBT001
    """A batch of three saves nothing."""
    assert (_busy(process, in_flight=in_flight).take(1) is not None) is waits


async def test_a_batch_begins_at_its_time_at_the_latest(process: Process) -> None:
    """Calls that do not come are waited for once: the next batch expects as many as have come."""
    batching = _busy(process, in_flight=5)
    turn = batching.take(1)
    process.advance(MOST_SECONDS - 0.001)
    assert _done([turn]) == [False]
    process.advance(0.002)
    assert _done([turn]) == [True]
    assert batching.take(1) is None


async def test_more_are_expected_when_more_are_in_flight(process: Process) -> None:
    """Calls that come while others wait are counted, so that small batches grow to the number of callers."""
    batching = _busy(process, in_flight=4)
    assert _done([batching.take(5) for _ in range(3)]) == [False, False, False]
    assert batching.take(6) is None
    assert _done([batching.take(count) for count in range(1, 6)]) == [False] * 5
    assert batching.take(6) is None


async def test_a_batch_has_at_most_32_calls(process: Process) -> None:
    """A thousand calls that wait for a slow relay are no reason to wait for as many."""
    batching = _busy(process, in_flight=1000)
    turns = [batching.take(1000) for _ in range(31)]
    assert not any(_done(turns))
    assert batching.take(1000) is None
    assert all(_done(turns))


@pytest.mark.parametrize(("part", "share"), [(0.92, 0.2), (0.95, 0.5), (1.0, 1.0), (1.7, 1.0)])
async def test_a_busier_process_gathers_longer(process: Process, part: float, share: float) -> None:
    """A batch gathers for half of the time at seven eighths of a core; gRPC's threads may use more than one core."""
    turn = _busy(process, part, in_flight=5).take(1)
    process.advance(share * MOST_SECONDS * 0.99)
    assert _done([turn]) == [False]
    process.advance(share * MOST_SECONDS * 0.02)
    assert _done([turn]) == [True]


@pytest.mark.parametrize("part", [0.0, 0.5, 0.9])
async def test_a_process_with_time_to_spare_holds_no_call_back(process: Process, part: float) -> None:
    """Up to nine tenths of a core calls are slower in batches, and nothing is gained by it."""
    assert _busy(process, part, in_flight=5).take(1) is None


async def test_the_load_is_measured_four_times_a_second(process: Process) -> None:
    """Between two measurements the time of a batch stays the same."""
    batching = _start(process)
    batching.take(1)
    shown = []
    for seconds, used in ((0.3, 0.3), (0.2, 0.3), (0.1, 0.3)):
        process.advance(seconds)
        process.cpu_used = used
        batching.take(1)
        shown.append(repr(batching).rpartition(", ")[2])
    assert shown == ["10.0 ms>", "10.0 ms>", "0.0 ms>"]


def _burst(process: Process, batching: Batching, in_flight: Sequence[int]) -> list[bool]:
    """Keep the process wholly busy from now on, with a call each millisecond; returns which began at once."""
    began = []
    for count in in_flight:
        process.cpu_used += 0.001
        process.advance(0.001)
        began.append(batching.take(count) is None)
    return began


@pytest.mark.parametrize("pause", [0.5, 1.0, 60.0])
async def test_a_burst_after_a_pause_is_held_back_soon(process: Process, pause: float) -> None:
    """A burst is measured 30 ms after its first call, and from then on calls begin in batches."""
    batching = _start(process)
    batching.take(1)
    process.advance(pause)
    began = _burst(process, batching, [8] * 60)
    assert all(began[:30])
    assert sum(began[31:]) <= 4


async def test_a_lone_client_is_not_held_back_after_a_pause(process: Process) -> None:
    """A caller whose calls keep the process wholly busy, one after the other, waits for nobody after a pause."""
    batching = _start(process)
    batching.take(1)
    process.advance(1.0)
    assert all(_burst(process, batching, [1] * 200))


async def test_few_calls_after_a_pause_begin_at_once(process: Process) -> None:
    """A process that has time to spare after a pause holds no call back, however many are in flight."""
    batching = _start(process)
    batching.take(1)
    process.advance(1.0)
    for _ in range(100):
        process.cpu_used += 0.004
        process.advance(0.005)
        assert batching.take(8) is None


async def test_a_stall_is_no_pause(process: Process) -> None:
    """After a second in which the process was wholly busy it is measured four times a second as before."""
    batching = _busy(process, in_flight=8)
    process.advance(0.1)
    batching.take(8)
    assert repr(batching).endswith(" 10.0 ms>")


async def test_short_calls_are_found_to_come_together(process: Process) -> None:
    """Each is answered before the next one comes: only a batch that gathers for its whole time counts them."""
    batching = _start(process)
    batching.take(1)
    process.advance(1.0)
    process.cpu_used = 1.0
    batching.take(1)
    turns = [batching.take(count) for count in range(1, 6)]
    assert not any(_done(turns))
    process.advance(MOST_SECONDS)
    assert all(_done(turns))
    assert _done([batching.take(count) for count in range(1, 5)]) == [False] * 4
    assert batching.take(5) is None


async def test_a_batch_of_no_length_holds_no_call_back(process: Process) -> None:
    """With `most_seconds` 0 every call begins at once, however busy the process is and however many are in flight."""
    batching = _start(process, most_seconds=0)
    assert batching.take(1) is None
    process.advance(1.0)
    process.cpu_used = 1.0
    assert [batching.take(50), batching.take(50)] == [None, None]


async def test_a_cancelled_call_holds_up_no_other(process: Process) -> None:
    """The others of its batch begin without it."""
    batching = _busy(process, in_flight=4)
    first, second = batching.take(1), batching.take(2)
    assert first is not None
    first.cancel()
    process.advance(MOST_SECONDS)
    assert _done([second]) == [True]


@given(
    st.lists(st.tuples(st.floats(0, 2 * MOST_SECONDS), st.integers(1, 50), st.floats(0, 0.3)), min_size=1, max_size=100)
)
def test_no_call_waits_longer_than_the_most(calls: list[tuple[float, int, float]]) -> None:
    """Whatever calls come when, and however busy the process is: each begins within MOST_SECONDS, and none is lost."""

    async def run() -> None:
        process = Process()
        batching = _start(process)
        taken: list[tuple[float, asyncio.Future[None]]] = []
        for gap, in_flight, cpu in calls:
            process.cpu_used += cpu
            process.advance(gap)
            assert all(turn.done() or process.now - at <= MOST_SECONDS * (1 + 1e-6) for at, turn in taken)
            if (turn := batching.take(in_flight)) is not None:
                taken.append((process.now, turn))
        process.advance(MOST_SECONDS * (1 + 1e-6))
        assert all(turn.done() for _, turn in taken)

    asyncio.run(run())


async def test_its_repr_says_how_many_wait_and_for_how_many(process: Process) -> None:
    """The state of a batch is how many wait, how many are expected, and how long it gathers."""
    batching = _busy(process, in_flight=5)
    batching.take(1)
    assert repr(batching) == "<Batching 1 waiting for 5, 10.0 ms>"
