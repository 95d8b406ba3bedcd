"""Reads the settings again when a supervisor is asked to, for the processes that it starts after that.

The running processes read them by themselves, and log what is wrong; see `otpmail.reload`.
"""

import asyncio
from contextlib import suppress
from functools import partial

from otpmail.settings import Settings, read_sources
from otpmail.settings.reload import reload
from otpmail.supervisor.supervisor import Supervisor
from otpmail.telemetry.logs import set_level
from otpmail.threads import call_detached

_READ_SECONDS = 30.0


async def reload_forever(supervisor: Supervisor, requested: asyncio.Event) -> None:
    """Reload whenever it is requested, until cancelled."""
    while True:
        await requested.wait()
        requested.clear()
        settings = supervisor.settings
        with suppress(TimeoutError, OSError):  # the processes meet it too, and log it
            settings = await call_detached(partial(_read, settings), timeout=_READ_SECONDS)
        set_level(settings.server.log_level)
        supervisor.reload(settings)


def _read(current: Settings) -> Settings:
    return reload(current, read_sources(), {}).settings
