"""Fixtures for the tests of what both doors share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from otpmail.callers import ANONYMOUS, CALLER

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _nobody_calls() -> Iterator[None]:
    """Leave no caller behind for the next test: outside of a call, what a test calls sets one for the whole process."""
    token = CALLER.set(ANONYMOUS)
    yield
    CALLER.reset(token)
