"""Processes are started, started again, and stopped together. Real processes, which are small ones."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import subprocess
import urllib.error
import urllib.request
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from otpmail.supervisor.group import ProcessGroup
from otpmail.supervisor.process import Process
from supervisor.conftest import shared_settings

if TYPE_CHECKING:
    import pytest

    from supervisor.conftest import Supervised


def _ready(supervised: Supervised, count: int) -> bool:
    """Whether so many processes have been ready so far."""
    return len(supervised.events("process-ready")) >= count


async def _get(supervised: Supervised, path: str) -> tuple[int, str]:
    url = str(supervised.events("metrics")[0]["url"]).removesuffix("/metrics") + path

    def fetch() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(url, timeout=20) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return await asyncio.to_thread(fetch)


async def _samples(supervised: Supervised) -> dict[str, float]:
    _, text = await _get(supervised, "/metrics")
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")}


async def test_what_keeps_the_first_process_from_starting_ends_the_service(supervised: Supervised) -> None:
    """The first process starts alone: its exit code is the service's, and what it says is said once."""
    supervised.start("fails", settings=shared_settings())
    await supervised.until(supervised.running.done)
    assert await supervised.running == 5
    assert supervised.lines == ["it has failed"]
    assert len(supervised.events("process-started")) == 1
    assert supervised.events("stopped") == []


async def test_each_process_has_its_part_and_a_stop_reaches_all(supervised: Supervised) -> None:
    """All processes get their settings, and end together; their exit code 0 is the service's."""
    supervised.start("works", settings=shared_settings(WORKERS="5", PROCESSES="3"))
    await supervised.until(lambda: _ready(supervised, 3))
    await supervised.until(lambda: len(supervised.lines) == 3)
    assert sorted(supervised.lines) == ["level info, 1 workers", "level info, 2 workers", "level info, 2 workers"]
    assert await supervised.end() == 0
    assert supervised.events("stopped") == [{"exit_code": 0}]


async def test_a_killed_process_is_started_again(supervised: Supervised) -> None:
    """A process that was killed is named in the log with the signal, and is replaced; the others go on."""
    supervised.start("works", settings=shared_settings(), first_wait=0.01)
    await supervised.until(lambda: _ready(supervised, 2))
    started = supervised.events("process-started")
    os.kill(started[1]["pid"], signal.SIGKILL)
    await supervised.until(lambda: _ready(supervised, 3))
    os.kill(started[0]["pid"], signal.SIGRTMIN + 1)
    await supervised.until(lambda: _ready(supervised, 4))
    ended = [(line["process"], line["signal"]) for line in supervised.events("process-ended")]
    assert ended == [(2, "SIGKILL"), (1, f"signal {signal.SIGRTMIN + 1}")]
    assert [line["process"] for line in supervised.events("process-started")] == [1, 2, 2, 1]
    levels = {record.levelno for record in supervised.records if vars(record).get("event") == "process-ended"}
    assert levels == {logging.ERROR}
    assert await supervised.end() == 0


