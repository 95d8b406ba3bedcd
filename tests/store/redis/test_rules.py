"""The scripts of Redis say what `otp.policy` says: random decisions go through both, on real servers."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from otpmail.errors import LimitExceeded
from otpmail.model import CALL, FAILURE_WINDOW, Challenge, Check, CheckResult, CodeRecord, Sending
from otpmail.otp.codes import CodeBook
from otpmail.otp.policy import Policy
from otpmail.store import codec
from otpmail.store.challenges import ChallengeStore
from otpmail.store.digests import Digests
from otpmail.store.memory.codes import MemoryChallengeStore
from otpmail.store.redis.client import Client
from otpmail.store.redis.codes import RedisChallengeStore
from otpmail.store.redis.dial import Access, OneServer
from otpmail.store.redis.keys import Keys
from redis_server import HOST, RedisServer

POLICY = Policy(attempts=3, failures_per_hour=5, resend=30.0)
BOOKS = {
    first: CodeBook({first: bytes([ord(first[1])]) * 32, other: bytes([ord(other[1])]) * 32}, digits=6)
    for first, other in (("k1", "k2"), ("k2", "k1"))
}
_FORGOTTEN = CodeBook({"k3": b"3" * 32}, digits=6)
"""A key that issued codes, and that the service has no longer."""

_FOR_EVER = -1
_WAITS = st.sampled_from([0.25, 30.0, 31.0, 60.0, 90.0, 300.25, 1700.0, "end", "end", "next", "failure"])
_LIVES = st.sampled_from([2.0, 60.0, 120.0, 120.0, 600.0])
_WHICH = st.integers(0, 2)
_BOUND = st.sampled_from(["", "", "live", "other"])
_SEND = st.tuples(st.just("send"), st.booleans(), _LIVES, st.sampled_from(["k1", "k1", "k2", "k3"]))
_WRONG = st.tuples(st.just("check"), st.just("wrong"), _BOUND)
_WAIT = st.tuples(st.just("wait"), _WAITS)
_STEPS = st.one_of(
    *(_SEND, _SEND, _SEND, _WRONG, _WRONG, _WRONG, _WRONG, _WAIT, _WAIT),
    st.tuples(st.just("check"), st.sampled_from(["right", "none", "older"]), _BOUND),
    st.tuples(st.just("void"), _BOUND),
    st.tuples(st.sampled_from(["again", "withdraw"])),
    st.tuples(st.just("unsend"), _WHICH),
    st.tuples(st.just("refuse"), _WHICH),
)


_A_SEND = ("send", True, 600.0, "k1")
_A_WRONG_CODE = ("check", "wrong", "")
_SPENT_AND_SENT_AGAIN = [_A_SEND, *[_A_WRONG_CODE] * 3, ("wait", "next"), _A_SEND]
_REPLACED_AND_NEITHER_MAIL_SENT = [
    *(_A_SEND, ("wait", 300.25), _A_SEND, ("wait", "next"), _A_SEND, ("unsend", 0), ("unsend", 1)),
    ("check", "older", ""),
]


_WITHDRAWN_AFTER_IT_REPLACED = [_A_SEND, ("wait", 300.25), _A_SEND, ("again",), ("withdraw",), ("check", "older", "")]


class _Pair:
    """The same decisions in memory and on a server, and a look at both records after each."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self.now = 1_700_000_000.0  # so that sums with it are exact, and limits are met exactly
        self._client = client
        self._keys = keys
        self.memory = MemoryChallengeStore(self._clock, POLICY)
        self.redis = RedisChallengeStore(self._clock, client, keys, POLICY, _Issuer(), time=self._clock)
        self.key = uuid4().bytes
        self.sendings: list[Sending] = []
        self._issued = 0
        self._asked = self._fresh(600.0, "k1"), True

    async def step(self, name: str, *details: Any) -> None:
        """Take one decision in both stores; answer, refusal and record must be equal."""
        if name == "wait":
            self.now = await self._later(details[0])
            return
        decide = await self._decision(name, *details)
        expected, found = await _outcome(decide(self.memory)), await _outcome(decide(self.redis))
        assert found == expected
        if isinstance(expected, Sending):
            self.sendings.append(expected)
        elif isinstance(expected, Check) and expected.result is CheckResult.VALID:
            self._asked = self._fresh(600.0, "k1"), True  # no call without an answer has a code that was used
        assert _standing(await self._kept(), self.now) == _standing(await self._record(), self.now)

    def _fresh(self, lifespan: float, key_id: str) -> Challenge:
        self._issued += 1
        return Challenge(self._issued.to_bytes(16), key_id, self.now + lifespan)

    async def _decision(self, name: str, *details: Any) -> Callable[[ChallengeStore], Awaitable[Any]]:
        match name, details:
            case "withdraw", ():
                return self._withdraw
            case ("again", ()) | ("send", (_, _, _)):
                if details:
                    spaced, lifespan, key_id = details
                    self._asked = self._fresh(lifespan, key_id), spaced
                return self._send
            case "check", (typed, bound):
                guess = BOOKS["k1"].guess(await self._typed(typed))
                only = await self._bound(bound)
                return lambda store: store.check(self.key, self.now, guess, only)
            case "void", (bound,):
                only = await self._bound(bound)
                return lambda store: store.void(self.key, only)
            case _, (which,):
                if which >= len(self.sendings):
                    return lambda store: store.void(self.key, bytes(16))
                sending = self.sendings[-1 - which]
                return lambda store: (store.refuse if name == "refuse" else store.unsend)(self.key, sending)
        raise AssertionError(name)

    async def _send(self, store: ChallengeStore) -> Sending:
        fresh, spaced = self._asked
        return await store.send(self.key, self.now, fresh, spaced=spaced, room=True)

    async def _withdraw(self, store: ChallengeStore) -> None:
        fresh, _ = self._asked
        if isinstance(store, RedisChallengeStore):
            await store.withdraw(self.key, fresh)
            await store.settled(self.key)
        else:
            await self.memory.update(self.key, lambda record: POLICY.withdraw(record, fresh.id[CALL]))

    async def _later(self, wait: float | str) -> float:
        """Return the time after so many seconds, or at the very end of something in the record."""
        record = await self._record()
        if isinstance(wait, float):
            return self.now + wait
        live = await self._live()
        ends = {
            "end": live.expires if live is not None else 0.0,
            "next": record.next_send if record is not None else 0.0,
            "failure": record.failures[0] + FAILURE_WINDOW if record is not None and record.failures else 0.0,
        }
        return max(self.now, ends[wait])

    def _clock(self) -> float:
        return self.now

    async def _record(self) -> CodeRecord | None:
        return await self.memory.update(self.key, lambda record: (record, record))

    async def _live(self) -> Challenge | None:
        record = await self._record()
        return None if record is None else record.challenge

    async def _kept(self) -> CodeRecord | None:
        value = await self._client.command("GET", self._keys.codes(self.key)[0])
        if value is None:
            return None
        record = codec.decode_record(value[32:])
        challenge = record.challenge
        proof = bytes(32) if challenge is None else _Issuer().proof(self.key, challenge)
        assert value[:32] == proof
        if record.replaced is not None:
            assert value[-32:] == _Issuer().proof(self.key, record.replaced.challenge)
        assert await self._client.command("PTTL", self._keys.codes(self.key)[0]) != _FOR_EVER
        return record

    async def _typed(self, kind: str) -> str:
        live = await self._live()
        older = self.sendings[0].challenge if self.sendings else None
        if kind == "right" and live is not None:
            return _Issuer().code(live)
        if kind == "older" and older is not None:
            return _Issuer().code(older)
        return "12345" if kind == "none" else "000000"

    async def _bound(self, kind: str) -> bytes | None:
        if kind == "":
            return None
        live = await self._live()
        return live.id if kind == "live" and live is not None else b"another challenge"[:16]


