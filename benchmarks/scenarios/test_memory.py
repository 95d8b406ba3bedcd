"""The service's resident memory that waiting mails, running calls, remembered mails and idle connections take."""

from __future__ import annotations  # generated stubs name types that exist for the type checker alone

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import grpc.aio

from benchmarks.load.sample_mail import SUBJECT, text_of
from benchmarks.peers.servers import Certificates, Server, relay, service
from benchmarks.report.promise import Promise
from benchmarks.report.results import Results
from otpmail.v1 import mail_pb2, mail_pb2_grpc

_HOUR_MS = 3_600_000  # the relay takes that long over each mail, so that mails only gather
_SMALL, _LARGE, _PEOPLE = 1_000, 10_000_000, 20
_AT_ONCE = 50

Add = Callable[[Server, int, AsyncExitStack], Awaitable[None]]
"""Adds so many of something; what has to stay open is closed with the stack."""


@dataclass(frozen=True, slots=True)
class Case:
    """Something that `add` makes `count` times; each may take `most` octets. `settles`: the relay takes the mails."""

    name: str
    add: Add
    count: int
    most: int
    settles: bool = False


def _request(number: int, size: int, people: int, *, wait: bool) -> mail_pb2.SendMailRequest:
    return mail_pb2.SendMailRequest(
        to=[f"person.{number}.{person}@example.org" for person in range(people)],
        subject=SUBJECT,
        text=text_of(size),
        wait_for=mail_pb2.WAIT_FOR_RELAY if wait else mail_pb2.WAIT_FOR_QUEUE,
    )


@asynccontextmanager
async def _mails(server: Server) -> AsyncIterator[mail_pb2_grpc.MailServiceAsyncStub]:
    async with grpc.aio.insecure_channel(server.address, (("grpc.use_local_subchannel_pool", 1),)) as channel:
        await channel.channel_ready()
        yield mail_pb2_grpc.MailServiceStub(channel)


def _accepting(size: int, people: int = 1, *, wait: bool = False) -> Add:
    """Mails of that size, one for each number, whose calls are answered."""

    async def add(server: Server, count: int, stack: AsyncExitStack) -> None:
        del stack  # nothing stays open
        async with _mails(server) as mails:
            numbers = iter(range(count))

            async def caller() -> None:
                for number in numbers:
                    await mails.SendMail(_request(number, size, people, wait=wait))

            async with asyncio.TaskGroup() as callers:
                for _ in range(min(_AT_ONCE, count)):
                    callers.create_task(caller())

    return add


async def _calls(server: Server, count: int, stack: AsyncExitStack) -> None:
    """Make so many calls that wait for the relay, and return once the service has the mails of all of them."""
    mails = await stack.enter_async_context(_mails(server))
    calls = [mails.SendMail(_request(number, _SMALL, 1, wait=True)) for number in range(count)]
    stack.callback(lambda: [call.cancel() for call in calls])
    listing = mail_pb2.ListMailsRequest(page_size=1000)
    while len((await mails.ListMails(listing)).mails) < count:  # noqa: ASYNC110 -- nothing says when all are there
        await asyncio.sleep(0.05)


async def _connections(server: Server, count: int, stack: AsyncExitStack) -> None:
    """Open so many connections, each of which has had a call."""
    for _ in range(count):
        mails = await stack.enter_async_context(_mails(server))
        await mails.ListMails(mail_pb2.ListMailsRequest(page_size=1))


def _cases(*, quick: bool) -> list[Case]:
    part = 10 if quick else 1
    return [
        Case("a small mail that waits", _accepting(_SMALL), 4_000 // part, 6_000),
        Case("a mail for 20 that waits", _accepting(_SMALL, _PEOPLE), 2_000 // part, 14_000),
        Case("a mail of 10 MB that waits", _accepting(_LARGE), 10, 13_000_000),
        Case("a call that waits, with its mail", _calls, 1_000 // part, 35_000),
        Case("a settled mail that is remembered", _accepting(_SMALL, wait=True), 20_000 // part, 1_200, settles=True),
        Case("an idle connection", _connections, 500 // part, 30_000),
    ]


async def _measure(certificates: Certificates, case: Case) -> dict[str, object]:
    """Add a tenth first, so that what the first ones make once does not count, and then all of them."""
    arguments = () if case.settles else ("--accept", _HOUR_MS)
    async with relay(certificates, *arguments) as at, service(at) as server, AsyncExitStack() as stack:
        await case.add(server, case.count // 10, stack)
        before = server.process.resident
        await case.add(server, case.count, stack)
        each = (server.process.resident - before) / case.count
    return {"what": case.name, "how many": case.count, "octets each": each, "MiB before": before / (1 << 20)}


async def test_memory_by_what_takes_it(certificates: Certificates, results: Results, *, quick: bool) -> None:
    """Nothing takes much more of the resident memory than what the budget counts for it."""
    cases = _cases(quick=quick)
    rows = [await _measure(certificates, case) for case in cases]
    results.report(
        rows,
        *(
            Promise(what=f"octets of {case.name}", figure=float(str(row["octets each"])), at_most=case.most, margin=3)
            for case, row in zip(cases, rows, strict=True)
        ),
    )
