"""Faults of the disk under a SQLite store: a line at the start, Unavailable in flight, and never a file made worse."""

import asyncio
import errno
import os
import re
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from code_records import a_record
from otpmail.code_record import CodeRecord
from otpmail.errors import FailedPrecondition, InvalidArgument, StoreEnded, StoreError, Unavailable
from otpmail.model import Mail
from otpmail.store.base import Accepted, Earlier, Progress, Request, Running, StoreState
from otpmail.store.cipher import Cipher
from otpmail.store.clock import StoreClock
from otpmail.store.digests import Digests
from otpmail.store.sqlite import SqliteStore
from otpmail.store.sqlite.database import Database
from otpmail.store.sqlite.rows import Rows
from otpmail.store.sqlite.schema import SCHEMA, TABLES, step_functions
from otpmail.store.sqlite.writer import Writer
from rules import POLICY
from store.clocks import Clock
from store.conftest import KEYS, left_in, sqlite_store
from store.entries import entry_of, mail_of, settled

RECORD = a_record(5000.0, 2)


async def _filled(path: Path, clock: Clock) -> None:
    """Write a store with an open mail."""
    store = sqlite_store(path, clock)
    await store.open()
    await store.mails.accept([entry_of(mail_of(f"m{number}"), content=bytes(3000)) for number in range(20)])
    await store.close()


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _no_directory(path: Path) -> None:
    path.unlink()
    path.parent.rmdir()


def _text(path: Path) -> None:
    path.write_text("this is a text, and a long one at that\n" * 100)


def _another(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE user(name)")
    other.close()


def _newer(path: Path) -> None:
    with sqlite3.connect(path) as ours:
        ours.execute(f"PRAGMA user_version={SCHEMA + 1}")
    ours.close()


def _damaged(path: Path) -> None:
    octets = bytearray(path.read_bytes())
    octets[4096 * 3 : 4096 * 6] = b"\xff" * (4096 * 3)
    path.write_bytes(octets)


def _short(path: Path) -> None:
    path.write_text("a")  # which SQLite takes for an empty database


def _cut(path: Path) -> None:
    os.truncate(path, 60)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _pipe_beside(path: Path) -> None:
    os.mkfifo(path.with_name(f"{path.name}-journal"))


def _directory_beside(path: Path) -> None:
    path.with_name(f"{path.name}-wal").mkdir()


def _version_zero(path: Path) -> None:
    with sqlite3.connect(path) as ours:
        ours.execute("PRAGMA user_version=0")
    ours.close()


def _after(statement: str) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        with sqlite3.connect(path) as ours:
            ours.execute(statement)
        ours.close()

    return spoil


def _damaged_head(path: Path) -> None:
    path.write_bytes(b"\0" * 4096 + path.read_bytes()[4096:])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_directory, "is a directory; STORE_URL names a file"),
        (_no_directory, "can't be made: its directory does not exist"),
        (_text, "is not a SQLite database"),
        (_another, "is the database of another program"),
        (_newer, f"was written by a newer otpmail (schema {SCHEMA + 1}; this one knows {SCHEMA})"),
        (_damaged, "is damaged; restore a backup, or move it away"),
        (_damaged_head, "is not a SQLite database"),
        (_short, "is not a SQLite database"),
        (_cut, "is damaged; restore a backup, or move it away"),
        (_pipe, "is a device or a pipe; STORE_URL names a file"),
        (_pipe_beside, "can't be opened: store.db-journal beside it is no file"),
        (_directory_beside, "can't be opened: store.db-wal beside it is no file"),
        (_version_zero, "is damaged; restore a backup, or move it away"),
        (_after("UPDATE mail SET priority = 77"), "is damaged; restore a backup, or move it away"),
    ],
)
async def test_a_file_that_is_no_store(tmp_path: Path, clock: Clock, spoil: Callable[[Path], None], words: str) -> None:
    """The error is one line that opens with the setting and names the file, which is left as it was."""
    path = tmp_path / "state" / "store.db"
    path.parent.mkdir()
    await _filled(path, clock)
    spoil(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StoreError) as caught:
        await sqlite_store(path, clock).open()
    assert str(caught.value).startswith(f"STORE_URL: {path} {words}")
    assert "\n" not in str(caught.value)
    assert (path.read_bytes() if path.is_file() else None) == before


@pytest.mark.parametrize("statement", [*(f"DROP TABLE {table}" for table in TABLES), "DELETE FROM clock"])
async def test_a_store_that_lacks_a_part(tmp_path: Path, clock: Clock, statement: str) -> None:
    """A file of ours without a table or a row that each store has is named as damaged, in one line."""
    await _filled(path := tmp_path / "store.db", clock)
    _after(statement)(path)
    with pytest.raises(StoreError, match=r"\ASTORE_URL: \S+ is damaged; restore a backup, or move it away .*\Z"):
        await sqlite_store(path, clock).open()


