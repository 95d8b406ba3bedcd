"""The service as `otpmail serve` runs it, with what a benchmark adds: a report of its state, another batch window.

With `--report` it prints each so many seconds a line of JSON between those of its log. The line has memory, tasks and,
on Linux, open files. `--batch-seconds` is the longest that it holds unary calls back under load.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import time
from pathlib import Path

import uvloop

from benchmarks.memory import resident
from otpmail.api.batching import MOST_SECONDS
from otpmail.app import App
from otpmail.cli.signals import Signals
from otpmail.collector import spare_the_collector
from otpmail.limits.descriptors import raise_limit
from otpmail.limits.resident import return_large_blocks
from otpmail.settings import Settings
from otpmail.telemetry.logs import set_up


def state() -> dict[str, float]:
    """Return what this process holds now. Call it on the loop."""
    return {
        "at": time.monotonic(),
        "resident": resident(),
        "tasks": len(asyncio.all_tasks()),
        "files": len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0,
    }


async def report(every: float) -> None:
    """Print the state each `every` seconds, until cancelled."""
    while True:
        await asyncio.sleep(every)
        print(json.dumps(state()), flush=True)


async def serve(every: float, batch_seconds: float) -> None:
    """Serve until a signal; report where `every` is not 0."""
    raise_limit()
    return_large_blocks()
    settings = Settings.load()
    set_up(settings.server.log_format, settings.server.log_level)
    app, stop = App(settings, batch_seconds=batch_seconds), asyncio.Event()
    Signals(hangup_stops=True).attach(asyncio.get_running_loop(), stop=stop.set, reload=stop.set, give_up=lambda: None)
    reporting = asyncio.create_task(report(every)) if every else None
    await app.run(stop, started=lambda *_: spare_the_collector())
    if reporting is not None:
        reporting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reporting


def main() -> None:
    """Serve with the settings of the environment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", type=float, default=0, help="seconds between two reports; 0 prints none")
    parser.add_argument("--batch-seconds", type=float, default=MOST_SECONDS)
    given = parser.parse_args()
    uvloop.run(serve(given.report, given.batch_seconds))


if __name__ == "__main__":
    main()
