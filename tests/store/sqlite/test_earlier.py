"""Files that earlier commits have written: all that is in them is there, and they are brought up to date once."""

import logging
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import pytest

from earlier import FILES, unpack
from otpmail.model import Challenge, Check, CheckResult, MailState
from otpmail.store.base import Accepted, Conflict, Earlier, Request, Running, TakenOver
from otpmail.store.challenges import Attempt
from otpmail.store.digests import Digests
from otpmail.store.sqlite.schema import SCHEMA
from rules import BOOK
from store.clocks import Clock
from store.conftest import KEYS, left_in, sqlite_store


def _wrong_code() -> str:
    code = BOOK.code(Challenge(bytes(16), "k1", 4e9, length=6))
    return "000000" if code != "000000" else "111111"


def _schema(path: Path) -> int:
    with closing(sqlite3.connect(path)) as file:
        [schema] = file.execute("PRAGMA user_version").fetchone()
    return int(schema)


@pytest.mark.parametrize("packed", FILES, ids=lambda path: path.name)
async def test_a_file_of_an_earlier_commit(
    packed: Path, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A file of an earlier schema opens with its mails and their progress, its request ids and codes.

    No plain digest of an address is left in it. The log says once that it is brought up to date.
    """
    caplog.set_level(logging.INFO, "otpmail")
    clock.time = 1_790_000_100.0
    path = unpack(packed, tmp_path / "store.db")
    schema = _schema(path)
    assert 0 < schema < SCHEMA
    assert b"known" in path.read_bytes()
    for left in (2, 1):
        store = sqlite_store(path, clock)
        await store.open()
        entries = await left_in(store)
        assert [entry.mail.id for entry in entries] == ["urgent", "open", "deferred"]
        assert [entry.progress.attempts for entry in entries] == [0, 0, 2]
        assert entries[1].envelope.content.endswith(b"Subject: open\r\n\r\nhi\r\n")
        assert await store.mails.find("anonymous", "r1") == Running("deferred")
        settled = await store.mails.find("anonymous", "r2")
        assert isinstance(settled, Earlier)
        assert (settled.mail.id, settled.mail.state) == ("settled", MailState.RELAYED)
        attempt = Attempt(earlier=b"known")
        check = await store.challenges.check(b"new key", clock.time, BOOK.guess(_wrong_code()), attempt)
        assert check == Check(CheckResult.WRONG_CODE, left)
        assert await store.challenges.update(b"known", lambda record: (record, record)) is None
        await store.close()
        assert _schema(path) == SCHEMA
        assert b"known" not in path.read_bytes()
    store = sqlite_store(path, clock)
    await store.open()
    assert await store.mails.claim(Request("anonymous", "r3", b"f"), "new") == TakenOver("claimed")
    await store.close()
    begun = f"the store's file is brought from schema {schema} to {SCHEMA}; a large one takes some seconds"
    assert caplog.messages.count(begun) == 1


@pytest.mark.parametrize("purposes", [1, 2])
async def test_a_release_holds_for_records_of_an_earlier_version(tmp_path: Path, clock: Clock, purposes: int) -> None:
    """Failures in the records of an earlier version, of each purpose, count no more after a release; a code stays."""
    challenge = Challenge(bytes(16), "k1", clock.time + 600.0, length=6)
    failures = [clock.time - number for number in range(10, 0, -1)]
    head = struct.pack("=Bddd16shH4sBB", 2, 4e9, challenge.expires, 0.0, challenge.id, 0, len(failures), bytes(4), 0, 2)
    record = head + b"k1" + struct.pack(f"={len(failures)}d", *failures)
    store = sqlite_store(tmp_path / "store.db", clock)
    await store.open()
    await store.close()
    names = [(Digests(KEYS).record_names(b"purpose %d" % number)[0], 4e9, record) for number in range(purposes)]
    with closing(sqlite3.connect(tmp_path / "store.db")) as file, file:
        file.executemany("INSERT INTO code VALUES (?, ?, ?)", names)
    store = sqlite_store(tmp_path / "store.db", clock)
    await store.open()
    wrong = BOOK.guess("000000" if BOOK.code(challenge) != "000000" else "111111")
    if purposes > 1:
        check = await store.challenges.check(b"new key", clock.time, wrong, Attempt(earlier=b"purpose 1"))
        assert check.result is CheckResult.TOO_MANY_ATTEMPTS
    await store.challenges.release(b"new key")
    check = await store.challenges.check(b"new key", clock.time, wrong, Attempt(earlier=b"purpose 0"))
    assert check == Check(CheckResult.WRONG_CODE, 4)
    await store.close()


@pytest.mark.parametrize("packed", FILES[1:], ids=lambda path: path.name)
async def test_settled_mails_of_an_earlier_commit(packed: Path, tmp_path: Path, clock: Clock) -> None:
    """A failed mail of an earlier file is retried with its content, and a request id that was released is free."""
    clock.time = 1_790_000_100.0
    store = sqlite_store(unpack(packed, tmp_path / "store.db"), clock)
    await store.open()
    mails = store.mails
    assert sorted([mail.id async for some in mails.remembered() for mail in some]) == ["failed", "freed", "settled"]
    entry = await mails.retryable("anonymous", "failed")
    assert entry is not None
    assert (entry.mail.state, entry.mail.attempts) == (MailState.FAILED, 3)
    assert entry.envelope.content.endswith(b"Subject: failed\r\n\r\nhi\r\n")
    found = await mails.find("anonymous", "r5")
    assert isinstance(found, Earlier)
    assert found.mail.id == "freed"
    assert await mails.claim(Request("anonymous", "r5", b"another"), "new") == Accepted()
    assert await mails.claim(Request("anonymous", "r4", b"another"), "new") == Conflict()
    assert await mails.reopen(entry, entry.mail.settle_time or 0)
    assert await mails.find("anonymous", "r4") == Running("failed")
    await store.close()
