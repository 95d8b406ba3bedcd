"""A store that is down is asked again, at the pace that it asks for or that its caller sets."""

import asyncio

import pytest

from otpmail.errors import StoreError, Unavailable
from otpmail.store.patience import until_up


@pytest.mark.parametrize(("pause", "waits"), [(None, [3.0, 2.0, 1.0]), (0.25, [0.25] * 3)])
async def test_a_store_that_is_down_is_asked_again(
    pause: float | None, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step is taken until the store takes it, and returns what the store says; between two tries it waits."""
    left, slept = 3, list[float]()

    async def step() -> str:
        nonlocal left
        if left:
            left -= 1
            raise Unavailable("the store is down", retry_after=float(left + 1))
        return "taken"

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    assert await until_up(step, pause=pause) == "taken"
    assert slept == waits


async def test_another_error_is_the_caller_s() -> None:
    """A step that fails for another reason is not taken again."""
    tries = 0

    async def step() -> None:
        nonlocal tries
        tries += 1
        raise StoreError("a record is spoilt")

    with pytest.raises(StoreError):
        await until_up(step)
    assert tries == 1
