"""The cost of several processes (PROCESSES), with a store on a server of Redis: the processor time of a call.

Rates of two processes beside one need a machine with processors for both, for the callers, the relay and the store. On
fewer they measure the machine. So each process gets the same few calls a second here, by the clock, and the processor
time of a call is compared. Where that is the same, two processes carry twice the calls of one, given processors.
"""

import asyncio
from statistics import median

from benchmarks.load.callers import offer
from benchmarks.peers.servers import Certificates, Server, service_of_processes
from benchmarks.report.promise import Promise
from benchmarks.report.results import Results

_WORKERS = 5  # for each process, as one ships with
_COUNTS = (1, 2)
_CALLS_A_SECOND = 300  # for each process: a tenth of a processor, so that two have room beside callers and relay
_CONNECTIONS = 8  # for each process


async def test_cost_by_processes(certificates: Certificates, results: Results, *, quick: bool) -> None:
    """A call takes two processes about the processor time that it takes one, where each has the same load."""
    seconds, rounds = (1.0, 1) if quick else (6.0, 3)
    rows = []
    for processes in _COUNTS:
        async with service_of_processes(certificates, processes, workers=_WORKERS * processes) as server:
            measured = [await _cost(server, processes, seconds, first) for first in range(rounds)]
            idle = await _idle(server, seconds)
        rows.append(
            {
                "processes": processes,
                "calls/s": median(rate for rate, _ in measured),
                "server us/call": median(cost for _, cost in measured),
                "idle, ms of a processor a second": idle * 1000,
                "settings": f"PROCESSES={processes} WORKERS={_WORKERS * processes}",
            }
        )
    one, two = (row["server us/call"] for row in rows)
    assert isinstance(one, float)
    assert isinstance(two, float)
    results.report(
        rows,
        Promise(what="CPU of a call, two processes beside one", figure=two / one, at_most=1.25),
        note=f"each process gets {_CALLS_A_SECOND} calls a second over {_CONNECTIONS} connections; "
        "a process that is idle counts, and so does the supervisor",
    )


async def _cost(server: Server, processes: int, seconds: float, first: int) -> tuple[float, float]:
    """Return the calls a second, and the processor time of one in microseconds, the supervisor's included."""
    connections = _CONNECTIONS * processes
    rate = _CALLS_A_SECOND * processes / connections
    before = server.process.cpu
    offered = await asyncio.gather(
        *(
            offer(server, "SendMail", rate=rate, seconds=seconds, first=first * connections + number)
            for number in range(connections)
        )
    )
    calls = sum(figures["calls"] for _, figures in offered)
    return sum(figures["rate"] for _, figures in offered), (server.process.cpu - before) / calls * 1e6


async def _idle(server: Server, seconds: float) -> float:
    before = server.process.cpu
    await asyncio.sleep(seconds)
    return (server.process.cpu - before) / seconds
