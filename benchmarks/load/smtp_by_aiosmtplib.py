"""Processor time of a mail by EmailMessage and aiosmtplib's `send_message`, on one warm connection."""

import argparse
import json
import time

import aiosmtplib
import uvloop

from benchmarks.load.sample_mail import SUBJECT, recipient, text
from benchmarks.peers.aiosmtplib_pool import connect, message

_WARM_UP = 50


async def send(client: aiosmtplib.SMTP, first: int, mails: int) -> None:
    """Send so many mails, one after the other. Raises when the relay refuses one."""
    for number in range(first, first + mails):
        await client.send_message(message(recipient(number), SUBJECT, text(number)))


async def measure(port: int, ca_file: str, mails: int) -> dict[str, object]:
    """Send so many mails, and return the microseconds of processor time for each, and the rate."""
    client = await connect(port, ca_file)
    await send(client, 0, _WARM_UP)
    cpu, began = time.process_time(), time.monotonic()
    await send(client, _WARM_UP, mails)
    cpu, took = time.process_time() - cpu, time.monotonic() - began
    await client.quit()
    return {"mode": "plain", "window": 1, "mails": _WARM_UP + mails, "cpu_us": cpu / mails * 1e6, "rate": mails / took}


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ca-file", required=True)
    parser.add_argument("--mails", type=int, default=2000)
    given = parser.parse_args()
    print(json.dumps(uvloop.run(measure(given.port, given.ca_file, given.mails))), flush=True)


if __name__ == "__main__":
    main()
