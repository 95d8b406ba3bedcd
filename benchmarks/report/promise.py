"""A promise: the bound that a benchmark holds one of its figures to."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """A bound on one figure: at most, or at least.

    A quick run is short and often disturbed. It widens the bound `margin` times, so that it fails only when the reason
    for the figure is lost. A `timed` figure is no ratio of two figures of one run, or a ratio of rates. It depends on
    the machine, and on what else that does, as much as on the code. So a quick run does not assert it.
    """

    what: str
    figure: float
    at_most: float | None = None
    at_least: float | None = None
    margin: float = 2.0
    timed: bool = False

    def kept(self, *, quick: bool = False) -> bool:
        """Whether the figure is within the bound."""
        if quick and self.timed:
            return True
        margin = self.margin if quick else 1.0
        below = self.at_most is None or self.figure <= self.at_most * margin
        return below and (self.at_least is None or self.figure >= self.at_least / margin)

    def __str__(self) -> str:
        bound = f"at most {self.at_most:g}" if self.at_most is not None else f"at least {self.at_least:g}"
        return f"{self.what}: {self.figure:.2f} ({bound}{'' if self.kept() else '; MISSED'})"
