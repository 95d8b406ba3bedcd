"""Loads the settings and runs a service until a signal stops it; `serve` and `dev` share it."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from otpmail.cli.output import wrong_usage
from otpmail.errors import SettingsError

if TYPE_CHECKING:
    from otpmail.app import App
    from otpmail.settings import Settings, Sources


def load_settings(sources: "Sources | None" = None, /, **fixed: str | None) -> "Settings":
    """Load all settings from `sources`, which are read now if there are none; those in `fixed`, by name, win.

    Raises typer.Exit with 2 after printing a line for each wrong setting.
    """
    from otpmail.settings import Settings

    try:
        return Settings.load(sources, **fixed)
    except SettingsError as error:
        raise wrong_usage(*error.problems) from None


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on uvloop. Raises typer.Exit with 2 after printing a line for each setting found wrong."""
    import uvloop

    try:
        uvloop.run(work)
    except SettingsError as error:
        raise wrong_usage(*error.problems) from None


async def run_service(settings: "Settings", started: Callable[[str], None] = lambda _: None) -> None:
    """Run the service until SIGTERM or SIGINT; a second signal ends the process. Calls `started` with the address."""
    from otpmail.app import App, spare_the_collector, stop_on_signals
    from otpmail.telemetry.logs import set_up

    set_up(settings.server.log_format, settings.server.log_level)
    app, stop = App(settings), asyncio.Event()
    stop_on_signals(stop, _at_once(app))

    def ready(address: str) -> None:
        spare_the_collector()
        started(address)

    await app.run(stop, started=ready)


def _at_once(app: "App") -> Callable[[int], None]:
    def end(exit_code: int) -> None:
        app.give_up()
        os._exit(exit_code)

    return end
