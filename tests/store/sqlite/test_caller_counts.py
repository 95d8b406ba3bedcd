"""Whose the settled mails of a file are: known also after a restart, and held to the file by random changes."""

import random
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from otpmail.model import Mail
from otpmail.store.base import Accepted, Earlier, Request
from otpmail.store.cipher import Cipher
from otpmail.store.codec import encode_settled
from otpmail.store.sqlite.migration import create
from otpmail.store.sqlite.requests import request_key
from otpmail.store.sqlite.schema import STEPS
from otpmail.store.sqlite.settled import Settled, SettledMail
from store.clocks import Clock
from store.conftest import KEYS, sqlite_store
from store.entries import mail_of, settled

MOST, MOST_REQUESTS = 60, 100
CALLERS = ("large", "large", "large", "large", "large", "large", "middle", "middle", "small")


class _World:
    """Settled mails of several callers in a file, by their ids in the order of their ends."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        create(self.connection, STEPS)
        self.mails: dict[str, SettledMail] = {}
        self.requests: dict[str, int] = {}
        self.restart()

    def restart(self) -> None:
        """Go on as another process."""
        self.settled = Settled(Cipher(KEYS), most=MOST, most_requests=MOST_REQUESTS)

    def settle(self, count: int) -> None:
        """Let mails settle in one transaction."""
        for _ in range(count):
            number, caller = len(self.mails), self.chance.choice(CALLERS)
            ends = 9000.0 if self.chance.random() < 0.7 else 0.0
            one = settled(mail_of(f"m{number}", caller=caller, request_id=f"r{number}" if ends else ""))
            octets = encode_settled(one, forgotten=5000.0, request_ends=ends, fingerprint=b"")
            mail = SettledMail(one.id, caller, octets, 5000.0, ends, has_content=False)
            self.mails[one.id] = mail
            place = self.settled.add(self.connection, mail)
            if ends:
                self.requests[one.id] = place
        self.settled.write_added(self.connection)
        self.settled.end(committed=True)

    def forget(self) -> None:
        """Forget what is too much, until nothing more is."""
        more = True
        while more:
            more = self.settled.forget(self.connection, 1000.0, self._is_named)
            for moved in self.settled.moved:
                if self.requests.get(name := f"m{moved.request_id[1:]}") == moved.place:
                    self.requests[name] = moved.new
                    row = (-moved.new, request_key(moved.caller, moved.request_id), 2, 9000, b"", moved.new)
                    self.connection.execute("DELETE FROM request WHERE seq = ?", (-moved.place,))
                    self.connection.execute("INSERT INTO request VALUES (?, ?, ?, ?, ?, ?)", row)
            more |= self.settled.merge(self.connection)
        self.settled.end(committed=True)

    def _is_named(self, mail: Mail, place: int) -> bool:
        return self.requests[mail.id] == place

    def found(self) -> tuple[Counter[str], Counter[str]]:
        """Return how many mails of each caller are found by their ids, and by their request ids."""
        ids = [mail for mail in self.mails.values() if self.settled.place_of(self.connection, mail.mail_id)]
        for mail in ids:
            place = self.settled.place_of(self.connection, mail.mail_id)
            assert self.settled.get(self.connection, place) == mail.octets
        requests = [self.mails[name] for name, place in self.requests.items() if self._is_at(name, place)]
        return Counter(mail.caller for mail in ids), Counter(mail.caller for mail in requests)

    def _is_at(self, name: str, place: int) -> bool:
        return self.settled.get(self.connection, place) == self.mails[name].octets

    def settled_by(self, caller: str, *, requests: bool) -> int:
        """Return how many mails of a caller have settled."""
        return sum(mail.caller == caller and (bool(mail.ends) or not requests) for mail in self.mails.values())


@pytest.mark.parametrize("seed", range(8))
def test_shares_hold(seed: int) -> None:
    """A caller with less than its share keeps all it has, others have theirs, and together no more than there may."""
    world = _World(seed)
    for _ in range(12):
        for _ in range(world.chance.randint(1, 6)):
            world.settle(world.chance.randint(1, 20))
        if world.chance.random() < 0.4:
            world.restart()
        world.forget()
        ids, requests = world.found()
        slack = 32  # mails of a row that is not over as a whole
        assert sum(ids.values()) <= MOST
        assert sum(requests.values()) <= MOST_REQUESTS + slack
        for found, most, is_request in ((ids, MOST, False), (requests, MOST_REQUESTS, True)):
            for caller in set(CALLERS):
                all_there_were = world.settled_by(caller, requests=is_request)
                assert found[caller] >= min(all_there_were, most // len(set(CALLERS)) - 1)
    world.connection.close()


async def test_a_flood_after_a_restart(tmp_path: Path, clock: Clock) -> None:
    """A flood takes no request id of another caller that an earlier process has kept, also through later restarts."""
    most = 100
    for start in range(4):
        store = sqlite_store(tmp_path / "store.db", clock, most_requests=most)
        await store.open()
        for caller in ["shop"] * (start == 0) + ["flood"] * most:
            name = f"{start}-{store.mails._settled}"
            assert await store.mails.claim(Request(caller, name, b"f"), f"{caller}{name}") == Accepted()
            store.mails.settle(settled(mail_of(f"{caller}{name}", caller=caller, request_id=name, create_time=1000.0)))
        await store.mails.forget_ended()
        found = await store.mails.claim(Request("shop", "0-0", b"f"), "another")
        assert isinstance(found, Earlier)
        assert found.mail.id == "shop0-0"
        assert await store.mails.find("flood", f"{start}-{most - 1}") is not None
        await store.close()