async def test_a_sqlite_that_is_too_old(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SQLite without a statement that the store uses is refused at the start, before a file is made."""
    monkeypatch.setattr("sqlite3.sqlite_version_info", (3, 32, 3))
    with pytest.raises(StoreError, match=r"STORE_URL: needs SQLite 3\.33 or later; this Python has 3\."):
        await sqlite_store(tmp_path / "store.db", clock).open()
    assert [entry.name for entry in os.scandir(tmp_path)] == []


@pytest.mark.parametrize("code", [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR_LOCK, sqlite3.SQLITE_PROTOCOL])
def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Where the system has no locks the start is refused with one line that says so, whatever SQLite calls it.

    SQLite says of ENOLCK that the database is locked (`sqliteErrorFromPosixError`).
    """
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = code
    connections: list[sqlite3.Connection] = []

    class Lockless(sqlite3.Connection):
        def execute(self, statement: str, *arguments: Any) -> sqlite3.Cursor:
            if "locking_mode" in statement:
                connections.append(self)
            elif "journal_mode" in statement:  # the first that needs a lock
                raise error
            return super().execute(statement, *arguments)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("sqlite3.connect", partial(sqlite3.connect, factory=Lockless))
    monkeypatch.setattr("fcntl.lockf", refuse)
    with pytest.raises(StoreError, match=r"\ASTORE_URL: \S+ can't be [^\n]*its file system has no locks[^\n]*\Z"):
        Database(tmp_path / "store.db").open()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connections[0].execute("PRAGMA user_version")


async def test_a_second_process_is_refused(tmp_path: Path, clock: Clock) -> None:
    """A store that is open refuses a second one, from its opening to its close, and goes on itself."""
    first, second = (sqlite_store(tmp_path / "store.db", clock) for _ in range(2))
    await first.open()
    for _ in range(2):
        with pytest.raises(StoreError, match="is in use by another process; one file serves one otpmail"):
            await second.open()
        assert await first.mails.accept([entry_of(mail_of(f"m{_}"))]) == [Accepted()]
    await first.close()
    third = sqlite_store(tmp_path / "store.db", clock)
    await third.open()
    await third.close()


async def test_the_file_is_its_users_alone(tmp_path: Path, clock: Clock) -> None:
    """Nobody else may read the file, nor the log beside it."""
    store = sqlite_store(tmp_path / "store.db", clock)
    await store.open()
    await store.mails.accept([entry_of(mail_of())])
    modes = {entry.name: entry.stat().st_mode & 0o777 for entry in os.scandir(tmp_path)}
    assert modes == {"store.db": 0o600, "store.db-wal": 0o600}
    await store.close()
    assert [entry.name for entry in os.scandir(tmp_path)] == ["store.db"]


class Watched:
    """An open store, and the states that it reports."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.states: asyncio.Queue[StoreState] = asyncio.Queue()
        store.watch(self.states.put_nowait)

    async def state(self) -> str:
        """Return the problem of the next state that is reported, empty without one."""
        async with asyncio.timeout(20):
            return (await self.states.get()).problem


async def _refused(*asked: Awaitable[object]) -> None:
    for one in asked:
        with pytest.raises(Unavailable) as caught:
            await one
        assert caught.value.retry_after >= 1
        assert "store" in str(caught.value)
        assert "/" not in str(caught.value)


class Disk:
    """Says how much of it is free."""

    free = 1 << 40

    def __call__(self, _: Path) -> int:
        """Return the free octets."""
        return self.free


async def test_a_disk_that_is_nearly_full(tmp_path: Path, clock: Clock) -> None:
    """Below the margin nothing new is accepted, settlements go on, and with room all goes on by itself."""
    disk = Disk()
    watched = Watched(store := sqlite_store(tmp_path / "store.db", clock, free=disk))
    await store.open()
    await store.mails.accept([entry_of(mail_of("m1")), entry_of(mail_of("m2"))])
    await store.challenges.update(b"known", lambda _: (RECORD, None))
    disk.free = 1000
    await _refused(store.mails.accept([entry_of(mail_of("m3"))]))
    assert "is nearly full; no mail is accepted until it has room" in await watched.state()
    await _refused(
        store.mails.claim(Request("shop", "r1", b"f"), "m4"), store.challenges.update(b"new", lambda _: (RECORD, None))
    )
    assert await store.challenges.update(b"known", lambda record: (record, record)) == RECORD
    store.mails.settle(ended := settled(mail_of("m1")))
    assert await store.mails.get("shop", "m1") == ended
    disk.free = 1 << 40
    assert await watched.state() == ""
    assert await store.mails.accept([entry_of(mail_of("m5"))]) == [Accepted()]
    await store.close()
    again = sqlite_store(tmp_path / "store.db", clock)
    await again.open()
    assert [entry.mail.id for entry in await left_in(again)] == ["m2", "m5"]
    await again.close()


async def test_a_file_that_may_not_grow(tmp_path: Path, clock: Clock) -> None:
    """SQLITE_FULL refuses what is new and lets deletes go on; once they have made room, all goes on by itself."""
    watched = Watched(store := sqlite_store(tmp_path / "store.db", clock, most_pages=60))
    await store.open()
    accepted: list[Mail] = []
    with suppress(Unavailable):
        while len(accepted) < 100:
            mail = mail_of(f"m{len(accepted)}")
            await store.mails.accept([entry_of(mail, content=os.urandom(20_000))])
            accepted.append(mail)
    assert 3 < len(accepted) < 20
    assert "has no room: the disk is full" in await watched.state()
    for mail in accepted:
        store.mails.settle(settled(mail))
    assert await watched.state() == ""
    assert await store.mails.accept([entry_of(mail_of("new"), content=os.urandom(20_000))]) == [Accepted()]
    await store.close()


async def test_a_file_that_is_moved_away(tmp_path: Path, clock: Clock) -> None:
    """A file that was moved keeps nothing that a restart finds: nothing is accepted until it is back."""
    path = tmp_path / "store.db"
    watched = Watched(store := sqlite_store(path, clock))
    await store.open()
    await store.mails.accept([entry_of(mail_of("m1"))])
    path.rename(tmp_path / "away.db")
    clock.time += 10
    await _refused(store.mails.accept([entry_of(mail_of("m2"))]))
    assert "was moved or removed while the service runs" in await watched.state()
    store.mails.settle(settled(mail_of("m1")))
    await _refused(store.mails.get("shop", "m9"), store.challenges.update(b"a", lambda _: (None, None)))
    (tmp_path / "away.db").rename(path)
    assert await watched.state() == ""
    assert await store.mails.accept([entry_of(mail_of("m3"))]) == [Accepted()]
    await store.close()
    again = sqlite_store(path, clock)
    await again.open()
    assert [entry.mail.id for entry in await left_in(again)] == ["m3"]
    await again.close()


async def test_changes_that_wait_for_the_file_are_bounded(tmp_path: Path, clock: Clock) -> None:
    """While the file can't be written, a mail has one change that waits, however often it is deferred."""
    path = tmp_path / "store.db"
    watched = Watched(store := sqlite_store(path, clock))
    await store.open()
    mails = [mail_of(f"m{number}", request_id=f"r{number}") for number in range(3)]
    await store.mails.accept([entry_of(mail) for mail in mails])
    path.rename(tmp_path / "away.db")
    clock.time += 10
    await _refused(store.mails.accept([entry_of(mail_of("m9"))]))
    await watched.state()
    for attempts in range(50):
        for mail in mails:
            store.mails.deferred(mail.id, Progress(pending=("ada@example.org",), attempts=attempts))
        await _refused(store.mails.get("shop", "m9"))  # behind them, so the thread has met them
    assert store.unwritten == 3
    store.mails.settle(settled(mails[0]))
    await _refused(store.mails.get("shop", "m9"))
    assert store.unwritten == 3
    (tmp_path / "away.db").rename(path)
    assert await watched.state() == ""
    assert store.unwritten == 0
    await store.close()
    again = sqlite_store(path, clock)
    await again.open()
    assert [(entry.mail.id, entry.progress.attempts) for entry in await left_in(again)] == [("m1", 49), ("m2", 49)]
    assert await again.mails.find("shop", "r0") == Earlier(settled(mails[0]))
    await again.close()


async def test_a_full_file_that_is_moved_away(tmp_path: Path, clock: Clock) -> None:
    """A file that is moved away while it has no room is found missing, and all goes on once it is back."""
    path = tmp_path / "store.db"
    watched = Watched(store := sqlite_store(path, clock, most_pages=60))
    await store.open()
    await store.mails.accept([entry_of(mail_of("m1"))])
    path.rename(tmp_path / "away.db")
    clock.time += 10
    store.mails.settle(settled(mail_of("m1")))
    async with asyncio.timeout(20):
        await _refused(store.mails.accept([entry_of(mail_of("m2"), content=bytes(400_000))]))
    assert "was moved or removed while the service runs" in await watched.state()
    (tmp_path / "away.db").rename(path)
    assert await watched.state() == ""
    assert await store.mails.accept([entry_of(mail_of("m3"))]) == [Accepted()]
    await store.close()


async def test_a_mistake_of_ours_stops_no_store(tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """An error that nobody expects is logged and refuses what was asked for; settlements are kept, and all goes on."""

    class Broken(Disk):
        is_broken = False

        def __call__(self, path: Path) -> int:
            if self.is_broken:
                raise RuntimeError("a mistake")
            return super().__call__(path)

    watched = Watched(store := sqlite_store(tmp_path / "store.db", clock, free=(disk := Broken())))
    await store.open()
    await store.mails.accept([entry_of(mail_of("m1"))])
    disk.is_broken = True
    store.mails.settle(ended := settled(mail_of("m1")))
    await _refused(store.mails.accept([entry_of(mail_of("m2"))]))
    assert "can't be written: RuntimeError('a mistake')" in await watched.state()
    await _refused(store.mails.get("shop", "m1"))
    disk.is_broken = False
    assert await watched.state() == ""
    assert await store.mails.get("shop", "m1") == ended
    await store.close()
    assert [record.message for record in caplog.records if record.exc_info] == [
        "the store's changes could not be written: RuntimeError('a mistake')"
    ]


class Dying(Disk):
    """A disk over whose look the thread of the store ends."""

    is_dying = False

    def __call__(self, path: Path) -> int:
        """Raise what no part of the store catches."""
        if self.is_dying:
            raise SystemExit
        return super().__call__(path)


@pytest.mark.parametrize("where", ["before a commit", "within it"])
async def test_a_thread_that_ends(tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, where: str) -> None:
    """Whatever ends the thread, all who wait for it have an error at once, and the part of the service ends too."""
    store = sqlite_store(tmp_path / "store.db", clock, free=(disk := Dying()))
    await store.open()
    await store.mails.accept([entry_of(mail_of("m1"))])
    sweeping = asyncio.create_task(store.sweep_forever(3600.0))
    waiting: list[asyncio.Future[Any]] = []
    if where == "before a commit":
        no_number: Any = "many"
        waiting.append(store._writer.ask(lambda _: None, no_number))
    else:
        disk.is_dying = True
    for number in range(3):
        waiting.append(asyncio.ensure_future(store.mails.accept([entry_of(mail_of(f"n{number}"))])))
        waiting.append(asyncio.ensure_future(store.challenges.update(b"a", lambda _: (RECORD, None))))
        await asyncio.sleep(0)  # each is handed over on its own
    async with asyncio.timeout(30):
        results = await asyncio.gather(*waiting, return_exceptions=True)
        with pytest.raises(StoreEnded):
            await sweeping
    assert {type(result) for result in results} == {StoreEnded}
    with pytest.raises(Unavailable, match=r"\Athe service's store has ended; its log says why\Z"):
        await store.mails.get("shop", "m1")
    store.mails.settle(settled(mail_of("m1")))
    await store.close()
    assert [record.levelname for record in caplog.records if "the thread of the store has ended" in record.message]
    again = sqlite_store(tmp_path / "store.db", clock)
    await again.open()
    assert "m1" in [entry.mail.id for entry in await left_in(again)]
    await again.close()


async def test_a_stop_without_a_disk_is_bounded(tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A store that can't be written at its close says so, and ends."""
    path = tmp_path / "store.db"
    store = sqlite_store(path, clock)
    await store.open()
    await store.mails.accept([entry_of(mail_of("m1"))])
    path.rename(tmp_path / "away.db")
    clock.time += 10
    store.mails.settle(settled(mail_of("m1")))
    await store.close()
    assert "the store could not be written before the stop" in caplog.text
    await _ends_with("the service is stopping", store.mails.get("shop", "m1"))


async def test_a_stop_during_a_long_start(tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A file that is still being opened at a stop is left behind, and nothing is said of mails."""
    path, goes_on = tmp_path / "store.db", threading.Event()
    database = Database(path)
    database.functions = step_functions(Digests(KEYS))
    writer = Writer(database, StoreClock(wall=clock), Rows(Cipher(KEYS), most=1, most_requests=1))
    opening = asyncio.create_task(writer.open(lambda _: goes_on.wait(60.0)))
    await asyncio.sleep(0)
    opening.cancel()
    await writer.close(seconds=0.01)
    assert "could not be written" not in caplog.text
    goes_on.set()
    async with asyncio.timeout(30):
        while True:
            with suppress(StoreError):  # until the thread has closed the file
                (again := Database(path)).open()
                break
            await asyncio.sleep(0.01)
    again.close()


async def _ends_with(words: str, asked: Awaitable[object]) -> None:
    with pytest.raises(Unavailable, match=re.escape(words)):
        await asked


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
    store = SqliteStore(database, KEYS, remember_seconds=3600, remember_count=10, rules=POLICY)
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
