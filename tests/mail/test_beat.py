"""The beat: who waits for whom, and for how long at most. Its clock is the number that it is given."""

import pytest

from otpmail.mail.beat import SECONDS, Beat


def _after(*departures: tuple[int, float]) -> Beat:
    """A beat that let mails leave so often: with how many under way at most, and when."""
    beat = Beat()
    for under_way, at in departures:
        beat.left(at, under_way=under_way)
    return beat


def test_the_first_leaves_at_once() -> None:
    """There is nobody to wait for."""
    assert Beat().is_due(0.0, waiting=1, under_way=1)


def test_one_after_another_each_leaves_at_once() -> None:
    """A caller who sends the next mail when the last was answered is not slowed down, however fast that goes."""
    beat = Beat()
    for turn in range(10):
        now = turn * SECONDS / 10
        assert beat.is_due(now, waiting=1, under_way=1)
        beat.left(now, under_way=1)


def test_it_waits_for_as_many_as_were_under_way() -> None:
    """The last of them lets all leave."""
    beat = _after((3, 1.0))
    now = 1.0 + SECONDS / 2
    assert [beat.is_due(now, waiting=count, under_way=count) for count in (1, 2, 3)] == [False, False, True]


def test_it_waits_no_longer_than_to_the_next_beat() -> None:
    """Mails that do not come are waited for once, and the beat is counted from when mails left."""
    beat = _after((3, 1.0))
    assert beat.next_at == pytest.approx(1.0 + SECONDS)
    assert beat.is_due(beat.next_at, waiting=1, under_way=1)
    beat.left(beat.next_at, under_way=1)
    assert beat.is_due(beat.next_at - SECONDS / 2, waiting=1, under_way=1), "now one is expected, and it is there"


def test_more_are_expected_when_more_are_under_way() -> None:
    """Also where they were noticed while others waited: so few become as many as there are callers."""
    beat = _after((2, 1.0))
    now = 1.0 + SECONDS / 2
    assert not beat.is_due(now, waiting=1, under_way=3)
    assert beat.is_due(now, waiting=2, under_way=4)
    beat.left(now, under_way=2)
    assert not beat.is_due(now, waiting=3, under_way=3)
    assert beat.is_due(now, waiting=4, under_way=4)


def test_a_windowful_leaves_whatever_is_under_way() -> None:
    """A thousand mails of a stream do not wait for each other."""
    beat = _after((1000, 1.0))
    assert not beat.is_due(1.0, waiting=15, under_way=1000)
    assert beat.is_due(1.0, waiting=16, under_way=1000)


def test_its_repr_says_how_many_it_expects() -> None:
    """That is its state."""
    assert repr(_after((3, 1.0))) == "<Beat 3 expected>"
