"""A process as one of several, and what it asks its supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any, cast

import pytest

from otpmail.probes import Request, Response
from otpmail.settings.portions import portions
from otpmail.supervisor.channel import Assignment, Channel, pack_response
from otpmail.supervisor.member import Member
from supervisor.conftest import shared_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from otpmail.app import App

_LIVE = Request("GET", "/livez", "verbose", {"accept": "text/plain", "authorization": "Bearer of-a-caller"})


class _Health:
    problem = ""

    async def changed(self) -> None:
        """Wait for ever."""
        await asyncio.Event().wait()


class _App:
    health = _Health()


@contextlib.asynccontextmanager
async def _ends(answer_seconds: float) -> AsyncIterator[tuple[Member, Channel]]:
    """Make a member whose supervisor has that time to answer, and the supervisor's end of the channel."""
    ours, theirs = socket.socketpair()
    channel, supervisor = await Channel.over(ours), await Channel.over(theirs)
    assignment = Assignment(next(portions(2)), shared_settings(), (), 0, ())
    member = Member(channel, assignment, answer_seconds=answer_seconds)
    app = cast("App", _App())
    running = asyncio.create_task(member.run(app, stop=lambda: None, reload=lambda: None))
    assert await supervisor.receive() == {"problem": ""}
    yield member, supervisor
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    channel.close()
    supervisor.close()


@pytest.mark.usefixtures("empty_directory")
async def test_a_probe_gets_what_the_supervisor_answers() -> None:
    """The supervisor learns what the answer depends on, and no token; answers find their questions in any order."""
    async with _ends(answer_seconds=60) as (member, supervisor):
        asked = [asyncio.create_task(member.answer(_LIVE)) for _ in range(2)]
        messages: list[Any] = [await supervisor.receive(), await supervisor.receive()]
        sent = {"method": "GET", "path": "/livez", "query": "verbose", "headers": {"accept": "text/plain"}}
        assert [message["request"] for message in messages] == [sent, sent]
        answers = [Response(200, bytes(range(256)), (("Content-Type", "x"),)), Response(503, b"")]
        for message, answer in reversed(list(zip(messages, answers, strict=True))):
            supervisor.send({"probed": message["probe"], "response": pack_response(answer)})
        assert await asyncio.gather(*asked) == answers


@pytest.mark.usefixtures("empty_directory")
async def test_a_supervisor_that_hangs_is_not_ready_nor_live() -> None:
    """A probe is answered 503 after a time. An answer that comes later is for nobody, and the next one is taken."""
    async with _ends(answer_seconds=0.2) as (member, supervisor), asyncio.timeout(60):
        answer = await member.answer(_LIVE)
        assert answer.status == 503
        late: Any = await supervisor.receive()
        while answer.status == 503:  # a busy machine may take that time for the next answer too
            asked = asyncio.create_task(member.answer(_LIVE))
            message: Any = await supervisor.receive()
            supervisor.send({"probed": late["probe"], "response": pack_response(Response(200, b"late"))})
            supervisor.send({"probed": message["probe"], "response": pack_response(Response(200, b"live"))})
            answer = await asked
        assert answer.body == b"live"


async def test_no_program_gets_the_sockets_of_a_process() -> None:
    """A process that was started with sockets passes them on to no program that it starts itself."""
    ours, theirs = socket.socketpair()
    channel = await Channel.over(ours)
    with socket.create_server(("127.0.0.1", 0)) as opened:
        descriptor = os.dup(opened.fileno())
        os.set_inheritable(descriptor, True)  # noqa: FBT003  the signature of os
        member = Member(channel, Assignment(next(portions(2)), shared_settings(), (), 0, (descriptor,)))
        (taken,) = member.door.sockets
        assert taken.getsockname() == opened.getsockname()
        assert not taken.get_inheritable()
        taken.close()
    channel.close()
    theirs.close()
