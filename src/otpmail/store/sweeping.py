"""Drops ended records of a durable store again and again, also where one sweep fails."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from otpmail.errors import Unavailable

_log = logging.getLogger("otpmail")


async def sweep_forever(sweep: Callable[[], Awaitable[object]], every: float) -> None:
    """Call `sweep` each `every` seconds until cancelled. A sweep that fails ends nothing else, and is logged.

    Sweeps while the store is down are not logged, since the log has that already.
    """
    while True:
        await asyncio.sleep(every)
        try:
            await sweep()
        except Unavailable:
            continue
        except Exception as error:  # noqa: BLE001  mails must go on where old ones can't be forgotten
            text = "ended records can't be dropped from the store: %s"
            _log.error(text, error, exc_info=error, extra={"event": "store-unswept", "fields": {}})
