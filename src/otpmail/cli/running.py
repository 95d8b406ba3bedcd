"""Loads the settings and runs a service until a signal stops it; `serve` and `dev` share it."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Iterable, Mapping
from threading import Timer
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import typer

from otpmail.cli.output import EXIT_FAILED, EXIT_STORE, EXIT_USAGE, wrong_usage
from otpmail.cli.signals import Signals
from otpmail.errors import SettingsError, StoreError

if TYPE_CHECKING:
    from otpmail.app import App, Started
    from otpmail.delivery.suppressions import Spared
    from otpmail.reload import Reloader
    from otpmail.settings import Settings, Sources
    from otpmail.settings.doubts import Doubt
    from otpmail.supervisor.member import Member
    from otpmail.telemetry.logs import LogHandler
    from otpmail.web.binding import DevDoor

_END_SECONDS = 0.5
_INTERRUPTED = 128 + signal.SIGINT


def load_settings(sources: "Sources | None" = None, /, **fixed: str | None) -> "Settings":
    """Load all settings from `sources`, which are read now if there are none; those in `fixed`, by name, win.

    Raises typer.Exit with 2 after printing a line for each wrong setting.
    """
    from otpmail.settings import Settings

    try:
        return Settings.load(sources, **fixed)
    except SettingsError as error:
        raise wrong_usage(*error.problems) from None


def load_to_serve() -> "tuple[Settings, list[Doubt]]":
    """Load all settings for a service; returns what is set in vain, too.

    With LOG_FORMAT=json the lines about wrong settings are lines of a log, too. Raises typer.Exit with 2 after them.
    """
    from otpmail.settings import Settings, read_sources
    from otpmail.settings.doubts import doubts

    sources = read_sources()
    settings, problems = Settings.read(sources, {})
    lines = [problem.line for problem in problems]
    if not lines:
        return settings, list(doubts(settings, sources))
    if settings.server.log_format == "text":
        raise wrong_usage(*lines)
    from otpmail.telemetry.logs import set_up

    log = set_up(settings.server.log_format, settings.server.log_level)
    raise typer.Exit(write_refusal(log, SettingsError(*lines)))


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on uvloop, and print an error that ends it. The process ends soon after it.

    Raises typer.Exit: what the work raised, with 2 after a line for each setting found wrong, with 1 for other errors.
    """
    import uvloop

    uvloop.run(_ending(work))


async def _ending(work: Coroutine[Any, Any, None]) -> None:
    """Do the work, whose end is the end of the process."""
    code = EXIT_FAILED
    try:
        await work
        code = 0
    except typer.Exit as end:
        code = end.exit_code
        raise
    except SettingsError as error:
        code = EXIT_USAGE
        raise wrong_usage(*error.problems) from None
    except asyncio.CancelledError:  # Ctrl-C
        code = _INTERRUPTED
        raise
    except Exception as error:  # noqa: BLE001  it is written here, while there is time
        sys.excepthook(type(error), error, error.__traceback__)
        raise typer.Exit(code) from None
    finally:
        _end_soon(code)


async def run_service(
    settings: "Settings",
    signals: Signals,
    started: "Started" = lambda *_: None,
    fixed: Mapping[str, str | None] = MappingProxyType({}),
    *,
    member: "Member | None" = None,
    doubts: "Iterable[Doubt]" = (),
    dev: "DevDoor | None" = None,
    spared: "Spared | None" = None,
) -> None:
    """Run the service until a signal stops it (`Signals`), and call `started`.

    `fixed` are the settings that `settings` was loaded with in place of others. `member` is this process as one of
    several. `doubts` are settings to warn of. With `dev` HTTP_PORT is that of `otpmail dev`. No reply of a relay
    suppresses an address that is `spared`.

    Raises typer.Exit with 1 if the stop lost guaranteed mails, and with 5 if the store can't be opened. An error of
    what runs beside the service stops it, and is raised.
    """
    from otpmail.reload import Reloader
    from otpmail.settings.portions import WHOLE

    log = _prepare(settings, None if member is None else member.portion.number)
    warn_of(doubts)
    stop = asyncio.Event()
    try:
        app = _build(settings, member, dev, spared)
    except (SettingsError, StoreError) as error:
        raise typer.Exit(write_refusal(log, error)) from None
    reloader = Reloader(app, settings, fixed, WHOLE if member is None else member.portion)
    _attach(signals, app, stop, reloader, log)
    beside = [reloader.run()]
    if member is not None:
        beside.append(member.run(app, stop=stop.set, reload=reloader.request))
    try:
        await run_beside(_serve(app, stop, started, log), *beside)
    finally:
        signals.ignore_hangup()


