"""Long queues of guaranteed mails: a stream that fills one, and a relay that notes little of each mail."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from guaranteed import request
from otpmail.v1 import mail_pb2
from relay import Relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from relay import CaughtMail, Command
    from service import Service

_BATCH = 100


class CountingRelay(Relay):
    """A relay that keeps the names of the mails in the order of their arrival, and nothing else of them."""

    def __init__(self) -> None:
        """Listen nowhere yet."""
        super().__init__()
        self.names: list[str] = []

    def catch(self, mail: CaughtMail) -> None:
        """Keep the name."""
        self.names.append(mail.recipients[0].partition("@")[0])
        self.notify_waiters()

    def record(self, command: Command) -> None:
        """Keep nothing."""

    async def wait_for_names(self, count: int, timeout: float) -> None:
        """Return once so many mails have arrived."""
        await self._wait(lambda: len(self.names) >= count, f"{count} mails", timeout)


async def fill(service: Service, names: Iterable[str]) -> int:
    """Send guaranteed mails in batches over a stream, and return how many the service has accepted."""
    remaining = iter(names)

    async def batches() -> AsyncIterator[mail_pb2.SendMailsRequest]:
        while some := list(islice(remaining, _BATCH)):
            yield mail_pb2.SendMailsRequest(mails=[request(name, request_id=name) for name in some])

    accepted = 0
    async for response in service.mail.SendMails(batches()):
        accepted += sum(not result.code for result in response.results)
    return accepted


def processor_seconds(service: Service) -> float:
    """Return the processor time that the process has taken, which other processes do not add to."""
    fields = Path(f"/proc/{service.pid}/stat").read_text("ascii").rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(service: Service) -> int:
    """Return the octets that the process has resident now."""
    lines = Path(f"/proc/{service.pid}/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS"))
