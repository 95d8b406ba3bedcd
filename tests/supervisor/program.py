"""A process for tests of the supervisor: joins it as the service does, and then does what its arguments say.

It counts one `worked` for each line that it was told to log, and is ready once it has done so.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading

from prometheus_client import CollectorRegistry, Counter

from otpmail.probes import PATHS
from otpmail.supervisor.member import Member
from otpmail.web.binding import SharedDoor


class _Health:
    """The health of a service without a relay; the real one needs gRPC, which takes long to import."""

    problem = "no relay is up"

    async def changed(self) -> None:
        """Wait for ever."""
        await asyncio.Event().wait()

    def set_others(self, *, serve: bool) -> None:
        """Take note of nothing."""


class _App:
    """As much of the service as a member looks at."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.health = _Health()
        self.worked = Counter("worked", "Work.", registry=self.registry)


async def main(act: str, lines: int, length: int) -> int:
    """Do as told; returns the exit code."""
    member = await Member.join()
    number = member.portion.number
    if act == "fails":
        _write("it has failed")
        return 5
    app, stop = _App(), asyncio.Event()
    if act == "ends-on-term":  # as the service, which is ready only after that
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    tasks = [asyncio.create_task(member.run(app, stop=stop.set, reload=lambda: _write("reload")))]  # type: ignore[arg-type]  # all that it looks at
    for _ in range(lines):
        _write(str(number) * length)
        app.worked.inc()
    _write(f"level {member.settings.server.log_level}, {member.settings.mail.workers} workers")
    if member.door.sockets:
        await _serve_probes(member.door)
    member.ready()
    if act == "fails-later" and number > 1:
        return 3
    if act == "ignores-stop":
        await asyncio.Event().wait()
    if act == "blocks":
        signal.pause()
    if act == "hangs" and number > 1:
        threading.Event().wait()  # the loop stands still
    await stop.wait()
    _write("stops")
    for task in tasks:
        task.cancel()
    return 0


async def _serve_probes(door: SharedDoor) -> None:
    from otpmail.web.app import WebApp
    from otpmail.web.gate import Gate
    from otpmail.web.listener import Listener

    app = WebApp(dict.fromkeys(PATHS, door.probe), Gate(on_loopback=True), None)
    await Listener(app, most=100).serve(door.sockets, shared=True)


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    os._exit(asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:]))))
