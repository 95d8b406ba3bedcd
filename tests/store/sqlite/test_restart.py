"""The SQLite store over restarts: what it confirmed is there again, and what settled is not sent again."""

import asyncio
import os
import sqlite3
import sys
import threading
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from code_records import a_record
from otpmail.code_record import CodeRecord
from otpmail.errors import FailedPrecondition, LimitExceeded
from otpmail.model import MailState, Priority, RecipientResult
from otpmail.store.base import Accepted, Conflict, Earlier, Entry, Left, Progress, Request, Running, TakenOver
from otpmail.store.clock import Boot, StoreClock
from otpmail.store.retention import Retention
from otpmail.store.sqlite import SqliteStore
from otpmail.store.sqlite.database import Database
from otpmail.store.sqlite.rows import Rows
from rules import POLICY
from store.clocks import Clock
from store.conftest import KEYS, left_in, sqlite_store
from store.entries import R1, REMEMBER_COUNT, entry_of, mail_of, settled


class Restarts:
    """A file that one store after the other opens."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self.clock = clock
        self.store: SqliteStore

    async def restart(self, keys: dict[str, bytes] | None = None) -> SqliteStore:
        """Close the store, and open the next one on its file."""
        if hasattr(self, "store"):
            await self.store.close()
        self.store = sqlite_store(self.path, self.clock, keys=keys)
        await self.store.open()
        return self.store


@pytest.fixture
def restarts(tmp_path: Path, clock: Clock) -> Restarts:
    """A file that is not there yet."""
    return Restarts(tmp_path / "store.db", clock)


async def test_accepted_mails_arrive_after_a_restart(restarts: Restarts) -> None:
    """An accepted mail arrives whole in each later process until it settles: urgent ones first, then by age."""
    store = await restarts.restart()
    entries = [
        entry_of(mail_of("m1"), priority=Priority.BULK),
        entry_of(mail_of("m2", request_id="r2")),
        entry_of(mail_of("m3"), priority=Priority.URGENT, content=bytes(range(256)) * 1000),
        entry_of(mail_of("m4")),
    ]
    assert await store.mails.accept(entries) == [Accepted()] * 4
    for _ in range(2):
        store = await restarts.restart()
        assert await left_in(store) == [entries[2], entries[1], entries[3], entries[0]]
    store.mails.settle(settled(entries[1].mail))
    store = await restarts.restart()
    assert await left_in(store) == [entries[2], entries[3], entries[0]]
    await store.close()


async def test_mails_are_left_without_their_content(restarts: Restarts) -> None:
    """The mails of an earlier process are known by id and terms at the start, each once, and read when asked for."""
    store = await restarts.restart()
    entries = [replace(entry_of(mail_of(f"m{number}")), deadline=2000.0 + number) for number in range(250)]
    await store.mails.accept(entries)
    store = await restarts.restart()
    assert list(store.mails.left()) == [Left(f"m{number}", Priority.NORMAL, 2000.0 + number) for number in range(250)]
    assert list(store.mails.left()) == []
    assert await store.mails.read(["m7", "unknown", "m3"]) == ([entries[7], entries[3]], [])
    await store.close()


async def test_a_request_id_without_its_mail_is_free(restarts: Restarts) -> None:
    """A request id finds neither another mail in the place of its own, nor one that is in the file no more."""
    store = await restarts.restart()
    entries = [entry_of(mail_of(f"m{number}", request_id=f"r{number}")) for number in (1, 2, 3)]
    await store.mails.accept(entries)
    for entry in entries[:2]:
        store.mails.settle(settled(entry.mail))
    await store.close()
    with closing(sqlite3.connect(restarts.path)) as file, file:
        file.execute("UPDATE request SET place = (SELECT max(place) FROM request) WHERE place IS NOT NULL")
        file.execute("DELETE FROM mail")
    store = await restarts.restart()
    assert await store.mails.find("shop", "r1") is None
    assert isinstance(await store.mails.find("shop", "r2"), Earlier)
    for number in (1, 3):
        again = Request("shop", f"r{number}", entries[number - 1].fingerprint)
        assert await store.mails.claim(again, "new") == Accepted()
    await store.close()


async def test_progress_arrives_too(restarts: Restarts) -> None:
    """The last progress of a mail arrives with it; progress of a mail that has settled leaves nothing behind."""
    store = await restarts.restart()
    entry = entry_of(mail_of("m1"))
    await store.mails.accept([entry, entry_of(mail_of("m2"))])
    progress = Progress(
        pending=("bob@example.org",),
        results=(RecipientResult("ada@example.org", 250, "2.0.0", "ok"),),
        uncertain=("bob@example.org",),
        attempts=2,
        losses=1,
        copies=1,
    )
    store.mails.deferred("m1", replace(progress, attempts=1))
    store.mails.deferred("m1", progress)
    store.mails.settle(settled(mail_of("m2")))
    store.mails.deferred("m2", progress)
    store = await restarts.restart()
    assert await left_in(store) == [replace(entry, progress=progress)]
    await store.close()


async def test_request_ids_repeat_through_restarts(restarts: Restarts) -> None:
    """A repeated request id finds its running mail, then the settled one, also in later processes."""
    store = await restarts.restart()
    entry = entry_of(mail_of("m1", request_id="r1"))
    await store.mails.accept([entry])
    store = await restarts.restart()
    assert await left_in(store) == [entry]
    assert await store.mails.claim(R1, "m2") == Running("m1")
    assert await store.mails.find("shop", "r1") == Running("m1")
    assert await store.mails.accept([entry_of(mail_of("m3", request_id="r1"), b"other")]) == [Conflict()]
    store.mails.settle(ended := settled(entry.mail))
    store = await restarts.restart()
    assert await store.mails.claim(R1, "m2") == Earlier(ended)
    assert await store.mails.accept([entry_of(mail_of("m3", request_id="r1"))]) == [Earlier(ended)]
    assert await store.mails.find("shop", "r1") == Earlier(ended)
    assert await store.mails.get("shop", "m1") == ended
    assert await left_in(store) == []
    await store.close()


async def test_a_claim_without_a_mail_is_taken_over(restarts: Restarts) -> None:
    """A request id whose process ended undecided is taken over once, with its mail's id and the same content."""
    store = await restarts.restart()
    assert await store.mails.claim(R1, "m1") == Accepted()
    store = await restarts.restart()
    assert await store.mails.find("shop", "r1") is None
    assert await store.mails.claim(Request("shop", "r1", b"other"), "m2") == Conflict()
    assert await store.mails.claim(R1, "m2") == TakenOver("m1")
    assert await store.mails.claim(R1, "m3") == Running("m1")
    store.mails.settle(ended := settled(mail_of("m1", request_id="r1")))
    assert await store.mails.claim(R1, "m4") == Earlier(ended)
    await store.close()


