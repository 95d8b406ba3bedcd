"""A million suppressed addresses: the memory that they take, and what a lookup and a start cost."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MOST_OCTETS = 150
"""Of resident memory for each of a million addresses."""

MOST_OF_FEW = 260
"""Of each where they are few, since they share what a part of the table takes."""

_FILL = """
import asyncio, gc, json, sys
from functools import partial
from pathlib import Path
from time import monotonic, perf_counter
from otpmail.limits import suppressing
from otpmail.otp.policy import Policy
from otpmail.settings import OtpSettings
from otpmail.store.addresses import CallersAddress
from otpmail.store.memory import MemoryStore
from otpmail.store.retention import Retention
from otpmail.store.sqlite import SqliteStore
from otpmail.store.sqlite.database import Database

REASON = "550 5.1.1 <{}>: Recipient address rejected: User unknown in virtual mailbox table, see our pages of help"

def resident():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def store_of(path):
    rules = Policy.of(OtpSettings())
    if not path:
        return MemoryStore(retention=Retention(count=10), rules=rules)
    return SqliteStore(Database(Path(path)), {"k1": bytes(32)}, retention=Retention(seconds=60, count=10), rules=rules)

async def main(path, count):
    store = store_of(path)
    await store.open()
    addresses, now = store.addresses, store.addresses.now()
    before, began = resident(), monotonic()
    for number in range(count):
        address = f"person.{number}@customer-{number % 977}.example.org"
        rule = partial(suppressing.refused, now=now, reason=REASON.format(address))
        if number % 1000 == 0:
            await addresses.update(CallersAddress("shop", address), rule)  # so that a file keeps up
        else:
            addresses.note(CallersAddress("shop", address), rule)
    filled = monotonic() - began
    await store.close()
    octets = resident() - before
    began = perf_counter()
    for number in range(20_000):
        assert addresses.find(CallersAddress("shop", f"other.{number}@example.org")) is None
    lookup = (perf_counter() - began) / 20_000
    opened = 0.0
    if path:
        store = store_of(path)
        began = monotonic()
        await store.open()
        opened = monotonic() - began
        assert store.addresses.count == count
        await store.close()
    known = store.addresses.find(CallersAddress("shop", "person.7@customer-7.example.org"))
    assert known.refused.reason.startswith("550 5.1.1 <person.7@customer-7.example.org>: Recipient address rejected")
    print(json.dumps([octets, filled, lookup, opened]))

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_the_memory_of_suppressed_addresses(
    store: str,
    tmp_path: Path,
    show: Callable[[str], None],
    full: bool,  # noqa: FBT001  pytest passes it by its name
) -> None:
    """A million suppressed addresses take 150 MB of memory, however long their names and reasons are."""
    count, path = 1_000_000 if full else 100_000, ""
    if store == "sqlite":
        count, path = count // 5, str(tmp_path / "store.db")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _FILL, path, str(count)), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    octets, filled, lookup, opened = json.loads(out)
    show(
        f"{count:,} suppressed addresses ({store}): {octets / 1e6:.0f} MB, {octets / count:.0f} octets each; "
        f"{1e6 * filled / count:.0f} us to add one, {1e6 * lookup:.1f} us to find none, {opened:.1f} s to open the file"
    )
    if store == "memory":  # a file has pages and statements of its own in memory
        assert octets < (MOST_OCTETS if full else MOST_OF_FEW) * count
