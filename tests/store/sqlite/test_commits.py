"""Changes that share a commit of a SQLite file: each has its own answer, and all leave the file as they should."""

import asyncio
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from code_records import a_record
from otpmail.code_record import CodeRecord
from otpmail.errors import FailedPrecondition, InvalidArgument
from otpmail.store.base import Accepted, Request, Running
from otpmail.store.retention import Retention
from otpmail.store.sqlite import SqliteStore
from otpmail.store.sqlite.database import Database
from rules import POLICY
from store.clocks import Clock
from store.conftest import KEYS, left_in, sqlite_store
from store.entries import entry_of, mail_of, settled

RECORD = a_record(5000.0, 2)


async def test_one_change_that_fails_harms_no_other(tmp_path: Path, clock: Clock) -> None:
    """A change that can't be written gets its error, and all that came with it are written."""
    store = sqlite_store(tmp_path / "store.db", clock)
    await store.open()

    def fail(_: CodeRecord | None) -> tuple[CodeRecord | None, Any]:
        raise ZeroDivisionError

    def refuse(_: CodeRecord | None) -> tuple[CodeRecord | None, Any]:
        raise InvalidArgument("email", "no")

    results = await asyncio.gather(
        store.challenges.update(b"a", lambda _: (RECORD, 1)),
        store.challenges.update(b"b", fail),
        store.challenges.update(b"c", refuse),
        store.mails.accept([entry_of(mail_of("m1"))]),
        return_exceptions=True,
    )
    assert results[0] == 1
    assert isinstance(results[1], ZeroDivisionError)
    assert isinstance(results[2], InvalidArgument)
    assert results[3] == [Accepted()]
    assert await store.challenges.update(b"a", lambda record: (record, record)) == RECORD
    await store.close()


async def test_a_record_without_its_key_harms_no_other(tmp_path: Path, clock: Clock) -> None:
    """A look at a record that can't be read fails alone: the changes beside it are written in the same commit."""
    store = sqlite_store(tmp_path / "store.db", clock)
    await store.open()
    await store.mails.accept([entry_of(mail_of("m1", request_id="r1"))])
    store.mails.settle(settled(mail_of("m1", request_id="r1")))
    await store.close()
    store = sqlite_store(tmp_path / "store.db", clock, keys={"k2": bytes(32)})
    await store.open()
    statements: list[str] = []

    def trace(connection: sqlite3.Connection) -> None:
        connection.set_trace_callback(statements.append)

    await store._writer.ask(trace)  # only its thread may do that
    statements.clear()
    group = [entry_of(mail_of(f"n{number}", request_id=f"r{number}")) for number in range(3)]
    unreadable, claimed, answers = await asyncio.gather(
        store.mails.get("shop", "m1"),
        store.mails.claim(Request("shop", "r1", b"f"), "m2"),
        store.mails.accept(group),
        return_exceptions=True,
    )
    assert isinstance(unreadable, FailedPrecondition)
    assert isinstance(claimed, FailedPrecondition)
    assert answers == [Accepted(), Running("m1"), Accepted()]
    assert (statements.count("COMMIT"), statements.count("ROLLBACK")) == (1, 0)
    await store.close()


async def test_a_file_shrinks(tmp_path: Path, clock: Clock) -> None:
    """The pages of mails that have settled go back to the file system while nothing else is to do."""
    path = tmp_path / "store.db"
    store = sqlite_store(path, clock)
    await store.open()
    mails = [mail_of(f"m{number}") for number in range(20)]
    await store.mails.accept([entry_of(mail, content=os.urandom(1 << 20)) for mail in mails])
    for mail in mails:
        store.mails.settle(settled(mail))
    async with asyncio.timeout(20):
        while path.stat().st_size > 4 << 20:  # noqa: ASYNC110  nobody is notified of it
            await asyncio.sleep(0.05)
    assert (tmp_path / "store.db-wal").stat().st_size <= 64 << 20
    await store.close()


@pytest.mark.parametrize("exists", [False, True])
async def test_a_check_writes_whether_there_is_a_record(tmp_path: Path, clock: Clock, exists: bool) -> None:  # noqa: FBT001
    """An update that changes nothing writes as much as any other, so that its time does not tell of a live code."""
    database = Database(tmp_path / "store.db")
    store = SqliteStore(database, KEYS, retention=Retention(seconds=3600, count=10), rules=POLICY)
    await store.open()
    if exists:
        await store.challenges.update(b"a", lambda _: (RECORD, None))
    clock.time += 10
    written = database.connection.total_changes
    for count in range(1, 4):
        await store.challenges.update(b"a", lambda record: (record, None))
        assert database.connection.total_changes - written >= count
    await store.close()


async def test_a_cancelled_call_leaves_nothing(tmp_path: Path, clock: Clock) -> None:
    """A call that is cancelled before its change is written leaves none behind."""
    store = sqlite_store(tmp_path / "store.db", clock)
    await store.open()
    update = asyncio.ensure_future(store.challenges.update(b"a", lambda _: (RECORD, None)))
    await asyncio.sleep(0)
    update.cancel()
    assert await store.challenges.update(b"a", lambda record: (record, record)) is None
    with pytest.raises(asyncio.CancelledError):
        await update
    await store.close()


async def test_accepted_and_settled_in_one_commit(tmp_path: Path, clock: Clock) -> None:
    """Hundreds of mails that are accepted and settle together are all remembered, and none is sent again."""
    store = sqlite_store(tmp_path / "store.db", clock)
    await store.open()
    mails = [mail_of(f"m{number}") for number in range(500)]
    accepting = asyncio.ensure_future(store.mails.accept([entry_of(mail) for mail in mails]))
    other = asyncio.ensure_future(store.mails.accept([entry_of(mail_of("other"))]))
    assert len(await accepting) == 500
    await other
    for mail in mails:
        store.mails.settle(settled(mail))
    assert await store.mails.get("shop", "m499") == settled(mails[499])
    await store.close()
    again = sqlite_store(tmp_path / "store.db", clock)
    await again.open()
    assert [entry.mail.id for entry in await left_in(again)] == ["other"]
    await again.close()