class _Issuer:
    """Makes proofs and codes with each key that ever issued one."""

    def proof(self, key: bytes, challenge: Challenge) -> bytes:
        """Return the proof of a challenge."""
        return self._book(challenge).proof(key, challenge)

    def code(self, challenge: Challenge) -> str:
        """Return the code of a challenge."""
        return self._book(challenge).code(challenge)

    def _book(self, challenge: Challenge) -> CodeBook:
        return _FORGOTTEN if challenge.key_id == "k3" else BOOKS["k1"]


def _standing(record: CodeRecord | None, now: float) -> CodeRecord | None:
    """Return the record unless it has ended: a server drops that by itself, and memory in its next sweep."""
    return None if record is None or record.expires <= now else record


async def _outcome(decision: Awaitable[Any]) -> Any:
    """Return what a decision has answered, or how it has refused."""
    try:
        return await decision
    except LimitExceeded as error:
        return str(error), error.subject, error.retry_after


@contextmanager
def _client_of(server: RedisServer) -> Iterator[tuple[asyncio.Runner, Client]]:
    with asyncio.Runner() as runner:
        client = Client(OneServer((HOST, server.port)), Access())
        try:
            yield runner, client
        finally:
            runner.run(client.close())


@pytest.mark.timeout(300)
def test_random_decisions(redis_server: RedisServer) -> None:
    """Answers, refusals and records are equal after each decision, to the last bit of a time."""
    keys = Keys(uuid4().hex, Digests({"k1": bytes(32)}))
    with _client_of(redis_server) as (runner, client):

        @settings(deadline=None, max_examples=80, suppress_health_check=list(HealthCheck))
        @example(_SPENT_AND_SENT_AGAIN)
        @example(_WITHDRAWN_AFTER_IT_REPLACED)
        @example(_REPLACED_AND_NEITHER_MAIL_SENT)
        @given(st.lists(_STEPS, min_size=20, max_size=100))
        def decide(steps: list[tuple[Any, ...]]) -> None:
            runner.run(_decide(_Pair(client, keys), steps))

        decide()


async def _decide(pair: _Pair, steps: list[tuple[Any, ...]]) -> None:
    for name, *details in steps:
        await pair.step(name, *details)


@pytest.mark.parametrize("digits", [4, 10])
def test_a_proof_is_of_one_record(digits: int) -> None:
    """The proof of a code is another for each key and each record, so that none can be moved or looked up."""
    book = CodeBook({"k1": b"1" * 32, "k2": b"2" * 32}, digits=digits)
    challenge = Challenge(bytes(16), "k1", 0.0)
    proof = book.proof(b"a", challenge)
    assert book.proofs(b"a", book.code(challenge))[0] == ("k1", proof)
    assert proof not in {book.proof(b"b", challenge), *[other for _, other in book.proofs(b"b", book.code(challenge))]}
    assert len(proof) == 32
