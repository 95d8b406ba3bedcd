"""Turns of a benchmark between services: what each of them costs does not depend on its place among the others."""

from itertools import count

import pytest

from benchmarks.load.by_turns import Figures, take_turns


class Alike:
    """A service whose calls cost more the longer it was idle."""

    def __init__(self, clock: "count[int]", **factors: float) -> None:
        self.rounds: Figures = {}
        self._clock = clock
        self._factors = factors
        self._called_at = 0

    def _take(self, method: str) -> None:
        now = next(self._clock)
        cost = (150.0 + 40.0 * (now - self._called_at)) * self._factors.get(method, 1.0)
        self._called_at = now
        self.rounds.setdefault(method, []).append({"cpu": cost, "time": 2 * cost})

    async def send_mails(self, calls: int) -> None:
        """Cost what mails do."""
        assert calls == 10
        self._take("SendMail")

    async def send_codes(self, calls: int) -> None:
        """Cost what codes do."""
        assert calls == 10
        self._take("SendCode")

    async def validate_codes(self, calls: int) -> None:
        """Cost what checks do."""
        assert calls == 10
        self._take("ValidateCode")


@pytest.mark.parametrize("services", [2, 3])
async def test_services_that_are_alike_cost_the_same(services: int) -> None:
    """Each turn gives all services the same places, so that being idle before a place costs all of them the same."""
    clock = count()
    figures = await take_turns([Alike(clock) for _ in range(services)], turns=4, calls=10)
    assert len({cost["cpu"] for cost in figures[0]["SendMail"]}) == 1
    for others in figures[1:]:
        for method, costs in figures[0].items():
            assert len(costs) == 4
            assert others[method] == [pytest.approx(cost) for cost in costs]


async def test_a_turn_has_a_round_for_each_place() -> None:
    """The figures are those of rounds at different places, and a dearer service shows by its factor."""
    clock = count()
    services = [Alike(clock), Alike(clock, SendCode=1.1)]
    figures = await take_turns(services, turns=3, calls=10)
    assert len({cost["cpu"] for cost in services[0].rounds["SendMail"][2:]}) == 2
    ratios = {
        method: [b["cpu"] / a["cpu"] for a, b in zip(costs, figures[1][method], strict=True)]
        for method, costs in figures[0].items()
    }
    assert ratios["SendCode"] == [pytest.approx(1.1)] * 3
    assert ratios["SendMail"] == ratios["ValidateCode"] == [pytest.approx(1.0)] * 3
