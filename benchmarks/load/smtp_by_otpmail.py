"""Processor time of a mail by `otpmail.compose.message` and `otpmail.smtp` alone, from draft to last reply.

One connection keeps its window full. Drafts are checked and addresses parsed beforehand.
"""

import argparse
import asyncio
import json
import time
from pathlib import Path

import uvloop

from benchmarks.load.sample_mail import SUBJECT, recipient, text
from benchmarks.smtp_client import PASSWORD, USER
from otpmail.address import parse_mailbox, parse_mailboxes
from otpmail.compose.draft import Draft, Limits
from otpmail.compose.message import compose
from otpmail.errors import ConnectionLost
from otpmail.relays.connection import Connection
from otpmail.relays.dial import dial
from otpmail.relays.secure import tls_context
from otpmail.settings import RelaySettings, load_section
from otpmail.smtp.transaction import Results

_LIMITS = Limits(size=10 << 20, recipients=100)
_SENDER = parse_mailbox("codes@example.org", "from")
_DRAFTS = 1000  # different ones, sent again with other Message-IDs
_WARM_UP = 500


def draft(number: int) -> Draft:
    """The mail with this number."""
    to = parse_mailboxes([recipient(number)], "to", most=1)
    return Draft(limits=_LIMITS, to=to, subject=SUBJECT, text=text(number))


async def connect(port: int, ca_file: Path, window: int) -> Connection:
    """Open a connection as a worker does, with this window."""
    settings = load_section(
        RelaySettings,
        EMAIL_HOST="127.0.0.1",
        EMAIL_PORT=str(port),
        EMAIL_SECURITY="tls",
        EMAIL_CA_FILE=str(ca_file),
        EMAIL=USER,
        APP_PASSWORD=PASSWORD,
        EMAIL_WINDOW=str(window),
    )
    return await Connection.over(await dial(settings, tls_context(settings)), settings, lifetime=3600)


async def send(connection: Connection, drafts: list[Draft], first: int, mails: int) -> None:
    """Send so many mails with the window always full. Raises RuntimeError when the relay refuses one."""
    is_available, done = asyncio.Event(), asyncio.Event()
    left = mails
    failures: list[object] = []

    def settle(outcome: Results | ConnectionLost) -> None:
        nonlocal left
        left -= 1
        if isinstance(outcome, ConnectionLost) or not all(result.accepted for result in outcome):
            failures.append(outcome)
            left = 0
        if left <= 0:
            done.set()

    connection.watch(on_lost=is_available.set, on_available=is_available.set)
    for number in range(first, first + mails):
        while not (connection.is_available or failures):
            if connection.lost_cause:
                raise RuntimeError(f"the connection takes no more mails: {connection!r}")
            is_available.clear()
            await is_available.wait()
        message_id = f"<{number}@example.org>"
        connection.send(compose(drafts[number % _DRAFTS], _SENDER, message_id, time.time(), _LIMITS), settle)
    await done.wait()
    if failures:
        raise RuntimeError(f"the relay refused a mail: {failures[0]}")


async def measure(port: int, ca_file: Path, window: int, mails: int) -> dict[str, object]:
    """Send so many mails, and return the microseconds of processor time for each, and the rate."""
    drafts = [draft(number) for number in range(_DRAFTS)]
    connection = await connect(port, ca_file, window)
    await send(connection, drafts, 0, _WARM_UP)
    cpu, began = time.process_time(), time.monotonic()
    await send(connection, drafts, _WARM_UP, mails)
    cpu, took = time.process_time() - cpu, time.monotonic() - began
    result = {"mode": str(connection.mode), "window": connection.window, "mails": _WARM_UP + mails}
    await connection.close()
    return result | {"cpu_us": cpu / mails * 1e6, "rate": mails / took}


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ca-file", type=Path, required=True)
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--mails", type=int, default=20_000)
    given = parser.parse_args()
    print(json.dumps(uvloop.run(measure(given.port, given.ca_file, given.window, given.mails))), flush=True)


if __name__ == "__main__":
    main()
