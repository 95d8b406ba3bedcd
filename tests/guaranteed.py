"""Guaranteed mails by the name of their recipient: callers that send them, and what has arrived of them."""

from __future__ import annotations

import asyncio
import base64
import re
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc

from otpmail.v1 import mail_pb2, mail_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from redis_layouts import WatchedServers
    from redis_server import RedisServer
    from relay import CaughtMail
    from service import Service

KEYS = f"k1:{base64.b64encode(bytes(range(32))).decode()}"
"""OTP_KEYS, without which no durable store opens."""

_HAS_DETAILS = "grpc-status-details-bin"
_NOBODY = "ailed to connect"  # gRPC's words for a connection that nobody took


def sqlite_settings(path: Path) -> dict[str, Any]:
    """Return the settings of a service whose store is in the file `path`."""
    return {"STORE_URL": f"sqlite:{path}", "OTP_KEYS": KEYS}


def redis_settings(server: RedisServer | WatchedServers, *, lease: float = 2) -> dict[str, Any]:
    """Return the settings of replicas whose store is a server, in a namespace of their own."""
    return {
        "STORE_URL": server.url,
        "STORE_NAMESPACE": uuid4().hex,
        "STORE_LEASE_SECONDS": lease,
        "OTP_KEYS": KEYS,
    }


def request(name: str, **fields: Any) -> mail_pb2.SendMailRequest:
    """Return a request for a guaranteed mail to a person of that name, with these `fields`."""
    given: dict[str, Any] = {
        "to": [f"{name}@example.org"],
        "subject": name,
        "text": "t",
        "wait_for": mail_pb2.WAIT_FOR_QUEUE,
    }
    return mail_pb2.SendMailRequest(**given | fields)


async def send(service: Service, name: str, **fields: Any) -> mail_pb2.Mail:
    """Send the mail of `request`, and return the answer."""
    return (await service.mail.SendMail(request(name, **fields))).mail


def names(mails: Sequence[CaughtMail]) -> list[str]:
    """Return the names of the mails that a relay has, in the order of their arrival."""
    return [mail.recipients[0].partition("@")[0] for mail in mails]


def message_ids(mails: Sequence[CaughtMail]) -> dict[str, set[bytes]]:
    """Return the Message-IDs that have arrived, by name."""
    ids: dict[str, set[bytes]] = {}
    for name, mail in zip(names(mails), mails, strict=True):
        ids.setdefault(name, set()).update(re.findall(rb"(?im)^Message-ID: *(.*)\r$", mail.content))
    return ids


@dataclass
class Callers:
    """Callers that send guaranteed mails, one after the other each. `promised` are the ids of those that had an OK."""

    at_once: int = 64
    promised: dict[str, str] = field(default_factory=dict)
    refused: int = 0
    _numbers: Iterator[int] = field(default_factory=count)

    async def run(self, service: Service, *, stop: asyncio.Event | None = None, **fields: Any) -> None:
        """Send until the service is gone, or until `stop` is set: refused callers go on then."""

        async def caller() -> None:
            while stop is None or not stop.is_set():
                name = f"p{next(self._numbers)}"
                try:
                    self.promised[name] = (await send(service, name, **fields)).id
                except grpc.aio.AioRpcError:
                    if stop is None:
                        return
                    self.refused += 1
                    await asyncio.sleep(0.05)

        await asyncio.gather(*(caller() for _ in range(self.at_once)))

    async def wait_for_promises(self, total: int, *, timeout: float = 60) -> None:
        """Return once that many mails have been promised."""
        async with asyncio.timeout(timeout):
            while len(self.promised) < total:  # noqa: ASYNC110  each answer counts
                await asyncio.sleep(0.001)


@dataclass
class LastCalls:
    """Callers that each call until they are refused once, over connections of their own or one of all.

    `promised` are the names of mails that had an OK, `refusals` the errors that ended the callers.
    """

    promised: set[str] = field(default_factory=set)
    refusals: list[grpc.aio.AioRpcError] = field(default_factory=list)

    async def run(self, service: Service, *, connections: int, at_once: int = 64) -> None:
        """Send mails, half of which wait for the relay, until every caller was refused."""
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
        async with AsyncExitStack() as stack:
            channels = [
                await stack.enter_async_context(grpc.aio.insecure_channel(service.address, options))
                for _ in range(connections)
            ]
            await asyncio.gather(*(self._call(number, channels[number % connections]) for number in range(at_once)))

    async def wait_for_promises(self, total: int, *, timeout: float = 60) -> None:
        """Return once that many mails have been promised."""
        async with asyncio.timeout(timeout):
            while len(self.promised) < total:  # noqa: ASYNC110  each answer counts
                await asyncio.sleep(0.001)

    def unanswered(self) -> list[str]:
        """Return the refusals that tell their caller neither when to call again nor that no server was there."""
        return [
            f"{error.code().name}: {error.details()}"
            for error in self.refusals
            if error.code() is not grpc.StatusCode.UNAVAILABLE
            or not (_HAS_DETAILS in dict(error.trailing_metadata() or ()) or _NOBODY in str(error.details()))
        ]

    async def _call(self, number: int, channel: grpc.aio.Channel) -> None:
        stub: Any = mail_pb2_grpc.MailServiceStub(channel)
        wait_for = mail_pb2.WAIT_FOR_QUEUE if number % 2 else mail_pb2.WAIT_FOR_RELAY
        for name in (f"p{number}-{call}" for call in count()):
            try:
                await stub.SendMail(request(name, wait_for=wait_for))
            except grpc.aio.AioRpcError as error:
                self.refusals.append(error)
                return
            self.promised.add(name)


class Copies:
    """How often each mail has arrived: `lost` are promised and have not, `extra` are second copies."""

    def __init__(self, promised: Collection[str], arrived: Sequence[CaughtMail]) -> None:
        """Compare what was promised with what has arrived."""
        self.counts = Counter(names(arrived))
        self.promised = set(promised)
        self.lost = self.promised - self.counts.keys()
        self.extra = sum(self.counts.values()) - len(self.counts)

    def __str__(self) -> str:
        """Return the figures for a person."""
        unpromised = len(self.counts.keys() - self.promised)
        return (
            f"{len(self.promised)} promised, {len(self.lost)} lost, {self.extra} second copies, "
            f"{unpromised} sent unpromised"
        )
