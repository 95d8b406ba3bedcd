"""The measures of work that other tests assert on."""

import time

import pytest

import cost
from cost import seconds_of


class _Processor:
    """A processor that takes so many times as long as the usual one."""

    def __init__(self, slowness: float) -> None:
        self.time = 0.0
        self._slowness = slowness

    def work(self, seconds: float) -> None:
        """Do what takes the usual one so many seconds."""
        self.time += self._slowness * seconds


@pytest.mark.parametrize(("slowness", "seconds"), [(0.5, 0.1), (1, 0.2), (6, 0.2)])
def test_the_speed_of_the_machine_is_left_out(monkeypatch: pytest.MonkeyPatch, slowness: float, seconds: float) -> None:
    """What takes 0.2 s on the usual machine takes 0.2 s on a slower one too, and less on a quicker one."""
    processor = _Processor(slowness)
    monkeypatch.setattr(time, "thread_time", lambda: processor.time)
    monkeypatch.setattr(cost, "_work", lambda: processor.work(cost._USUAL_SECONDS))
    assert seconds_of(lambda: processor.work(0.2)) == pytest.approx(seconds)
