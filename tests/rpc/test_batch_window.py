"""The beat: who waits for whom, and for how long at most. Its clocks are the numbers that it is given."""

import pytest

from otpmail.rpc.batching import MOST_SECONDS, BatchWindow


class Core:
    """The processor time of a process that is made busy by hand."""

    used = 0.0

    def __call__(self) -> float:
        """How much it has used, in seconds."""
        return self.used


def _busy(part: float = 1.0, *, under_way: int = 1) -> BatchWindow:
    """A beat of a process that keeps this part of a core busy; calls began at 1.0, with so many under way before."""
    core = Core()
    beat = BatchWindow(core)
    beat.began(0.0)
    core.used = part
    beat.began(1.0)
    beat.is_due(1.0, waiting=1, under_way=under_way)
    beat.began(1.0)
    return beat


def test_the_first_begins_at_once() -> None:
    """There is nobody to wait for."""
    assert BatchWindow().is_due(0.0, waiting=1, under_way=1)


def test_one_after_another_each_begins_at_once() -> None:
    """A caller who makes the next call when the last was answered is not slowed down, however fast that goes."""
    beat = _busy()
    for turn in range(10):
        now = 1.0 + turn * MOST_SECONDS / 100
        assert beat.is_due(now, waiting=1, under_way=1)
        beat.began(now)


def test_it_waits_for_as_many_as_were_under_way() -> None:
    """The last of them lets all begin."""
    beat = _busy(under_way=5)
    due = [beat.is_due(1.001, waiting=count, under_way=count) for count in range(1, 6)]
    assert due == [False, False, False, False, True]


def test_three_do_not_wait_for_each_other() -> None:
    """Together they save nothing."""
    assert _busy(under_way=3).is_due(1.001, waiting=1, under_way=1)
    assert not _busy(under_way=4).is_due(1.001, waiting=1, under_way=1)


def test_it_waits_no_longer_than_to_the_next_beat() -> None:
    """Calls that do not come are waited for once, and the beat is counted from when calls began."""
    beat = _busy(under_way=5)
    assert beat.next_at == pytest.approx(1.0 + MOST_SECONDS)
    assert not beat.is_due(beat.next_at - 0.001, waiting=1, under_way=1)
    assert beat.is_due(beat.next_at, waiting=1, under_way=1)
    beat.began(beat.next_at)
    assert beat.is_due(beat.next_at - 0.001, waiting=1, under_way=1), "now one is expected, and it is there"


def test_more_are_expected_when_more_are_under_way() -> None:
    """Also where they were noticed while others waited: so few become as many as there are callers."""
    beat = _busy(under_way=4)
    assert not beat.is_due(1.001, waiting=3, under_way=5)
    assert beat.is_due(1.001, waiting=4, under_way=6)
    beat.began(1.001)
    assert not beat.is_due(1.002, waiting=5, under_way=5)
    assert beat.is_due(1.002, waiting=6, under_way=6)


def test_many_begin_whatever_is_under_way() -> None:
    """A thousand calls that wait for a slow relay are no reason to wait for as many."""
    beat = _busy(under_way=1000)
    assert not beat.is_due(1.001, waiting=31, under_way=1000)
    assert beat.is_due(1.001, waiting=32, under_way=1000)


@pytest.mark.parametrize(("part", "beats"), [(0.0, 0.0), (0.1, 0.01), (0.5, 0.25), (1.0, 1.0), (1.7, 1.0)])
def test_it_is_as_long_as_the_process_is_busy(part: float, beats: float) -> None:
    """At half of a core a quarter; gRPC's threads may keep more than one core busy."""
    assert _busy(part).next_at == pytest.approx(1.0 + beats * MOST_SECONDS)


def test_it_follows_the_process() -> None:
    """A look now and then is enough: between two nothing changes."""
    core = Core()
    beat = BatchWindow(core)
    beat.began(0.0)
    lengths = []
    for at, used in ((0.3, 0.3), (0.5, 0.3), (0.6, 0.3)):
        core.used = used
        beat.began(at)
        lengths.append(beat.next_at - at)
    assert lengths == [pytest.approx(MOST_SECONDS), pytest.approx(MOST_SECONDS), pytest.approx(0.0)]


def test_short_calls_are_found_to_come_together() -> None:
    """Each is answered before the next one comes: only a beat that is waited for whole, once a look, tells."""
    core = Core()
    beat = BatchWindow(core)
    beat.began(0.0)
    core.used = 1.0
    beat.began(1.0)
    assert not beat.is_due(1.001, waiting=1, under_way=1)
    assert not beat.is_due(1.002, waiting=2, under_way=2)
    assert beat.is_due(beat.next_at, waiting=5, under_way=5)
    beat.began(beat.next_at)
    assert not beat.is_due(1.011, waiting=4, under_way=4)
    assert beat.is_due(1.012, waiting=5, under_way=5)


def test_a_window_of_no_length_holds_no_call_back() -> None:
    """With `most_seconds` 0 every call begins at once, however busy the process is and however many came before."""
    core = Core()
    window = BatchWindow(core, most_seconds=0)
    window.began(0.0)
    core.used = 1.0
    assert window.is_due(1.0, waiting=1, under_way=50)
    window.began(1.0)
    assert window.is_due(1.0, waiting=1, under_way=50)


def test_its_repr_says_how_long_it_is_and_how_many_it_expects() -> None:
    """That is its state."""
    assert repr(_busy(under_way=5)) == "<BatchWindow 10.0 ms, 5 expected>"
