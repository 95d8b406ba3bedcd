"""Callers of `otpmail.v1.MailService/SendMails`: streams that keep so many mails unsettled, in batches of one size.

Each mail has a request_id and must get exactly one result, RELAYED. With `--wait-for-queue` it may be on its way still.
"""

from __future__ import annotations  # generated stubs name types that exist for the type checker alone

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator
from itertools import count, islice

import grpc.aio
import uvloop

from benchmarks.load.sample_mail import SUBJECT, recipient, text
from otpmail.v1 import mail_pb2, mail_pb2_grpc

_ON_ITS_WAY = (mail_pb2.Mail.STATE_QUEUED, mail_pb2.Mail.STATE_SENDING)


def sample(
    number: int, request_id: str, wait_for: mail_pb2.WaitFor.ValueType = mail_pb2.WAIT_FOR_RELAY
) -> mail_pb2.SendMailRequest:
    """The request for the mail with this number."""
    return mail_pb2.SendMailRequest(
        to=[recipient(number)], subject=SUBJECT, text=text(number), request_id=request_id, wait_for=wait_for
    )


class Stream:
    """One call of SendMails: the mails without a result, and the times of the others."""

    def __init__(self, name: str, batch: int, unsettled: int, wait_for: mail_pb2.WaitFor.ValueType) -> None:
        self._name = name
        self._batch = batch
        self._limit = max(2 * batch, unsettled)
        self._wait_for = wait_for
        self._good = {mail_pb2.Mail.STATE_RELAYED}
        if wait_for == mail_pb2.WAIT_FOR_QUEUE:
            self._good.update(_ON_ITS_WAY)
        self._open: dict[str, float] = {}  # request_id: when it was sent
        self._progress = asyncio.Event()
        self.settled: list[tuple[float, int]] = []  # when results came, and how many
        self.took: list[float] = []  # how long each mail took

    def __repr__(self) -> str:
        return f"<Stream {self._name} {len(self._open)} unsettled>"

    async def run(self, mails: mail_pb2_grpc.MailServiceAsyncStub, ends: float) -> None:
        """Send until `ends`, and read until every mail has a result."""
        async for answer in mails.SendMails(self._batches(ends)):
            now = time.monotonic()
            for result in answer.results:
                self._note(result, now)
            self.settled.append((now, len(answer.results)))
            self._progress.set()
        if self._open:
            raise RuntimeError(f"{self!r}: the stream ended before these had results")

    def _note(self, result: mail_pb2.SendMailsResponse.Result, now: float) -> None:
        sent = self._open.pop(result.request_id, None)
        if sent is None:
            raise RuntimeError(f"a result without a mail: {result}")
        if result.mail.state not in self._good:
            raise RuntimeError(f"a mail is not well: {result}")
        self.took.append(now - sent)

    async def _batches(self, ends: float) -> AsyncIterator[mail_pb2.SendMailsRequest]:
        numbers = count()
        while (now := time.monotonic()) < ends:
            if len(self._open) + self._batch > self._limit:
                self._progress.clear()
                await self._progress.wait()
                continue
            batch = [
                sample(number, f"{self._name}-{number}", self._wait_for) for number in islice(numbers, self._batch)
            ]
            self._open.update((mail.request_id, now) for mail in batch)
            yield mail_pb2.SendMailsRequest(mails=batch)


async def measure(given: argparse.Namespace) -> dict[str, object]:
    """Send on all streams, and return the figures of the measured time; `calls` counts all mails."""
    async with grpc.aio.insecure_channel(given.address) as channel:
        mails: mail_pb2_grpc.MailServiceAsyncStub = mail_pb2_grpc.MailServiceStub(channel)
        cpu, began = time.process_time(), time.monotonic()
        starts, ends = began + given.warm, began + given.warm + given.seconds
        wait_for = mail_pb2.WAIT_FOR_QUEUE if given.wait_for_queue else mail_pb2.WAIT_FOR_RELAY
        streams = [
            Stream(f"{given.name}-{place}", given.batch, given.unsettled, wait_for) for place in range(given.streams)
        ]
        await asyncio.gather(*(stream.run(mails, ends) for stream in streams))
        cpu = time.process_time() - cpu
        cores = cpu / (time.monotonic() - began)
    results = [result for stream in streams for result in stream.settled]
    took = sorted(took for stream in streams for took in stream.took)
    return {
        "calls": sum(settled for _, settled in results),
        "rate": sum(settled for at, settled in results if starts <= at < ends) / given.seconds,
        "p50_ms": took[len(took) // 2] * 1000,
        "p99_ms": took[int(len(took) * 0.99)] * 1000,
        "cpu": cpu,
        "cores": cores,
    }


def main() -> None:
    """Send, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--name", required=True, help="the prefix of request ids")
    parser.add_argument("--streams", type=int, default=2)
    parser.add_argument("--batch", type=int, default=100, help="mails in one message")
    parser.add_argument(
        "--unsettled", type=int, default=400, help="mails of a stream that wait for results; at least two batches"
    )
    parser.add_argument("--wait-for-queue", action="store_true", help="a result comes once a mail is accepted")
    parser.add_argument("--warm", type=float, default=1, help="seconds")
    parser.add_argument("--seconds", type=float, default=5)
    print(json.dumps(uvloop.run(measure(parser.parse_args()))), flush=True)


if __name__ == "__main__":
    main()
