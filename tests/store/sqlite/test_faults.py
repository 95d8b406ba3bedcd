"""Faults of the disk and of the thread under an open SQLite store: Unavailable in flight, and all goes on after it."""

import asyncio
import os
import re
import threading
from collections.abc import Awaitable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from code_records import a_record
from otpmail.errors import StoreEnded, StoreError, Unavailable
from otpmail.model import Mail
from otpmail.store.base import Accepted, Earlier, Progress, Request, StoreState
from otpmail.store.cipher import Cipher
from otpmail.store.clock import StoreClock
from otpmail.store.digests import Digests
from otpmail.store.retention import Retention
from otpmail.store.sqlite import SqliteStore
from otpmail.store.sqlite.database import Database
from otpmail.store.sqlite.rows import Rows
from otpmail.store.sqlite.schema import step_functions
from otpmail.store.sqlite.writer import Writer
from store.clocks import Clock
from store.conftest import KEYS, left_in, sqlite_store
from store.entries import entry_of, mail_of, settled

RECORD = a_record(5000.0, 2)


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


async def test_refused_calls_leave_no_changes(tmp_path: Path, clock: Clock) -> None:
    """A call that is refused while the file can't be written leaves nothing that waits, however many there are."""
    path = tmp_path / "store.db"
    watched = Watched(store := sqlite_store(path, clock))
    await store.open()
    claimed = Request("shop", "r0", b"f")
    assert await store.mails.claim(claimed, "m0") == Accepted()
    path.rename(tmp_path / "away.db")
    clock.time += 10
    await _refused(store.mails.accept([entry_of(mail_of("m9"))]))
    await watched.state()
    for number in range(1, 50):
        request = Request("shop", f"r{number}", b"f")
        await _refused(store.mails.claim(request, f"m{number}"))
        store.mails.release(request, f"m{number}")
    store.mails.release(claimed, "m0")
    await _refused(store.mails.get("shop", "m9"))  # behind them, so the thread has met them
    assert store.unwritten == 1
    (tmp_path / "away.db").rename(path)
    assert await watched.state() == ""
    for number in range(2):
        assert await store.mails.claim(Request("shop", f"r{number}", b"other"), "new") == Accepted()
    await store.close()


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


async def test_a_disk_that_does_not_answer(tmp_path: Path, clock: Clock) -> None:
    """While a commit is stuck, calls are refused at once and wait for nothing; what was noted is written after it."""
    database, goes_on, written = Database(tmp_path / "store.db"), threading.Event(), []
    database.functions = step_functions(Digests(KEYS))
    rows = Rows(Cipher(KEYS), Retention(count=1, request_count=1))
    writer = Writer(database, StoreClock(wall=clock), rows, stall_seconds=0.2)
    await writer.open(lambda _: None)
    states: asyncio.Queue[StoreState] = asyncio.Queue()
    writer.changed = states.put_nowait
    assert await writer.ask(lambda _: "works") == "works"
    stuck = writer.ask(lambda _: goes_on.wait(60.0))
    async with asyncio.timeout(30):
        assert "takes no change: its disk has not answered for some seconds" in (await states.get()).problem
        await _refused(writer.ask(lambda _: written.append("asked")))
        writer.note(lambda _: written.append("noted"))
        goes_on.set()
        assert await stuck
        assert (await states.get()).problem == ""
        assert await writer.ask(lambda _: "works") == "works"
    assert written == ["noted"]
    await writer.close()
    assert states.empty()


async def test_a_file_that_gives_much_back_is_not_stuck(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that answers for each slice of free pages answers, however many slices there are."""
    database, begun, answers = Database(tmp_path / "store.db"), threading.Semaphore(0), threading.Semaphore(0)
    rows, slices = Rows(Cipher(KEYS), Retention(count=1, request_count=1)), count()
    writer = Writer(database, StoreClock(wall=clock), rows, stall_seconds=0.0)

    def give_back() -> bool:
        begun.release()
        return answers.acquire(timeout=30) and next(slices) < 5

    monkeypatch.setattr(database, "vacuum_slice", give_back)
    await writer.open(lambda _: None)
    states: asyncio.Queue[StoreState] = asyncio.Queue()
    writer.changed = states.put_nowait
    for _ in range(5):
        assert await asyncio.to_thread(begun.acquire, timeout=30)
        writer._stall._look()  # each finds the thread at another slice
        writer._stall.close()  # and no other look comes between
        assert not writer._stall.is_stuck
        answers.release()
    answers.release(10)
    await writer.close()
    assert states.empty()


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
    writer = Writer(database, StoreClock(wall=clock), Rows(Cipher(KEYS), Retention(count=1, request_count=1)))
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
