"""The turnaround: how many mails leave together, by how long the relay took for each the last time. No clock."""

import pytest

from otpmail.relays.turnaround import Turnaround


def _measured(each: float) -> Turnaround:
    """Return one that saw two mails, each of which took so many seconds."""
    turnaround = Turnaround(soon=0.005)
    turnaround.busy(10, 100.0)
    turnaround.idle(12, 100.0 + 2 * each)
    return turnaround


@pytest.mark.parametrize(("each", "together"), [(0.00009, 55), (0.0009, 5), (0.003, 1), (0.006, 0)])
def test_as_many_leave_together_as_the_relay_soon_answers(each: float, together: int) -> None:
    """As many mails leave together as the relay answers soon, since the last of them waits for all others."""
    turnaround = _measured(each)
    turnaround.busy(12, 200.0)
    assert turnaround.most_together(200.0) == together


def test_before_the_first_answer_nothing_is_soon() -> None:
    """No answer counts as soon before the first one, since a relay that has not answered may be slow."""
    turnaround = Turnaround(soon=0.005)
    turnaround.busy(0, 100.0)
    assert turnaround.most_together(100.0) == 0


def test_a_slow_answer_is_noticed_while_it_is_due() -> None:
    """A quick relay that takes its time over a mail counts as slow, until it has been quick again."""
    turnaround = _measured(0.0001)
    turnaround.busy(12, 200.0)
    assert turnaround.most_together(200.004) >= 2
    assert turnaround.most_together(200.006) == 0
    turnaround.idle(13, 201.0)
    turnaround.busy(13, 300.0)
    assert turnaround.most_together(300.0) == 0
    turnaround.idle(14, 300.0001)
    turnaround.busy(14, 400.0)
    assert turnaround.most_together(400.0) >= 1


def test_the_rate_of_late() -> None:
    """Mails are counted over ten seconds or longer, and those of less than a second as if it were a whole one."""
    turnaround = Turnaround()
    turnaround.busy(0, 1000.0)
    assert turnaround.rate(40, 1000.1) == 40.0
    assert turnaround.rate(40, 1004.0) == 10.0
    turnaround.busy(40, 1020.0)
    assert turnaround.rate(41, 1020.0) == 2.0  # that of the twenty seconds before
    turnaround.busy(41, 5000.0)
    assert turnaround.rate(42, 5000.0) == 1.0