async def test_a_take_over_of_a_claim_that_was_cancelled_is_undone(
    restarts: Restarts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request id is taken over again, with the first id, where the call was cancelled that was taking it over."""
    store = await restarts.restart()
    assert await store.mails.claim(R1, "m1") == Accepted()
    store = await restarts.restart()
    is_claimed = threading.Event()
    claim = Rows.claim

    def claim_and_tell(*arguments: Any) -> object:
        answer = claim(*arguments)
        is_claimed.set()
        return answer

    monkeypatch.setattr(Rows, "claim", claim_and_tell)
    claiming = asyncio.create_task(store.mails.claim(R1, "m2"))
    await asyncio.sleep(0)  # the claim is asked for
    await asyncio.sleep(0)  # it is handed to the writer thread
    assert is_claimed.wait(30.0)  # the loop stands meanwhile, so that the answer is not there yet
    claiming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await claiming
    store.mails.release(R1, "m2")
    assert await store.mails.claim(R1, "m3") == TakenOver("m1")
    await store.close()


async def test_a_claim_that_was_taken_over_keeps_the_first_id_until_its_mail_settles(restarts: Restarts) -> None:
    """A refused call that had taken a request id over leaves it to the next one, which gets the first mail's id too."""
    store = await restarts.restart()
    assert await store.mails.claim(R1, "m1") == Accepted()
    store = await restarts.restart()
    for number in (2, 3):
        assert await store.mails.claim(R1, f"m{number}") == TakenOver("m1")
        store.mails.release(R1, "m1")
        assert await store.mails.find("shop", "r1") is None
    store = await restarts.restart()
    assert await store.mails.claim(R1, "m4") == TakenOver("m1")
    store.mails.settle(settled(mail_of("m1", request_id="r1")), keep_request=False)
    assert await store.mails.claim(R1, "m5") == Accepted()
    store.mails.release(R1, "m5")
    assert await store.mails.claim(R1, "m6") == Accepted()
    await store.close()


async def test_a_mail_before_it_is_taken_up(restarts: Restarts) -> None:
    """A mail of an earlier process is found by its id and its request id while its content waits in the file."""
    store = await restarts.restart()
    mail = mail_of("m1", request_id="r1")
    await store.mails.accept([entry_of(mail)])
    store = await restarts.restart()
    assert await store.mails.get("shop", "m1") == mail
    assert await store.mails.get("bank", "m1") is None
    assert await store.mails.find("shop", "r1") == Running("m1")
    assert await store.mails.claim(R1, "m2") == Running("m1")
    assert await store.mails.accept([entry_of(mail_of("m3", request_id="r1"))]) == [Running("m1")]
    assert await store.mails.claim(Request("shop", "r2", b"f"), "m4") == Accepted()
    await store.close()


async def test_codes_live_through_restarts(restarts: Restarts, clock: Clock) -> None:
    """A code's record is there after a restart, and the store's time is never before what it has written."""
    record = a_record(attempts=2)
    store = await restarts.restart()
    await store.challenges.update(b"a", lambda _: (record, None))
    clock.time -= 500
    store = await restarts.restart()
    assert await store.challenges.update(b"a", lambda found: (found, found)) == record
    assert store.mails.now() == store.challenges.now() == 1000.0
    await store.close()


async def test_settled_mails_in_the_file_are_bounded(restarts: Restarts, clock: Clock) -> None:
    """The file forgets the oldest mails beyond `remember_count`, and all whose time is over, with their request ids."""
    store = await restarts.restart()
    for number in range(2 * REMEMBER_COUNT):
        mail = mail_of(f"m{number}", create_time=clock())
        await store.mails.accept([entry_of(mail)])
        clock.time += 1
        store.mails.settle(settled(mail, clock()))
    await store.mails.forget_ended()
    found = [await store.mails.get("shop", f"m{number}") is not None for number in range(2 * REMEMBER_COUNT)]
    assert found == [False] * REMEMBER_COUNT + [True] * REMEMBER_COUNT
    await store.mails.claim(Request("shop", "r1", b"f"), "m99")
    store.mails.settle(settled(mail_of("m99", request_id="r1", create_time=clock()), clock()))
    clock.time += 25 * 3600
    await store.mails.forget_ended()
    store = await restarts.restart()
    assert await store.mails.claim(Request("shop", "r1", b"other"), "m100") == Accepted()
    await store.close()


async def test_content_is_encrypted(restarts: Restarts) -> None:
    """Neither a mail's content nor an address or a relay's reply stands in the file in clear."""
    store = await restarts.restart()
    mail = mail_of("m1", request_id="r1")
    await store.mails.accept([entry_of(mail, content=b"a secret link\r\n"), entry_of(mail_of("m2"))])
    store.mails.settle(replace(settled(mail), state=MailState.FAILED))
    store.mails.deferred("m2", Progress(pending=("bob@example.org",)))
    await store.close()
    octets = b"".join(path.read_bytes() for path in restarts.path.parent.iterdir())
    assert b"m1" in octets
    for secret in (b"secret", b"ada@example.org", b"bob@example.org", b"2.0.0"):
        assert secret not in octets


async def test_old_keys_decrypt(restarts: Restarts) -> None:
    """After a rotation mails of the old key arrive, and the new key encrypts; without the old one they stay."""
    other = {"k2": bytes([7]) * 32}
    store = await restarts.restart()
    await store.mails.accept([entry_of(mail_of("m1", request_id="r1"))])
    store.mails.settle(settled(mail_of("m1", request_id="r1")))
    await store.mails.accept([entry_of(mail_of("m2"))])
    store = await restarts.restart(other | KEYS)
    assert [entry.mail.id for entry in await left_in(store)] == ["m2"]
    await store.mails.accept([entry_of(mail_of("m3"))])
    store = await restarts.restart(other)
    assert [entry.mail.id for entry in await left_in(store)] == ["m3"]
    with pytest.raises(FailedPrecondition, match="'k1', which OTP_KEYS lacks"):
        await store.mails.claim(R1, "m4")
    with pytest.raises(FailedPrecondition):
        await store.mails.get("shop", "m1")
    assert await store.mails.accept([entry_of(mail_of("m5"))]) == [Accepted()]
    store = await restarts.restart(other | KEYS)
    assert {entry.mail.id for entry in await left_in(store)} == {"m2", "m3", "m5"}
    await store.close()


async def test_a_refusal_after_a_rotation_leaves_the_record(restarts: Restarts) -> None:
    """A call that is refused leaves a record as it is that was written under an earlier key: its failures count on."""
    record = a_record()

    def refuse(found: CodeRecord | None) -> tuple[CodeRecord | None, None]:
        assert found == record
        raise LimitExceeded("address", "too often", retry_after=1.0)

    store = await restarts.restart()
    await store.challenges.update(b"a", lambda _: (record, None))
    store = await restarts.restart({"k2": bytes([7]) * 32} | KEYS)
    for _ in range(2):
        with pytest.raises(LimitExceeded):
            await store.challenges.update(b"a", refuse)
    assert await store.challenges.update(b"a", lambda found: (found, found)) == record
    assert await store.challenges.update(b"a", lambda found: (found, found)) == record
    await store.close()


async def test_mails_of_another_id_do_not_decrypt(restarts: Restarts) -> None:
    """A row that somebody moved to another mail's id is not sent."""
    store = await restarts.restart()
    await store.mails.accept([entry_of(mail_of("m1"))])
    await store.close()
    with closing(sqlite3.connect(restarts.path, isolation_level=None)) as other:
        other.execute("UPDATE mail SET id = 'm2'")
    store = await restarts.restart()
    assert await left_in(store) == []
    await store.close()


_CHILD = """
import asyncio, sys
from pathlib import Path
from store.clocks import Clock
from store.conftest import sqlite_store
from store.entries import entry_of, mail_of

async def main():
    store = sqlite_store(Path(sys.argv[1]), Clock())
    await store.open()
    await store.mails.accept([entry_of(mail_of("m1"))])
    print("accepted", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_process_that_is_killed(restarts: Restarts) -> None:
    """A mail that `accept` has confirmed survives a kill, and the dead process's lock keeps nobody out."""
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _CHILD, str(restarts.path)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"accepted\n"
    child.kill()
    await child.wait()
    store = await restarts.restart()
    assert [(entry.mail.id, entry.orphaned) for entry in await left_in(store)] == [("m1", True)]
    store = await restarts.restart()
    assert [(entry.mail.id, entry.orphaned) for entry in await left_in(store)] == [("m1", False)]
    await store.close()


async def test_an_attempt_that_begins_is_written(restarts: Restarts) -> None:
    """The progress of attempts that begin is in the file on return, and the next progress takes its place."""
    store = await restarts.restart()
    entries = [entry_of(mail_of("m1")), entry_of(mail_of("m2"))]
    await store.mails.accept(entries)
    begun = replace(entries[0].progress, begun=True, deaths=1)
    await store.mails.begin_attempts({"m1": begun, "m2": begun, "settled meanwhile": begun})
    store.mails.deferred("m2", entries[1].progress)
    store = await restarts.restart()
    assert await left_in(store) == [replace(entries[0], progress=begun), entries[1]]
    await store.close()


# Retries.


def _failed(entry: Entry, store: SqliteStore) -> Entry:
    mail = replace(entry.mail, state=MailState.FAILED, settle_time=store.mails.now())
    entry = replace(entry, mail=mail)
    store.mails.settle(entry.mail, entry=entry)
    return entry


async def test_a_failed_mail_is_retried_after_a_restart(restarts: Restarts) -> None:
    """The content of a failed mail is there after a restart; reopened it arrives in the next process as the last."""
    store = await restarts.restart()
    entry = entry_of(mail_of("m1", request_id="r1"))
    await store.mails.accept([entry, entry_of(mail_of("m2"))])
    failed = _failed(entry, store)
    store = await restarts.restart()
    assert [one.mail.id for one in await left_in(store)] == ["m2"]
    assert await store.mails.retryable("shop", "m1") == failed
    assert await store.mails.reopen(entry, failed.mail.settle_time or 0)
    store = await restarts.restart()
    assert [one.mail.id for one in await left_in(store)] == ["m2", "m1"]
    assert await store.mails.claim(R1, "m3") == Running("m1")
    await store.close()


async def test_a_failed_mail_that_was_only_in_memory_is_retried(restarts: Restarts) -> None:
    """A mail that failed without ever having been in the file is in it once it is reopened."""
    store = await restarts.restart()
    failed = _failed(entry_of(mail_of("m1")), store)
    assert store.mails.octets
    assert await store.mails.reopen(entry_of(mail_of("m1")), failed.mail.settle_time or 0)
    assert store.mails.octets == 0
    store = await restarts.restart()
    assert await left_in(store) == [entry_of(mail_of("m1"))]
    await store.close()


async def test_contents_are_bounded(tmp_path: Path, clock: Clock) -> None:
    """The contents of failed mails take what they may at most, and the oldest ones are dropped first."""
    store = sqlite_store(tmp_path / "store.db", clock, remember_octets=10_000)
    await store.open()
    for number in range(4):
        entry = entry_of(mail_of(f"m{number}"), content=bytes(4000))
        await store.mails.accept([entry])
        _failed(entry, store)
        clock.time += 1
    kept = [await store.mails.retryable("shop", f"m{number}") is not None for number in range(4)]
    assert kept == [False, False, True, True]
    await store.close()


async def test_other_keys_than_before(tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A start with none of the keys of the process before names OTP_KEYS; one of a rotation, and the next, do not."""
    path, one, two = tmp_path / "store.db", {"k1": bytes(32)}, {"k2": bytes(range(32))}
    said = []
    for keys in (one, one | two, two | one, two, one, one):
        store = sqlite_store(path, clock, keys=keys)
        await store.open()
        clock.time += 86_400.0
        await store.challenges.sweep()
        await store.close()
        said.append(sum(record.levelname == "WARNING" and "OTP_KEYS" in record.message for record in caplog.records))
    assert said == [0, 0, 0, 0, 1, 1]


async def test_a_wall_clock_behind_the_file(tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A start with a wall clock that is a minute behind the time in the file says so, and goes on from that time."""
    said = []
    for seconds in (0.0, -30.0, -3600.0):
        wall = clock.time + seconds
        store = SqliteStore(
            Database(tmp_path / "store.db"),
            KEYS,
            StoreClock(wall=partial(float, wall), elapsed=clock, boot=lambda: Boot("test", clock())),
            retention=Retention(count=10, request_count=10),
            rules=POLICY,
        )
        await store.open()
        assert store.mails.now() == clock.time
        await store.mails.accept([entry_of(mail_of(f"m{seconds}"))])
        await store.close()
        said.append(sum("clock is 3600 s behind the time in the store's file" in one for one in caplog.messages))
    assert said == [0, 0, 1]
