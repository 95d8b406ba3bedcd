"""Sends one prepared mail over and over, to find how many the benchmark relay can take.

It is no SMTP client: it counts the lines of replies and reads none of them. Its figures are the relay's.
"""

import argparse
import json
import time

import uvloop

from benchmarks.smtp_client import Streams, sign_in, sign_out

_MAILS = 64  # in one write
_WRITES = 8  # in flight
_LINES = 3  # of reply for each mail


def mail(size: int) -> bytes:
    """One mail of `size` octets as a BDAT group."""
    head = b"From: codes@example.org\r\nTo: ada@example.org\r\nSubject: Code\r\nMessage-ID: <1@example.org>\r\n\r\n"
    content = head + b"x" * (size - len(head) - 2) + b"\r\n"
    return b"MAIL FROM:<codes@example.org> SIZE=%d\r\nRCPT TO:<ada@example.org>\r\nBDAT %d LAST\r\n%s" % (
        size,
        size,
        content,
    )


async def blast(streams: Streams, block: bytes, seconds: float) -> int:
    """Keep the window full for that long, read every reply, and return the number of mails answered."""
    reader, writer = streams
    deadline = time.monotonic() + seconds
    sent = answered = 0
    while answered < sent or time.monotonic() < deadline:
        while sent - answered <= (_WRITES - 1) * _MAILS * _LINES and time.monotonic() < deadline:
            writer.write(block)
            sent += _MAILS * _LINES
        answered += (await reader.read(1 << 16)).count(b"\n")
    return answered // _LINES


async def run(port: int, ca_file: str, size: int, seconds: float) -> dict[str, float]:
    """Send on one connection, and return the rate in mails a second."""
    streams = await sign_in(port, ca_file)
    block = mail(size) * _MAILS
    began = time.monotonic()
    mails = await blast(streams, block, seconds)
    took = time.monotonic() - began
    await sign_out(streams)
    return {"mails": mails, "rate": mails / took}


def main() -> None:
    """Send, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ca-file", required=True)
    parser.add_argument("--size", type=int, default=700, help="octets of one mail")
    parser.add_argument("--seconds", type=float, default=3)
    given = parser.parse_args()
    print(json.dumps(uvloop.run(run(given.port, given.ca_file, given.size, given.seconds))), flush=True)


if __name__ == "__main__":
    main()
