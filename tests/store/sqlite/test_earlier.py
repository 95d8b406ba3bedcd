"""Files that earlier commits have written: all that is in them is there, and they are brought up to date once."""

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from earlier import FILES, unpack
from otpmail.model import Challenge, Check, CheckResult, MailState
from otpmail.store.base import Accepted, Conflict, Earlier, Request, Running, TakenOver
from otpmail.store.challenges import Attempt
from otpmail.store.sqlite.schema import SCHEMA
from rules import BOOK
from store.clocks import Clock
from store.conftest import left_in, sqlite_store


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
