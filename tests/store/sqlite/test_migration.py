"""A large file of an earlier schema is brought up to date in small commits, which a crash may interrupt anywhere."""

import hashlib
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from earlier import FILES, unpack
from otpmail.errors import StoreError
from otpmail.store.digests import Digests
from otpmail.store.sqlite.database import Database
from otpmail.store.sqlite.schema import SCHEMA, UNDER_WAY, step_functions
from store.conftest import KEYS

MAILS, CODES = 4_000, 40_000
BOUNDS = {"moves._MOST_ROWS": 500, "moves._MOST_CODES": 3_000, "migration._CHECKPOINT_PAGES": 200}
"""A tenth of those of the service, so that a file of some thousands of rows takes many slices."""

ENDS = 4e9
RECORD = bytes(100)

_DIES = """
import os, signal, sys
from pathlib import Path
from unittest.mock import patch
from otpmail.store.digests import Digests
from otpmail.store.sqlite.database import Database
from otpmail.store.sqlite.schema import step_functions

path, wanted, calls = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
functions = dict(step_functions(Digests({"k1": bytes(32)})))
named = functions[wanted]

def dies(octets):
    global calls
    calls -= 1
    if not calls:
        os.kill(os.getpid(), signal.SIGKILL)
    return named(octets)

functions[wanted] = dies
for name, bound in eval(sys.argv[4]).items():
    patch(f"otpmail.store.sqlite.{name}", bound).start()
database = Database(path)
database.functions = functions
database.open()
"""
"""Opens a file, and is killed at a call of one of the functions that bring it up to date."""


def _name(kind: str, number: int) -> str:
    return hashlib.sha256(f"{kind}{number}".encode()).hexdigest()[:32]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of schema 3 with thousands of settled mails, request ids and codes."""
    path = unpack(FILES[-1], tmp_path_factory.mktemp("large") / "store.db")
    mails, codes = range(MAILS), range(CODES)
    with closing(sqlite3.connect(path)) as file, file:
        assert file.execute("PRAGMA user_version").fetchone() == (3,)
        rows = [(1000 + n, _name("m", n), n % 2, ENDS + n, bytes.fromhex(_name("r", n)), RECORD) for n in mails]
        file.executemany("INSERT INTO settled VALUES (?, ?, ?, ?, ?, ?)", rows)
        ids = [(bytes.fromhex(_name("r", n)), 2, _name("m", n), 1000 + n, bytes(32), ENDS) for n in mails]
        file.executemany("INSERT INTO request VALUES (?, ?, ?, ?, ?, ?)", ids)
        records = [(f"plain-{n}".encode(), ENDS, RECORD) for n in codes]
        file.executemany("INSERT INTO code VALUES (?, ?, ?)", records)
        file.execute("INSERT INTO code VALUES (x'01', 1.0, x'00')")
    return path


def _opened(path: Path) -> Database:
    database = Database(path)
    database.functions = step_functions(Digests(KEYS))
    database.open()
    return database


def _tables(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return all that a file has after it was brought up to date, but for the time."""
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert file.execute("PRAGMA user_version").fetchall() == [(SCHEMA,)]
        names = [name for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")]
        return {name: file.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall() for name in names if name != "clock"}


def _kill(path: Path, function: str, call: int) -> None:
    words = [sys.executable, "-c", _DIES, str(path), function, str(call), repr(BOUNDS)]
    assert subprocess.run(words, check=False, timeout=60).returncode < 0


@pytest.fixture
def bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let slices be small."""
    for name, bound in BOUNDS.items():
        monkeypatch.setattr(f"otpmail.store.sqlite.{name}", bound)


@pytest.mark.usefixtures("bounds")
def test_a_large_file_takes_small_commits(large: Path, tmp_path: Path) -> None:
    """No commit makes the log large, all rows arrive in their order, and no plain name of a code is left."""
    path = Path(shutil.copy(large, tmp_path / "store.db"))
    sizes = [0]
    functions = dict(step_functions(Digests(KEYS)))
    record_name = functions["record_name"]

    def watched(octets: bytes) -> bytes | int:
        sizes.append(path.with_name("store.db-wal").stat().st_size)
        return record_name(octets)

    database = Database(path)
    database.functions = {**functions, "record_name": watched}
    database.open()
    database.close()
    assert 0 < max(sizes) <= 5 << 20 < large.stat().st_size
    tables = _tables(path)
    names = {Digests(KEYS).record_names(f"plain-{n}".encode())[0] for n in range(CODES)}
    assert {key for key, *_ in tables["code"]} >= names
    assert len(tables["code"]) == CODES + 1  # that of the earlier file, and none that has ended
    ids = [mail_id for _, mail_id in tables["remembered"] if len(str(mail_id)) == 32]
    assert ids == [_name("m", n) for kept in (0, 1) for n in range(kept, MAILS, 2)]
    places = {mail_id: place for place, mail_id in tables["remembered"]}
    assert {row[0]: row[-1] for row in tables["request"] if int(str(row[0])) >= 1000} == {
        1000 + n: places[_name("m", n)] for n in range(MAILS)
    }
    assert b"plain-" not in path.read_bytes()


@pytest.mark.parametrize(
    ("function", "call"), [("key_number", 3), ("key_number", 3_500), ("record_name", 5), ("record_name", 29_000)]
)
def test_a_kill_on_the_way(large: Path, tmp_path: Path, function: str, call: int) -> None:
    """A start after a kill goes on, with the same result; meanwhile an earlier program refuses the file."""
    whole, path = (Path(shutil.copy(large, tmp_path / name)) for name in ("whole.db", "store.db"))
    _opened(whole).close()
    _kill(path, function, call)
    assert path.with_name("store.db-wal").stat().st_size <= 5 << 20
    copy = Path(shutil.copy(path, tmp_path / "copy.db"))
    shutil.copy(path.with_name("store.db-wal"), tmp_path / "copy.db-wal")
    with closing(sqlite3.connect(copy)) as file:
        [version] = file.execute("PRAGMA user_version").fetchone()
    assert version == UNDER_WAY + 3 > SCHEMA
    _opened(path).close()
    assert _tables(path) == _tables(whole)


def test_a_file_that_a_newer_program_moves(large: Path, tmp_path: Path) -> None:
    """A file that is being brought to a later schema than this program's is refused, and stays as it is."""
    path = Path(shutil.copy(large, tmp_path / "store.db"))
    with closing(sqlite3.connect(path)) as file:
        file.execute(f"PRAGMA user_version={UNDER_WAY + SCHEMA}")
    before = path.read_bytes()
    with pytest.raises(
        StoreError, match=rf"written by a newer otpmail \(schema {SCHEMA + 1}; this one knows {SCHEMA}\)"
    ):
        _opened(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
