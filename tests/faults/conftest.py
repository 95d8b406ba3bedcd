"""Prints what a fault has cost, also where its test passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def show(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print a line of figures behind the name of the test."""

    def print_line(figures: str) -> None:
        with capsys.disabled():
            print(f"\n{request.node.name}: {figures}")  # noqa: T201  the figures are what it is run for

    return print_line
