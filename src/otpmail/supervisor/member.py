"""A process that a supervisor has started: its assignment, and its messages to the supervisor.

Its standard input is its end of the channel. When the supervisor ends, however that happens, so does the process: at
once, as if it had been killed with the supervisor. Others take up what a durable store has kept.
"""

import asyncio
import logging
import os
import select
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from otpmail.settings import Settings
from otpmail.settings.portions import Portion
from otpmail.supervisor.channel import Assignment, Channel
from otpmail.supervisor.merge import snapshot
from otpmail.threads import start_daemon

if TYPE_CHECKING:
    from otpmail.app import App

log = logging.getLogger("otpmail")
_STDIN = 0
_ABANDONED = 1


class Member:
    """A process as one of several, seen from inside."""

    def __init__(self, channel: Channel, assignment: Assignment) -> None:
        self._channel = channel
        self.portion: Portion = assignment.portion
        self.settings: Settings = assignment.portion.of_settings(assignment.settings)
        """The part of this process, with HOST and PORT as they are set."""
        held = {"hosts": assignment.hosts, "port": assignment.port}
        self.settings_on_held_port = replace(self.settings, server=self.settings.server.model_copy(update=held))
        """The same with the addresses that the supervisor holds, so that none is looked up or chosen again."""

    def __repr__(self) -> str:
        return f"<Member {self.portion.number} of {self.portion.count}>"

    @classmethod
    async def join(cls) -> Self:
        """Take the place that the supervisor has for this process, which ends from now on when the supervisor does."""
        start_daemon(_end_with_supervisor, "supervisor")
        channel = await Channel.over(socket.socket(fileno=os.dup(_STDIN)))
        assignment = await channel.receive_assignment()
        if assignment is None:
            os._exit(_ABANDONED)
        return cls(channel, assignment)

    def ready(self) -> None:
        """Tell the supervisor that this process listens."""
        self._channel.send({"ready": True})

    async def run(self, app: "App", *, stop: Callable[[], None], reload: Callable[[], None]) -> None:
        """Answer the supervisor and do what it asks, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._report_health(app))
            while (message := await self._channel.receive()) is not None:
                match message:
                    case {"tell": "metrics"}:
                        self._tell_metrics(app)
                    case {"others": others}:
                        app.health.set_others(serve=others)
                    case {"do": "stop"}:
                        app.health.set_others(serve=False)  # they stop too
                        stop()
                    case {"do": "reload"}:
                        reload()

    def _tell_metrics(self, app: "App") -> None:
        try:
            families = snapshot(app.registry)
        except Exception:  # an answer all the same, since the process goes on
            log.exception("the metrics can't be collected")
            families = []
        self._channel.send({"metrics": families})

    async def _report_health(self, app: "App") -> None:
        last = None
        while True:
            if app.health.problem != last:
                last = app.health.problem
                self._channel.send({"problem": last})
            await app.health.changed()


def _end_with_supervisor() -> None:
    """Wait for the other end of standard input to close, whatever the loop does meanwhile, and end the process."""
    poll = select.poll()
    poll.register(_STDIN, 0)  # POLLHUP is always reported
    poll.poll()
    os._exit(_ABANDONED)
