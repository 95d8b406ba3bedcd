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
from http import HTTPStatus
from itertools import count
from typing import TYPE_CHECKING, Self

from otpmail.probes import Request, Response
from otpmail.settings import Settings
from otpmail.settings.portions import Portion
from otpmail.supervisor.channel import Assignment, Channel, pack_request, unpack_response
from otpmail.supervisor.merge import snapshot
from otpmail.threads import start_daemon
from otpmail.web.binding import SharedDoor

if TYPE_CHECKING:
    from otpmail.app import App

log = logging.getLogger("otpmail")
_STDIN = 0
_ABANDONED = 1
_ANSWER_SECONDS = 8.0  # more than two questions to a process that hangs, one after the other
_SILENT = Response(
    HTTPStatus.SERVICE_UNAVAILABLE, b"the supervisor does not answer\n", (("Cache-Control", "no-store"),)
)


class Member:
    """A process as one of several, seen from inside. Its supervisor has `answer_seconds` to answer a probe."""

    def __init__(self, channel: Channel, assignment: Assignment, *, answer_seconds: float = _ANSWER_SECONDS) -> None:
        self._channel = channel
        self._answer_seconds = answer_seconds
        self.portion: Portion = assignment.portion
        self.settings: Settings = assignment.portion.of_settings(assignment.settings)
        """The part of this process, with HOST and PORT as they are set."""
        held = {"hosts": assignment.hosts, "port": assignment.port}
        self.door = SharedDoor(tuple(map(_adopt, assignment.http)), self.answer)
        """HTTP_PORT, which the supervisor has opened."""
        self._numbers = count()
        self._asked: dict[int, asyncio.Future[Response]] = {}  # requests that the supervisor has not answered
        self.settings_on_held_port = replace(self.settings, server=self.settings.server.model_copy(update=held))
        """`settings` with the addresses that the supervisor holds, so that none is looked up or chosen again."""

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

    async def answer(self, request: Request) -> Response:
        """Answer a request for /metrics, /livez or /readyz as the supervisor does, which knows all processes."""
        number = next(self._numbers)
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        self._channel.send({"probe": number, "request": pack_request(request)})
        try:
            async with asyncio.timeout(self._answer_seconds):
                return await answer
        except TimeoutError:
            return _SILENT
        finally:
            del self._asked[number]

    async def run(self, app: "App", *, stop: Callable[[], None], reload: Callable[[], None]) -> None:
        """Answer the supervisor and do what it asks, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._report_health(app))
            while (message := await self._channel.receive()) is not None:
                match message:
                    case {"probed": number, "response": response}:
                        self._take_response(number, unpack_response(response))
                    case {"tell": "metrics"}:
                        self._tell_metrics(app)
                    case {"others": others}:
                        app.health.set_others(serve=others)
                    case {"do": "stop"}:
                        app.health.set_others(serve=False)  # they stop too
                        stop()
                    case {"do": "reload"}:
                        reload()

    def _take_response(self, number: int, response: Response) -> None:
        """Pass on an answer, unless it comes too late."""
        answer = self._asked.get(number)
        if answer is not None and not answer.done():
            answer.set_result(response)

    def _tell_metrics(self, app: "App") -> None:
        try:
            families = [] if app.registry is None else snapshot(app.registry)
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


def _adopt(descriptor: int) -> socket.socket:
    """Return the socket of a descriptor that this process was started with. No program that it starts gets it."""
    os.set_inheritable(descriptor, False)  # noqa: FBT003  the signature of os
    return socket.socket(fileno=descriptor)


def _end_with_supervisor() -> None:
    """Wait for the other end of standard input to close, whatever the loop does meanwhile, and end the process."""
    poll = select.poll()
    poll.register(_STDIN, 0)  # POLLHUP is always reported
    poll.poll()
    os._exit(_ABANDONED)