def warn_of(doubts: "Iterable[Doubt]") -> None:
    """Log a warning for each setting in vain."""
    from otpmail.telemetry.logs import log_event

    for doubt in doubts:
        if doubt.is_unknown:
            log_event(logging.WARNING, "unknown-setting", doubt.line, setting=doubt.setting)
        else:
            log_event(logging.WARNING, "setting-without-effect", doubt.line, setting=doubt.setting)


def _prepare(settings: "Settings", number: int | None) -> "LogHandler":
    """Set up the log and the limits of this process, which has that number among several."""
    from otpmail.limits.descriptors import raise_limit
    from otpmail.limits.resident import return_large_blocks
    from otpmail.telemetry.logs import set_up

    log = set_up(settings.server.log_format, settings.server.log_level, process=number)
    raise_limit()
    return_large_blocks()
    return log


def _build(settings: "Settings", member: "Member | None", dev: "DevDoor | None", spared: "Spared | None") -> "App":
    from otpmail.address import load_library
    from otpmail.app import App

    load_library()
    if member is None:
        return App(settings, dev=dev, spared=spared)
    return App(member.settings_on_held_port, shared=member.door)


async def _serve(app: "App", stop: asyncio.Event, started: "Started", log: "LogHandler") -> int:
    """Run the service, write why it can't start, and return the exit code."""
    from otpmail.collector import spare_the_collector

    def ready(address: str, http_port: int | None) -> None:
        """Tell where the service listens, once the collector leaves its parts alone."""
        spare_the_collector()
        started(address, http_port)

    try:
        lost = await app.run(stop, started=ready)
    except (SettingsError, StoreError) as error:
        return write_refusal(log, error)
    return EXIT_FAILED if lost else 0


async def run_beside(service: Coroutine[Any, Any, int], *companions: Coroutine[Any, Any, None]) -> None:
    """Run a service with what belongs to it. Raises typer.Exit with its exit code, if that is not 0.

    A companion that fails cancels the service, and its error is raised: no service goes on without one.
    """
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(companion) for companion in companions]
        code = await service
        for companion in running:
            companion.cancel()
    if code:
        raise typer.Exit(code)


def write_refusal(log: "LogHandler", error: SettingsError | StoreError) -> int:
    """Write why the service can't start, a line for each reason; returns the exit code."""
    problems, code = (error.problems, EXIT_USAGE) if isinstance(error, SettingsError) else ((str(error),), EXIT_STORE)
    for problem in problems:
        log.refuse(problem)
    return code


def _end_soon(code: int) -> None:
    """End the process in a moment, unless it ends before: closing the loop waits for a resolver that is silent."""

    def end() -> None:
        """End the process with what was logged."""
        logging.shutdown()
        os._exit(code)

    timer = Timer(_END_SECONDS, end)
    timer.daemon = True
    timer.start()


def _attach(signals: Signals, app: "App", stop: asyncio.Event, reloader: "Reloader", log: "LogHandler") -> None:
    def give_up() -> None:
        """Log what is lost, before the process ends at once."""
        app.give_up()
        log.flush()

    signals.attach(asyncio.get_running_loop(), stop=stop.set, reload=reloader.request, give_up=give_up)
