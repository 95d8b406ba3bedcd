"""Settled mails in packs: each is found by its place, its id or its request id until it is forgotten."""

import random
import sqlite3
from dataclasses import dataclass, field

import pytest

from otpmail.store.cipher import Cipher
from otpmail.store.codec import encode_settled
from otpmail.store.sqlite.migration import create
from otpmail.store.sqlite.schema import STEPS
from otpmail.store.sqlite.series import Series
from otpmail.store.sqlite.settled import Settled, SettledMail
from store.entries import mail_of

KEYS = {"k1": bytes(32)}
REMEMBERED, ANSWERED = 100.0, 1000.0  # seconds
MOST, MOST_REQUESTS = 300, 400
PACK = 60  # mails that settle in one commit at most
SLACK = 2 * PACK  # mails between which packs of two kinds may be forgotten in another order


def _file() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    create(connection, STEPS)
    return connection


@dataclass
class _Kept:
    """A mail that the test has settled. `content`: its content is kept, and its row stays its own."""

    mail: SettledMail
    place: int


@dataclass
class _World:
    """Settled mails in a file, and what should be there."""

    chance: random.Random
    connection: sqlite3.Connection = field(default_factory=_file)
    now: float = 1000.0
    kept: list[_Kept] = field(default_factory=list)
    count: int = 0

    def __post_init__(self) -> None:
        """Open the file."""
        self.restart()

    def restart(self) -> None:
        """Go on as another process, which knows what is in the file."""
        self.settled = Settled(Cipher(KEYS), most=MOST, most_requests=MOST_REQUESTS)

    def commit(self, mails: int, *, committed: bool = True) -> None:
        """Settle mails in one transaction, which is taken back unless it is `committed`."""
        self.connection.execute("BEGIN")
        added = [self._add() for _ in range(mails)]
        if added and self.chance.random() < 0.3:
            one = self.chance.choice(added)
            assert self.settled.get(self.connection, one.place) == one.mail.octets
        self.settled.write_added(self.connection)
        self.connection.execute("COMMIT" if committed else "ROLLBACK")
        self.settled.end(committed=committed)
        self.kept += added if committed else []

    def _add(self) -> _Kept:
        self.count += 1
        self.now += 0.01
        with_request, content = self.chance.random() < 0.6, self.chance.random() < 0.1
        ends = self.now + ANSWERED if with_request else 0.0
        one = mail_of(f"m{self.count}", request_id="r" * self.chance.randint(1, 50))
        octets = encode_settled(one, forgotten=self.now + REMEMBERED, request_ends=ends, fingerprint=b"")
        mail = SettledMail(one.id, one.caller, octets, self.now + REMEMBERED, ends, content)
        place = self.settled.add(self.connection, mail)
        if content:
            row = place, self.now + REMEMBERED, 1, b"p", b"c"
            self.connection.execute("INSERT INTO failed VALUES (?, ?, ?, ?, ?)", row)
        return _Kept(mail, place)

    def forget(self) -> None:
        """Forget and merge until nothing is left to do."""
        self.connection.execute("BEGIN")
        while self.settled.forget(self.connection, self.now, lambda *_: False) | self.settled.merge(self.connection):
            pass
        self.connection.execute("COMMIT")
        self.settled.end(committed=True)

    def check(self) -> None:
        """Compare what is found with what should be."""
        newest = [kept for kept in self.kept if kept.mail.forgotten > self.now][-MOST + SLACK :]
        for kept in newest:
            assert self.settled.place_of(self.connection, kept.mail.mail_id) == kept.place
            assert self.settled.get(self.connection, kept.place) == kept.mail.octets
        found, last = self.settled.slice(self.connection, 0, 40)
        while last:
            more, last = self.settled.slice(self.connection, last, 40)
            found += more
        known = {kept.mail.octets for kept in self.kept}
        assert len(found) == len(set(found))
        assert {kept.mail.octets for kept in newest} <= set(found) <= known
        requested = [kept for kept in self.kept if kept.mail.ends]
        for kept in [one for one in requested if one.mail.ends > self.now][-MOST_REQUESTS + SLACK :]:
            assert self.settled.get(self.connection, kept.place) == kept.mail.octets

    def counts(self) -> tuple[int, int]:
        """Return how many mails ids find, and how many places have a mail with a request id."""
        [ids] = self.connection.execute("SELECT count(*) FROM remembered").fetchone()
        base = Series(self.connection, requested=True).base
        [places] = self.connection.execute("SELECT sum(mails) FROM settled WHERE place >= ?", (base,)).fetchone()
        return ids, places or 0


@pytest.mark.parametrize("seed", range(20))
def test_mails_are_found_until_they_are_forgotten(seed: int) -> None:
    """Whatever settles, is merged or taken back: each mail is found while it should be, and no more than there may."""
    world = _World(random.Random(seed))
    for _ in range(60):
        match world.chance.choice(["one", "some", "many", "undone", "forget", "wait", "restart", "rewind"]):
            case "one":
                world.commit(1)
            case "some":
                world.commit(world.chance.randint(2, 12))
            case "many":
                world.commit(world.chance.randint(30, PACK))
            case "undone":
                world.commit(world.chance.randint(1, 9), committed=False)
            case "forget":
                world.forget()
                ids, places = world.counts()
                assert ids <= MOST
                assert places <= MOST_REQUESTS + SLACK
            case "wait":
                world.now += world.chance.choice([1.0, 30.0, 101.0])
            case "restart":
                world.restart()
            case "rewind":
                world.settled.rewind()
        world.check()
    world.now += ANSWERED + 1
    world.forget()
    assert world.counts() == (0, 0)
    assert world.connection.execute("SELECT count(*) FROM settled").fetchone() == (0,)
    assert world.connection.execute("SELECT count(*) FROM failed").fetchone() == (0,)
    world.connection.close()


def test_small_rows_are_merged() -> None:
    """Mails that settle one by one end in few rows, but for those whose content is kept or whose key is gone."""
    world = _World(random.Random(1))
    for _ in range(MOST - 1):
        world.commit(1)
    world.settled = Settled(Cipher({"k2": b"2" * 32} | KEYS), most=MOST, most_requests=MOST_REQUESTS)
    world.forget()
    world.check()
    [alone] = world.connection.execute("SELECT count(*) FROM settled WHERE id IS NOT NULL").fetchone()
    [rows] = world.connection.execute("SELECT count(*) FROM settled").fetchone()
    contents = sum(kept.mail.has_content for kept in world.kept)
    assert contents <= alone < MOST / 2
    assert rows < MOST / 2
    unreadable = Settled(Cipher({"k3": b"3" * 32}), most=MOST, most_requests=MOST_REQUESTS)
    unreadable.merge(world.connection)
    assert unreadable.slice(world.connection, 0, MOST) == ([], 0)
    assert world.connection.execute("SELECT count(*) FROM settled").fetchone() == (rows,)
    world.connection.close()


def test_a_mail_alone_is_removed() -> None:
    """A mail that is opened again is found neither by its place nor by its id, and the others are."""
    world = _World(random.Random(2))
    world.commit(40)
    one = next(kept for kept in world.kept if kept.mail.has_content)
    world.settled.remove(world.connection, one.place)
    assert world.settled.get(world.connection, one.place) is None
    assert world.settled.place_of(world.connection, one.mail.mail_id) == 0
    world.kept.remove(one)
    world.check()
    world.forget()
    world.check()
    world.connection.close()