async def test_a_process_that_the_system_refuses_is_tried_again(
    supervised: Supervised, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that can't be started, as for want of memory, is tried again like one that has ended."""
    supervised.start("works", settings=shared_settings(), first_wait=0.01)
    await supervised.until(lambda: _ready(supervised, 2))
    start, refusals = subprocess.Popen, iter((OSError(errno.EAGAIN, "Resource temporarily unavailable"),))

    def refuse_once(*arguments: Any, **options: Any) -> Any:
        for refusal in refusals:
            raise refusal
        return start(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", refuse_once)
    os.kill(supervised.events("process-started")[0]["pid"], signal.SIGKILL)
    await supervised.until(lambda: _ready(supervised, 3))
    assert supervised.events("process-not-started") == [{"process": 1}]
    assert [line.get("exit_code") for line in supervised.events("process-ended")] == [None, 1]
    assert await supervised.end() == 0


async def test_a_process_that_fails_again_waits_longer(supervised: Supervised) -> None:
    """Each wait before a new start is about twice the one before; the exit code is in the log."""
    supervised.start("fails-later", settings=shared_settings(), first_wait=0.02)
    await supervised.until(lambda: len(supervised.events("process-ended")) >= 4)
    ended = supervised.events("process-ended")[:4]
    assert {(line["process"], line["exit_code"]) for line in ended} == {(2, 3)}
    for line, middle in zip(ended, (0.02, 0.04, 0.08, 0.16), strict=True):
        assert 0.79 * middle <= line["retry_after"] <= 1.21 * middle
    assert await supervised.end() == 0


async def test_a_process_that_does_not_stop_is_killed(supervised: Supervised) -> None:
    """After DRAIN_SECONDS and a grace a process that still runs is killed, and the service ends with 1."""
    supervised.start("ignores-stop", settings=shared_settings(DRAIN_SECONDS="0"), grace=0.2)
    await supervised.until(lambda: _ready(supervised, 2))
    assert await supervised.end() == 1
    assert {line["process"] for line in supervised.events("process-killed")} == {1, 2}


async def test_a_stop_comes_before_a_process_is_ready(supervised: Supervised) -> None:
    """A stop in the first moment, before any process has begun, ends the service with 0."""
    supervised.start("works", settings=shared_settings())
    assert await supervised.end() == 0
    assert len(supervised.events("process-started")) == 1


async def test_lines_of_processes_are_whole(supervised: Supervised) -> None:
    """Long lines that two processes write at once come out whole, each in one piece."""
    supervised.start("works", 300, 9_000, settings=shared_settings())
    await supervised.until(lambda: _ready(supervised, 2))
    await supervised.until(lambda: supervised.written("level ") == 2)
    long = [line for line in supervised.lines if len(line) > 1_000]
    assert sorted(set(long)) == ["1" * 9_000, "2" * 9_000]
    assert len(long) == 600


async def test_metrics_are_sums_that_never_fall(supervised: Supervised) -> None:
    """/metrics shows the sum of all processes, also of one that has ended since, and counts the new starts."""
    supervised.start("works", 5, settings=shared_settings(HTTP_PORT="0"), first_wait=0.01)
    await supervised.until(lambda: _ready(supervised, 2))
    samples = await _samples(supervised)
    assert (samples["worked_total"], samples["otpmail_processes"]) == (10, 2)
    assert samples["otpmail_process_restarts_total"] == 0
    os.kill(supervised.events("process-started")[0]["pid"], signal.SIGKILL)
    await supervised.until(lambda: _ready(supervised, 3))
    samples = await _samples(supervised)
    assert samples["worked_total"] == 15
    assert samples["otpmail_process_restarts_total"] == 1
    _, text = await _get(supervised, "/metrics?name[]=worked_total")
    assert [line for line in text.splitlines() if line[0] != "#"] == ["worked_total 15.0"]


async def test_probes_speak_for_all_processes(supervised: Supervised) -> None:
    """/readyz says why no process serves. /livez is 503 while a process that has started does not answer."""
    supervised.start("works", settings=shared_settings(HTTP_PORT="0"))
    await supervised.until(lambda: _ready(supervised, 2))
    assert await _get(supervised, "/livez") == (200, "live\n")
    async with asyncio.timeout(30):  # a process reports its problem behind that it is ready
        while "starting" in (answer := await _get(supervised, "/readyz"))[1]:
            pass
    assert answer == (503, "not ready: no relay is up\n")
    pid = supervised.events("process-started")[1]["pid"]
    os.kill(pid, signal.SIGSTOP)
    await supervised.until(lambda: bool(supervised.events("process-hangs")))
    assert await _get(supervised, "/livez") == (503, f"not live: process 2 (pid {pid}) does not answer\n")
    assert [line["process"] for line in supervised.events("process-hangs")] == [2]
    os.kill(pid, signal.SIGCONT)
    await supervised.until(lambda: bool(supervised.events("process-answers")))
    assert await _get(supervised, "/livez") == (200, "live\n")


_QUICK: dict[str, Any] = {"first_wait": 0.01, "look_seconds": 0.05, "answer_seconds": 0.2}
"""Looks often, so that a hung process is found within a moment."""


def _of_second(supervised: Supervised, event: str) -> list[dict[str, Any]]:
    """Return the lines of that event about the second process. On a busy machine the first one may be silent too."""
    return [line for line in supervised.events(event) if line["process"] == 2]


async def _suspend_second(supervised: Supervised, act: str, **settings: str) -> int:
    """Start two processes that do `act`, suspend the second one, and return its id."""
    supervised.start(act, settings=shared_settings(**settings), grace=0.5, **_QUICK)
    await supervised.until(lambda: bool(_of_second(supervised, "process-ready")))
    pid: int = _of_second(supervised, "process-started")[0]["pid"]
    os.kill(pid, signal.SIGSTOP)
    return pid


async def test_probes_that_come_together_find_no_hang(supervised: Supervised) -> None:
    """Processes that answer are live for each of many probes, whichever question its answer belongs to."""
    supervised.start("works", settings=shared_settings(HTTP_PORT="0"))
    await supervised.until(lambda: _ready(supervised, 2))

    async def poll() -> list[tuple[int, str]]:
        return [await _get(supervised, "/livez") for _ in range(20)]

    polled = await asyncio.gather(*(poll() for _ in range(8)))
    assert {answer for answers in polled for answer in answers} == {(200, "live\n")}
    assert supervised.events("process-hangs") == []
    assert await supervised.end() == 0


class _Asked:
    """A process that answers once it may."""

    number, pid, answers = 1, 1, True
    families: tuple[Any, ...] = ()

    def __init__(self) -> None:
        self.questions = 0
        self.may_answer = asyncio.Event()

    async def ask(self, _: float) -> None:
        """Count a question, and wait for its answer."""
        self.questions += 1
        await self.may_answer.wait()


async def test_scrapes_that_come_together_share_a_question() -> None:
    """Scrapes that come while a question runs are not answered by that one, and all share the next."""
    group, process = ProcessGroup(), _Asked()
    group.add(process)  # type: ignore[arg-type]  # all that the group looks at
    first = asyncio.create_task(group.refresh())
    await asyncio.sleep(0)
    others = [asyncio.create_task(group.refresh()) for _ in range(20)]
    await asyncio.sleep(0)
    process.may_answer.set()
    await asyncio.gather(first, *others)
    assert process.questions == 2
    await group.refresh()
    assert process.questions == 3


async def test_a_suspended_process_is_killed_once_it_is_silent_for_too_long(supervised: Supervised) -> None:
    """SIGSTOP for longer than PROCESS_HANG_SECONDS and a stop: SIGTERM, then SIGKILL, and another takes its place."""
    pid = await _suspend_second(supervised, "works", PROCESS_HANG_SECONDS="1", DRAIN_SECONDS="0")
    await supervised.until(lambda: len(_of_second(supervised, "process-ready")) > 1)
    for event in ("process-hangs", "process-stopped", "process-killed"):
        assert _of_second(supervised, event)[0] == {"process": 2, "pid": pid}, event
    assert _of_second(supervised, "process-ended")[0]["signal"] == "SIGKILL"
    assert await supervised.end() == 0


async def test_a_process_that_goes_on_in_time_stops_in_order(supervised: Supervised) -> None:
    """A process that goes on after its SIGTERM and before the SIGKILL ends by itself, and another takes its place."""
    pid = await _suspend_second(supervised, "ends-on-term", PROCESS_HANG_SECONDS="1")
    await supervised.until(lambda: bool(_of_second(supervised, "process-stopped")))
    os.kill(pid, signal.SIGCONT)
    await supervised.until(lambda: len(_of_second(supervised, "process-ready")) > 1)
    assert _of_second(supervised, "process-ended")[0].get("exit_code") == 0  # and no signal
    assert pid not in {line["pid"] for line in supervised.events("process-killed")}


async def test_a_loop_that_never_turns_is_a_hang(supervised: Supervised) -> None:
    """A process whose loop is blocked is ended too; SIGTERM does that where no handler of it waits for the loop."""
    supervised.start("hangs", settings=shared_settings(PROCESS_HANG_SECONDS="1"), **_QUICK)
    await supervised.until(lambda: bool(_of_second(supervised, "process-ended")))
    assert _of_second(supervised, "process-ended")[0]["signal"] == "SIGTERM"


async def test_without_a_limit_a_suspended_process_is_left_alone(supervised: Supervised) -> None:
    """With PROCESS_HANG_SECONDS=0, as for a debugger, a process that hangs is named and not ended."""
    pid = await _suspend_second(supervised, "works", PROCESS_HANG_SECONDS="0")
    await supervised.until(lambda: bool(_of_second(supervised, "process-hangs")))
    os.kill(pid, signal.SIGCONT)
    await supervised.until(lambda: bool(_of_second(supervised, "process-answers")))
    assert supervised.events("process-stopped") == []


async def test_a_process_that_says_what_nobody_understands_is_replaced(
    supervised: Supervised, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of ours in following one process is logged with its traceback. It ends that process, and no other."""
    take, faults = Process._take, iter((ValueError("boom"),))

    def fail_once(process: Process, message: dict[str, Any]) -> None:
        if process.number == 2:
            for fault in faults:
                raise fault
        take(process, message)

    monkeypatch.setattr(Process, "_take", fail_once)
    supervised.start("works", settings=shared_settings(), first_wait=0.01)
    await supervised.until(lambda: _ready(supervised, 2))
    assert [line["signal"] for line in supervised.events("process-ended")] == ["SIGKILL"]
    assert [line["process"] for line in supervised.events("process-started")] == [1, 2, 2]
    assert sum("boom" in str(record.exc_info) for record in supervised.records) == 1
    assert await supervised.end() == 0


async def test_a_part_of_the_supervisor_that_fails_stops_the_service(
    supervised: Supervised, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A supervisor that can't look at its processes any more stops them in order, logs why, and ends with 1."""
    supervised.start("works", settings=shared_settings(), **_QUICK)
    await supervised.until(lambda: _ready(supervised, 2))

    async def fail(_: ProcessGroup) -> None:
        raise ValueError("boom")

    monkeypatch.setattr(ProcessGroup, "refresh", fail)
    await supervised.until(supervised.running.done)
    assert await supervised.running == 1
    assert supervised.written("stops") == 2
    assert sum("boom" in str(record.exc_info) for record in supervised.records) == 1


async def test_a_supervisor_that_is_cancelled_stops_its_processes_in_order(supervised: Supervised) -> None:
    """A failure beside the supervisor, as of its reload, cancels it: the processes stop as at a signal."""
    supervised.start("works", settings=shared_settings())
    await supervised.until(lambda: _ready(supervised, 2))
    supervised.running.cancel()
    await supervised.until(supervised.running.done)
    assert supervised.written("stops") == 2


async def test_a_process_of_after_a_reload_has_the_new_settings(supervised: Supervised) -> None:
    """A reload reaches the processes that run, and those that are started after it."""
    settings = shared_settings()
    supervised.start("works", settings=settings, first_wait=0.01)
    await supervised.until(lambda: _ready(supervised, 2))
    server = settings.server.model_copy(update={"log_level": "warning"})
    supervised.supervisor.reload(replace(settings, server=server))
    await supervised.until(lambda: supervised.written("reload") == 2)
    os.kill(supervised.events("process-started")[0]["pid"], signal.SIGKILL)
    await supervised.until(lambda: supervised.written("level warning") == 1)


async def test_giving_up_ends_processes_that_block(supervised: Supervised) -> None:
    """A second signal ends all processes within a moment, even one whose loop never turns."""
    supervised.start("blocks", settings=shared_settings())
    await supervised.until(lambda: _ready(supervised, 2))
    supervised.stop.set()
    while "stopping" not in repr(supervised.supervisor):  # noqa: ASYNC110  an event is set some turns before
        await asyncio.sleep(0)
    await asyncio.to_thread(supervised.supervisor.give_up)
    assert await supervised.running == 1
