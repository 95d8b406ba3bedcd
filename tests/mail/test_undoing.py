"""Counts are taken back behind the call: a fault is logged, and a stop leaves no task behind."""

import asyncio
import logging

import pytest

from otpmail.errors import StoreError, Unavailable
from otpmail.mail.undoing import Undoing


@pytest.mark.parametrize("fault", [StoreError("a record is spoilt"), RuntimeError("a mistake")])
async def test_a_fault_is_logged(fault: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """A fault while something is undone reaches the log once, and no call that waits for the task."""
    undoing = Undoing()

    async def undo() -> None:
        raise fault

    async def outer() -> None:
        await undoing.begin(undo)

    with caplog.at_level(logging.ERROR, "otpmail"):
        await undoing.run(undo)
        await undoing.own(outer())
    assert [(one.__dict__["event"], str(fault) in one.message) for one in caplog.records] == [
        ("store-change-dropped", True)
    ] * 2
    assert repr(undoing) == "<Undoing 0 decisions>"


async def test_a_stop_ends_what_takes_longer() -> None:
    """A stop waits for the end of the tasks that it has cancelled, and leaves none."""
    undoing, ended = Undoing(), 0

    async def undo() -> None:
        nonlocal ended
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended += 1

    undoing.begin(undo)
    await undoing.close(0.01)
    assert (ended, repr(undoing)) == (1, "<Undoing 0 decisions>")


async def test_a_store_that_is_down_is_asked_again() -> None:
    """A change that a store does not take yet is asked for again, and is in the store then."""
    undoing, tries = Undoing(), 0

    async def undo() -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise Unavailable("the store is down", retry_after=0.001)

    await undoing.run(undo)
    assert (tries, repr(undoing)) == (3, "<Undoing 0 decisions>")
