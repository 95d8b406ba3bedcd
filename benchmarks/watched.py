"""The service as `otpmail serve` runs it, which also says each second what it holds: memory, tasks, open files.

It says so in lines of JSON, between those of its log. Open files are told on Linux only.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from pathlib import Path

import uvloop

from benchmarks.memory import resident
from otpmail.app import App, stop_on_signals
from otpmail.settings import Settings
from otpmail.telemetry.logs import set_up


def held() -> dict[str, float]:
    """What this process holds now. Call it on the loop."""
    return {
        "at": time.monotonic(),
        "resident": resident(),
        "tasks": len(asyncio.all_tasks()),
        "files": len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0,
    }


async def watch(every: float) -> None:
    """Say what is held, until cancelled."""
    while True:
        await asyncio.sleep(every)
        print(json.dumps(held()), flush=True)


async def serve(every: float) -> None:
    """Serve until a signal, and watch."""
    settings = Settings.load()
    set_up(settings.server.log_format, settings.server.log_level)
    app, stop = App(settings), asyncio.Event()
    stop_on_signals(stop, os._exit)
    watching = asyncio.create_task(watch(every))
    await app.run(stop)
    watching.cancel()


def main() -> None:
    """Serve as the environment says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=float, default=1, help="seconds between two looks")
    uvloop.run(serve(parser.parse_args().every))


if __name__ == "__main__":
    main()
