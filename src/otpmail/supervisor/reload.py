"""Reads the settings again when a supervisor is asked to, for the processes that it starts after that.

The running processes read them by themselves, and log what is wrong; see `otpmail.reload`.
"""

import asyncio
import logging
from functools import partial

from otpmail.settings import Settings, read_sources
from otpmail.settings.reload import reload
from otpmail.supervisor.supervisor import Supervisor
from otpmail.telemetry.logs import set_level
from otpmail.threads import call_detached

_READ_SECONDS = 30.0
log = logging.getLogger("otpmail")


async def reload_forever(supervisor: Supervisor, requested: asyncio.Event) -> None:
    """Reload whenever it is requested, until cancelled. Settings that can't be read leave those before."""
    while True:
        await requested.wait()
        requested.clear()
        settings = supervisor.settings
        try:
            settings = await call_detached(partial(_read, settings), timeout=_READ_SECONDS)
        except (TimeoutError, OSError):
            pass  # the processes meet it too, and log it
        except Exception:
            log.exception("the reload failed; processes that start later get the settings before")
        set_level(settings.server.log_level)
        supervisor.reload(settings)


def _read(current: Settings) -> Settings:
    return reload(current, read_sources(), {}).settings
