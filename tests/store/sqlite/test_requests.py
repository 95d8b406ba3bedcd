"""The request ids of one transaction: read and written together, they end as if each step had its own transaction."""

import random
import sqlite3
from collections.abc import Callable

import pytest

from otpmail.store.sqlite.changes import RequestState
from otpmail.store.sqlite.migration import create
from otpmail.store.sqlite.requests import End, Requests, Row
from otpmail.store.sqlite.schema import STEPS

KEYS = list(range(-2, 2))
MAILS = [f"m{number}" for number in range(4)]

Step = Callable[[Requests, sqlite3.Connection], object]


def _file() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    create(connection, STEPS)
    Requests().load(connection)
    return connection


def _claim(key: int, mail_id: str, seq: int) -> Step:
    """Claim a key for a mail, unless another mail runs with it, as `Rows` does."""

    def step(requests: Requests, connection: sqlite3.Connection) -> None:
        row = requests.get(connection, key)
        if row is None or row.state is not RequestState.RUNNING:
            requests.keep(key, Row(RequestState.RUNNING, mail_id, seq, b"f", 100.0, is_claim=True))

    return step


def _steps(chance: random.Random, count: int) -> list[Step]:
    """Return random steps over few keys and mails, so that many meet."""
    steps: list[Step] = []
    for seq in range(1, count + 1):
        key, mail_id = KEYS[seq % len(KEYS)], chance.choice(MAILS)
        known = chance.choice(range(seq, 0, -len(KEYS)))  # a call with the same request id
        end = End(chance.choice([RequestState.SETTLED, RequestState.FREE]), chance.choice([40.0, 60.0]), seq)
        now = chance.choice([39.0, 50.0, 70.0])
        kinds: list[Step] = [
            _claim(key, mail_id, seq),
            _claim(key, mail_id, seq),
            lambda requests, connection, key=key: requests.get(connection, key),  # type: ignore[misc]
            lambda requests, connection, key=key, mail=mail_id: requests.release(connection, key, mail),  # type: ignore[misc]
            lambda requests, connection, key=key, known=known, end=end: requests.settle(  # type: ignore[misc]
                connection, key, known, end
            ),
            lambda requests, connection, now=now: _forget(requests, connection, now),  # type: ignore[misc]
        ]
        steps.append(chance.choice(kinds))
    return steps


def _forget(requests: Requests, connection: sqlite3.Connection, now: float) -> None:
    requests.rewind()
    requests.forget(connection, now, (1, 3))


@pytest.mark.parametrize("seed", range(200))
def test_many_steps_end_as_single_ones(seed: int) -> None:
    """Steps of one transaction leave the rows that they leave in a transaction each, read ahead or not."""
    chance = random.Random(seed)
    steps = _steps(chance, chance.randint(2, 25))
    together, single = _file(), _file()
    requests = Requests()
    requests.read_ahead(together, chance.sample(KEYS, chance.randint(0, 4)))
    alone = Requests()
    for step in steps:
        step(requests, together)
        step(alone, single)
        alone.write_changed(single)
        alone.end(committed=True)
    requests.write_changed(together)
    requests.end(committed=True)
    for table in ("request", "known", "claimed"):
        read = f"SELECT * FROM {table} ORDER BY 1"
        assert together.execute(read).fetchall() == single.execute(read).fetchall()
    assert repr(requests) == "<Requests 0 read, 0 changed>"
    together.close()
    single.close()


def test_ids_with_ends_of_their_own_hold_up_no_other() -> None:
    """A request id that runs, or is free for long, keeps none behind it that is past its time."""
    file, requests = _file(), Requests()
    states = [RequestState.RUNNING, RequestState.FREE, RequestState.ORPHANED, *[RequestState.SETTLED] * 3]
    for seq, state in enumerate(states, 1):
        ends = 900.0 if seq < len(states) - 2 else 100.0 * seq
        requests.keep(seq, Row(state, f"m{seq}", seq, b"f", ends, place=10 * seq))
    requests.write_changed(file)
    requests.end(committed=True)

    def left(now: float, first: int = 0) -> list[int]:
        requests.rewind()
        assert not requests.forget(file, now, (1, first))
        return [seq for (seq,) in file.execute("SELECT seq FROM request ORDER BY seq")]

    assert left(400.0) == [1, 2, 3, 5, 6]
    assert left(400.0, first=51) == [1, 2, 3, 6]
    assert left(900.0) == [1]
    file.close()
