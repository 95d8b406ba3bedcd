"""All kinds of calls at once, at a moderate rate and for long, before a relay that refuses some mails and says 421.

It counts the outcomes. Any outcome that this relay does not explain is an error, and so is a call without an answer.
"""

from __future__ import annotations  # generated stubs name types that exist for the type checker alone

import argparse
import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count, cycle, islice

import grpc.aio
import uvloop

from benchmarks.load.batches import sample
from benchmarks.load.calls import holder, request
from otpmail.original import mail_pb2_grpc as original_grpc
from otpmail.v1 import mail_pb2, mail_pb2_grpc, otp_pb2, otp_pb2_grpc

_HOLDERS = 5000  # addresses, each of which gets many codes
_MAILS_CALLERS = 8
_CODE_CALLERS = 8
_PAUSE_SECONDS = 0.02  # of each caller between two calls
_BATCH = 20
_REPEATED = 1000
_REFUSED = grpc.StatusCode.FAILED_PRECONDITION
_TIMEOUT_SECONDS = 60.0


class Mixed:
    """The callers, and the outcomes of their calls."""

    def __init__(self, channel: grpc.aio.Channel, ends: float) -> None:
        self._mails: original_grpc.MailServiceAsyncStub = original_grpc.MailServiceStub(channel)
        self._codes: otp_pb2_grpc.OtpServiceAsyncStub = otp_pb2_grpc.OtpServiceStub(channel)
        self._streams: mail_pb2_grpc.MailServiceAsyncStub = mail_pb2_grpc.MailServiceStub(channel)
        self._ends = ends
        self._numbers = count()
        self.counts: Counter[str] = Counter()
        self._tokens: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<Mixed {dict(self.counts)}>"

    async def run(self) -> None:
        """Call until the time is over."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(_MAILS_CALLERS):
                tasks.create_task(self._repeat(self._send_mail))
            for _ in range(_CODE_CALLERS):
                tasks.create_task(self._repeat(self._send_and_validate))
            tasks.create_task(self._stream())

    async def _repeat(self, call: Callable[[int], Awaitable[None]]) -> None:
        while time.monotonic() < self._ends:
            await call(next(self._numbers))
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _send_mail(self, number: int) -> None:
        try:
            await self._mails.SendMail(request(number), timeout=_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() is not _REFUSED:
                raise
            self.counts["mails refused"] += 1
        else:
            self.counts["mails"] += 1

    async def _send_and_validate(self, number: int) -> None:
        email = holder(number % _HOLDERS)
        token = self._tokens.get(email, "")  # with it a person may have as many codes in a day as she uses
        asked = otp_pb2.SendCodeRequest(email=email, device_token=token)
        sent = await self._codes.SendCode(asked, timeout=_TIMEOUT_SECONDS)
        if sent.mail.state != mail_pb2.Mail.STATE_RELAYED:
            self._check_refused(sent)
            self.counts["codes refused"] += 1
            return
        check = await self._codes.ValidateCode(
            otp_pb2.ValidateCodeRequest(email=email, code=sent.otp_code, device_token=token), timeout=_TIMEOUT_SECONDS
        )
        if check.result != otp_pb2.ValidateCodeResponse.RESULT_VALID:
            raise RuntimeError(f"a code is not valid: {check}")
        self._tokens[email] = check.device_token
        self.counts["codes"] += 1

    async def _stream(self) -> None:
        """One call of SendMails for the whole time, a batch after the other.

        All mails of a batch but one repeat earlier request ids, as the retries of a careful caller do. The service
        remembers a request id for a day, so with new ones alone its memory would have to grow.
        """
        settled = asyncio.Semaphore(_BATCH)
        repeated = cycle(range(_REPEATED))

        async def batches() -> AsyncIterator[mail_pb2.SendMailsRequest]:
            while time.monotonic() < self._ends:
                for _ in range(_BATCH):
                    await settled.acquire()
                again = [sample(number, f"again-{number}") for number in islice(repeated, _BATCH - 1)]
                new = next(self._numbers)
                yield mail_pb2.SendMailsRequest(mails=[sample(new, f"new-{new}"), *again])
                await asyncio.sleep(_BATCH * _PAUSE_SECONDS)

        async for answer in self._streams.SendMails(batches()):
            for result in answer.results:
                if result.code or result.mail.state != mail_pb2.Mail.STATE_RELAYED:
                    self._check_refused(result)
                settled.release()
            self.counts["mails by stream"] += len(answer.results)

    def _check_refused(self, answer: otp_pb2.SendCodeResponse | mail_pb2.SendMailsResponse.Result) -> None:
        if answer.mail.state != mail_pb2.Mail.STATE_FAILED or answer.mail.recipients[0].code != 550:
            raise RuntimeError(f"neither RELAYED nor refused with 550: {answer}")


async def run(address: str, seconds: float) -> dict[str, object]:
    """Call for that long, and return the outcomes."""
    cpu, began = time.process_time(), time.monotonic()
    async with grpc.aio.insecure_channel(address) as channel:
        mixed = Mixed(channel, began + seconds)
        await mixed.run()
    cores = (time.process_time() - cpu) / (time.monotonic() - began)
    return {"outcomes": dict(mixed.counts), "cores": cores}


def main() -> None:
    """Call, and print the outcomes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    given = parser.parse_args()
    print(json.dumps(uvloop.run(run(given.address, given.seconds))), flush=True)


if __name__ == "__main__":
    main()
