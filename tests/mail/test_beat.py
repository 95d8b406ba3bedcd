"""The beat: who waits for whom, and for how long at most. Its clocks are the numbers that it is given."""

import pytest

from otpmail.mail.beat import MOST_SECONDS, Beat


class Core:
    """The processor time of a process that is made busy by hand."""

    used = 0.0

    def __call__(self) -> float:
        """How much it has used, in seconds."""
        return self.used


def _busy(part: float = 1.0, *, under_way: int = 1) -> Beat:
    """A beat of a process that has kept this part of a core busy; mails left at 1.0, with so many under way."""
    core = Core()
    beat = Beat(core)
    beat.left(0.0, under_way=1)
    core.used = part
    beat.left(1.0, under_way=under_way)
    return beat


def test_the_first_leaves_at_once() -> None:
    """There is nobody to wait for."""
    assert Beat().is_due(0.0, waiting=1, under_way=1)


def test_one_after_another_each_leaves_at_once() -> None:
    """A caller who sends the next mail when the last was answered is not slowed down, however fast that goes."""
    beat = _busy()
    for turn in range(10):
        now = 1.0 + turn * MOST_SECONDS / 100
        assert beat.is_due(now, waiting=1, under_way=1)
        beat.left(now, under_way=1)


def test_it_waits_for_as_many_as_were_under_way() -> None:
    """The last of them lets all leave."""
    beat = _busy(under_way=3)
    assert [beat.is_due(1.001, waiting=count, under_way=count) for count in (1, 2, 3)] == [False, False, True]


def test_it_waits_no_longer_than_to_the_next_beat() -> None:
    """Mails that do not come are waited for once, and the beat is counted from when mails left."""
    beat = _busy(under_way=3)
    assert beat.next_at == pytest.approx(1.0 + MOST_SECONDS)
    assert beat.is_due(beat.next_at, waiting=1, under_way=1)
    beat.left(beat.next_at, under_way=1)
    assert beat.is_due(beat.next_at - 0.001, waiting=1, under_way=1), "now one is expected, and it is there"


def test_more_are_expected_when_more_are_under_way() -> None:
    """Also where they were noticed while others waited: so few become as many as there are callers."""
    beat = _busy(under_way=2)
    assert not beat.is_due(1.001, waiting=1, under_way=3)
    assert beat.is_due(1.001, waiting=2, under_way=4)
    beat.left(1.001, under_way=2)
    assert not beat.is_due(1.002, waiting=3, under_way=3)
    assert beat.is_due(1.002, waiting=4, under_way=4)


def test_many_leave_whatever_is_under_way() -> None:
    """A thousand mails of a stream do not wait for each other."""
    beat = _busy(under_way=1000)
    assert not beat.is_due(1.001, waiting=31, under_way=1000)
    assert beat.is_due(1.001, waiting=32, under_way=1000)


@pytest.mark.parametrize(("part", "beats"), [(0.0, 0.0), (0.1, 0.01), (0.5, 0.25), (1.0, 1.0), (1.7, 1.0)])
def test_it_is_as_long_as_the_process_is_busy(part: float, beats: float) -> None:
    """At half of a core a quarter; gRPC's threads may keep more than one core busy."""
    assert _busy(part).next_at == pytest.approx(1.0 + beats * MOST_SECONDS)


def test_it_follows_the_process() -> None:
    """A look each twentieth of a second is enough: between two nothing changes."""
    core = Core()
    beat = Beat(core)
    beat.left(0.0, under_way=1)
    lengths = []
    for at, used in ((0.1, 0.1), (0.14, 0.1), (0.2, 0.1)):
        core.used = used
        beat.left(at, under_way=1)
        lengths.append(beat.next_at - at)
    assert lengths == [pytest.approx(MOST_SECONDS), pytest.approx(MOST_SECONDS), pytest.approx(0.0)]


def test_its_repr_says_how_long_it_is_and_how_many_it_expects() -> None:
    """That is its state."""
    assert repr(_busy(under_way=3)) == "<Beat 10.0 ms, 3 expected>"
