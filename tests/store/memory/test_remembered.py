"""Things are remembered each for its time, and never more than the most."""

from hypothesis import given
from hypothesis import strategies as st

from otpmail.store.memory.remembered import Remembered


def test_the_latest_value_of_a_key() -> None:
    """A key that comes again has its new value, in the same slice or a later one."""
    remembered = Remembered(seconds=100, most=100)
    assert remembered.get("a") is None
    for now in (0.0, 1.0, 30.0):
        remembered.add("a", str(now).encode(), now)
        assert remembered.get("a") == str(now).encode()
    assert remembered.get("b") is None


def test_the_repr_counts() -> None:
    """The repr counts the remembered values and their slices."""
    remembered = Remembered(seconds=100, most=100)
    remembered.add("a", b"", 0.0)
    remembered.add("b", b"", 30.0)
    assert repr(remembered) == "<Remembered 2 in 2 slices>"


def test_the_oldest_go_first() -> None:
    """The number is bounded, and little less than the most is kept: a slice of a quarter goes whole."""
    remembered = Remembered(seconds=1e9, most=1000)
    for number in range(5000):
        remembered.add(str(number), b"", number / 100)
        assert len(remembered) <= 1000
        assert number < 1000 or len(remembered) >= 750
        assert remembered.get(str(max(0, number - 749))) is not None
    assert remembered.get("3999") is None


def test_few_slices_are_kept() -> None:
    """Few slices are kept, however slowly values come, since a look-up goes through each."""
    remembered = Remembered(seconds=100, most=1000)
    for number in range(100):
        remembered.add(str(number), b"", number * 30.0)
        assert len(remembered) <= 6


@given(seconds=st.floats(1, 1000), most=st.integers(1, 30), steps=st.lists(st.floats(0, 400), min_size=1, max_size=60))
def test_each_is_kept_for_its_time_unless_there_are_too_many(seconds: float, most: int, steps: list[float]) -> None:
    """A value younger than its time is found, if fewer than three quarters of the most came after it."""
    remembered, now = Remembered(seconds=seconds, most=most), 0.0
    came: list[float] = []
    for number, step in enumerate(steps):
        now += step
        remembered.add(str(number), b"", now)
        came.append(now)
        assert len(remembered) <= max(most, 1)
        for earlier, then in enumerate(came):
            if now - then < seconds and number - earlier < most - max(1, most // 4):
                assert remembered.get(str(earlier)) is not None


def test_octets_are_bounded() -> None:
    """The values take about the octets that they may, and a slice that has its part of them takes no more."""
    remembered = Remembered(seconds=1e9, most=1_000_000, most_octets=1_000_000)
    for number in range(5000):
        remembered.add(str(number), bytes(750), number / 100)
        assert remembered.octets <= 1_001_000
        assert number < 1000 or remembered.octets >= 740_000
    assert remembered.get("4999") is not None
    assert remembered.get("3000") is None


def test_octets_are_those_of_what_is_left() -> None:
    """Forgetting the oldest takes its octets off, until nothing is left, and values are remembered again after that."""
    remembered = Remembered(seconds=100, most=100)
    for now in (0.0, 30.0, 60.0):
        remembered.add("a", bytes(1000), now)
    octets = [remembered.octets]
    while remembered.forget_oldest():
        octets.append(remembered.octets)
    assert len(octets) == 4
    assert octets[0] >= 3000
    assert octets[-1] == 0
    assert remembered.get("a") is None
    remembered.add("a", b"again", 61.0)
    assert remembered.get("a") == b"again"
    assert len(remembered) == 1


def test_what_is_discarded_takes_nothing() -> None:
    """A discarded key is gone from every slice with its octets, and the other values stay."""
    remembered = Remembered(seconds=100, most=100)
    for now in (0.0, 30.0, 60.0):
        remembered.add("a", bytes(1000), now)
    remembered.add("b", b"left", 60.0)
    before = len(remembered)
    remembered.discard("a")
    remembered.discard("a")
    assert (remembered.get("a"), remembered.get("b")) == (None, b"left")
    assert (len(remembered), before) == (1, 4)
    left = remembered.octets
    while remembered.forget_oldest():
        pass
    assert (0 < left < 500, remembered.octets, len(remembered)) == (True, 0, 0)
