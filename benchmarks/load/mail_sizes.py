"""One caller of `otpmail.v1.MailService/SendMail` with mails of one size: how long each takes."""

from __future__ import annotations  # generated stubs name types that exist for the type checker alone

import argparse
import json
import time
from statistics import median

import grpc.aio
import uvloop

from benchmarks.load.sample_mail import SUBJECT, recipient, text_of
from otpmail.v1 import mail_pb2, mail_pb2_grpc


async def measure(address: str, size: int, mails: int) -> dict[str, float]:
    """Send so many mails of that size, one at a time, after one that does not count."""
    text = text_of(size)
    took = []
    async with grpc.aio.insecure_channel(address) as channel:
        await channel.channel_ready()
        service: mail_pb2_grpc.MailServiceAsyncStub = mail_pb2_grpc.MailServiceStub(channel)
        cpu = time.process_time()
        for number in range(mails + 1):
            request = mail_pb2.SendMailRequest(to=[recipient(number)], subject=SUBJECT, text=text)
            began = time.perf_counter()
            answer = await service.SendMail(request)
            took.append(time.perf_counter() - began)
            if answer.mail.state != mail_pb2.Mail.STATE_RELAYED:
                raise RuntimeError(f"a mail of {size} octets is not RELAYED: {answer.mail}")
    cpu = time.process_time() - cpu
    return {"mails": mails + 1, "p50_ms": median(took[1:]) * 1000, "cpu": cpu, "cores": cpu / sum(took)}


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--size", type=int, required=True, help="octets of a mail")
    parser.add_argument("--mails", type=int, required=True)
    given = parser.parse_args()
    print(json.dumps(uvloop.run(measure(given.address, given.size, given.mails))), flush=True)


if __name__ == "__main__":
    main()
