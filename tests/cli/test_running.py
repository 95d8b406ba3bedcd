"""The tasks beside a service: none of them can fail while the service goes on without it."""

from __future__ import annotations

import asyncio

import pytest
import typer

from otpmail.cli.running import run_beside


async def _fail() -> None:
    raise ValueError("boom")


async def _for_ever() -> None:
    await asyncio.Event().wait()


async def test_a_companion_that_fails_ends_the_service() -> None:
    """The service is cancelled, so that it can answer its callers, and the error of its companion is raised."""
    ended = []

    async def serve() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("in order")
        return 0

    with pytest.raises(ExceptionGroup) as caught:
        await run_beside(serve(), _for_ever(), _fail())
    assert caught.group_contains(ValueError, match="boom")
    assert ended == ["in order"]


async def test_companions_end_with_the_service() -> None:
    """A service that ends takes its companions with it, and its exit code is raised unless it is 0."""

    async def serve(code: int) -> int:
        return code

    await run_beside(serve(0), _for_ever())
    with pytest.raises(typer.Exit) as caught:
        await run_beside(serve(5), _for_ever())
    assert caught.value.exit_code == 5
