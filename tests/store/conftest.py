"""Every store behind the same fixtures, on a clock that the test moves."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from otpmail.store.base import MailStore
from otpmail.store.clock import StoreClock
from otpmail.store.memory import MemoryStore
from otpmail.store.memory.codes import MemoryChallengeStore
from otpmail.store.sqlite import SqliteStore
from otpmail.store.sqlite.codes import SqliteChallengeStore
from otpmail.store.sqlite.database import Database
from store.clocks import Clock
from store.entries import REMEMBER_COUNT, REMEMBER_SECONDS

KEYS = {"k1": bytes(32)}

AnyStore = MemoryStore | SqliteStore
Challenges = MemoryChallengeStore | SqliteChallengeStore


@pytest.fixture
def clock() -> Clock:
    """A clock that stands until the test moves it."""
    return Clock()


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, clock: Clock, tmp_path: Path) -> AsyncIterator[AnyStore]:
    """Each store in turn, open."""
    if request.param == "memory":
        opened: MemoryStore | SqliteStore = MemoryStore(
            clock, remember_seconds=REMEMBER_SECONDS, remember_count=REMEMBER_COUNT
        )
    else:
        opened = sqlite_store(tmp_path / "store.db", clock)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def mails(store: AnyStore) -> MailStore:
    """The mails of each store in turn."""
    return store.mails


@pytest.fixture
def challenges(store: AnyStore) -> Challenges:
    """The codes of each store in turn."""
    return store.challenges


def sqlite_store(
    path: Path,
    clock: Clock,
    *,
    keys: dict[str, bytes] | None = None,
    remember_octets: int = 1 << 30,
    **options: Any,
) -> SqliteStore:
    """Return a SQLite store on the test's clock, not yet open; `options` are those of its `Database`."""
    return SqliteStore(
        Database(path, **options),
        keys or KEYS,
        StoreClock(wall=clock, elapsed=clock),
        remember_seconds=REMEMBER_SECONDS,
        remember_count=REMEMBER_COUNT,
        remember_octets=remember_octets,
    )
