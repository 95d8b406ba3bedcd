"""The scripts of Redis say what `otp.policy` says: random decisions go through both, on real servers."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from operator import xor
from typing import Any
from uuid import uuid4

import msgpack
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from otpmail.code_record import CALL, STRANGERS, Answer, CodeRecord, Lane, Replaced, Slot
from otpmail.errors import LimitExceeded
from otpmail.limits.rules import Windows, recent_counts
from otpmail.model import DAY, FIXED_KEY, HOUR, LETTERS, LONG, Challenge, Check, CheckResult, Counts, Sending
from otpmail.otp.codes import CodeBook
from otpmail.otp.policy import Policy
from otpmail.store.challenges import Attempt, ChallengeStore, Quota, Send
from otpmail.store.counts_codec import NO_COUNTS, counts_end, decode_counts, encode_counts
from otpmail.store.digests import Digests
from otpmail.store.memory.codes import MemoryChallengeStore
from otpmail.store.record_codec import ends_of
from otpmail.store.redis.client import Client
from otpmail.store.redis.codes import RedisChallengeStore
from otpmail.store.redis.dial import Access, OneServer
from otpmail.store.redis.keys import Keys
from ports import HOST
from redis_server import RedisServer

POLICY = Policy(attempts=3, failures=Windows(5, 12), sends=Windows(6, 9), resend=30.0)
LOCKING = replace(POLICY, locks=True)
SHADOWS = replace(POLICY, shadows=frozenset({"address", "resend"}))
BOOKS = {
    first: CodeBook({first: bytes([ord(first[1])]) * 32, other: bytes([ord(other[1])]) * 32}, digits=6)
    for first, other in (("k1", "k2"), ("k2", "k1"))
}
_FORGOTTEN = CodeBook({"k3": b"3" * 32}, digits=6)
"""A key that issued codes, and that the service has no longer."""

_FOR_EVER = -1
_VERSION = 3
_WAITS = st.sampled_from([0.25, 30.0, 31.0, 60.0, 300.25, 1700.0, 3600.0, 86_400.0, "end", "next", "hour", "day"])
_LIVES = st.sampled_from([2.0, 60.0, 120.0, 600.0, 600.0, 7200.0])
_WHICH = st.integers(0, 2)
_BOUND = st.sampled_from(["", "", "live", "other"])
_SCOPES = st.sampled_from([bytes(8), bytes(8), b"scope  1", b"scope  2", b"scope  3", b"scope  4"])
_DEVICES = st.sampled_from([STRANGERS, STRANGERS, STRANGERS, b"device 1", b"device 2", b"device15"])
_MANY = [b"device%02d" % number for number in range(16)]
"""As many devices as have lanes of their own."""

_REQUESTS = st.sampled_from([b"", b"", b"request1", b"request2"])
_COMPAT = st.sampled_from([False, False, False, True])
_KEYS = st.sampled_from(["k1", "k1", "k2", "k3", FIXED_KEY])
_PLACES = _SCOPES, _DEVICES
_SEND = st.tuples(st.just("send"), *_PLACES, st.booleans(), _COMPAT, _LIVES, _KEYS)
_CHECK_FIELDS = *_PLACES, _BOUND, _REQUESTS, _COMPAT
_WRONG = st.tuples(st.just("check"), st.just("wrong"), *_CHECK_FIELDS)
_WAIT = st.tuples(st.just("wait"), _WAITS)
_BLOCK, _CALLER = Quota("block", uuid4().bytes, 3), Quota("caller", uuid4().bytes, 5, warns=True)
_SHADOW = _BLOCK._replace(is_shadow=True)
_GUESSES = Quota("guesses", uuid4().bytes, 4, warns=True)
_QUOTAS = [
    (),
    (_GUESSES,),
    (_GUESSES._replace(is_shadow=True), _BLOCK),
    (_BLOCK,),
    (_BLOCK, _CALLER),
    (_SHADOW, _CALLER),
]
_PROFILES: list[tuple[int, int, Policy | None]] = [
    (6, 0, None),
    (8, 2, None),
    (LETTERS + 6, 4, replace(POLICY, failures=Windows(2, 3, 12), sends=Windows(3, 4, 9), wait=45.0)),
    (LONG, 1, replace(POLICY, locks=True, wait=-30.0)),
]
"""Lengths, attempts and rules of profiles."""

_STEPS = st.one_of(
    *(_SEND, _SEND, _SEND, _WRONG, _WRONG, _WRONG, _WRONG, _WAIT, _WAIT),
    st.tuples(st.just("check"), st.sampled_from(["right", "none", "older", "long"]), *_CHECK_FIELDS),
    st.tuples(st.just("quotas"), st.sampled_from(_QUOTAS)),
    st.tuples(st.just("mailbox"), st.booleans()),
    st.tuples(st.just("profile"), st.sampled_from(_PROFILES)),
    st.tuples(st.just("fill"), st.sampled_from([16, 16, 15])),
    st.tuples(st.just("void"), _SCOPES, _BOUND),
    st.tuples(st.sampled_from(["again", "withdraw", "release", "forget"])),
    st.tuples(st.just("unsend"), _WHICH),
    st.tuples(st.just("refuse"), _WHICH),
)


_HERE = bytes(8), STRANGERS
_A_SEND = ("send", *_HERE, True, False, 600.0, "k1")
_A_WRONG_CODE = ("check", "wrong", *_HERE, "", b"", False)
_SPENT_AND_SENT_AGAIN = [_A_SEND, *[_A_WRONG_CODE] * 3, ("wait", "next"), _A_SEND]
_UNDER_ATTACK = [
    *_SPENT_AND_SENT_AGAIN,
    *[_A_WRONG_CODE] * 3,
    ("wait", "next"),
    _A_SEND,
    _A_WRONG_CODE,
    ("check", "long", *_HERE, "", b"", False),
    ("send", *_HERE, True, True, 600.0, "k1"),
    ("check", "right", *_HERE, "", b"request1", False),
    ("check", "right", *_HERE, "", b"request1", False),
]
_REPLACED_AND_NEITHER_MAIL_SENT = [
    *(_A_SEND, ("wait", 300.25), _A_SEND, ("wait", "next"), _A_SEND, ("unsend", 0), ("unsend", 1)),
    ("check", "older", *_HERE, "", b"", False),
]
_MORE_SESSIONS_THAN_MAY_BE_LIVE = [
    *[("send", b"scope  %d" % number, STRANGERS, True, False, 600.0, "k1") for number in range(5)],
    ("send", b"scope  5", b"device 1", True, False, 600.0, "k1"),
    ("check", "right", b"scope  0", STRANGERS, "", b"", False),
    ("check", "right", b"scope  4", STRANGERS, "", b"", False),
]
_WITHDRAWN_AFTER_IT_REPLACED = [
    *(_A_SEND, ("wait", 300.25), _A_SEND, ("again",), ("withdraw",)),
    ("check", "older", *_HERE, "", b"", False),
]


_LIMITED_AND_TAKEN_BACK = [
    ("quotas", (_BLOCK, _CALLER)),
    *[("send", b"scope  %d" % number, STRANGERS, True, False, 600.0, "k1") for number in range(4)],
    ("unsend", 0),
    ("unsend", 0),
    ("wait", 300.25),
    *[("send", b"scope  %d" % number, STRANGERS, True, False, 600.0, "k1") for number in range(4)],
    ("quotas", (_SHADOW, _CALLER)),
    *[("send", b"scope  %d" % number, STRANGERS, True, False, 600.0, "k1") for number in range(4)],
]


_TAKEN_BACK_AFTER_IT_WAS_REPLACED = [
    *(("quotas", (_BLOCK, _CALLER)), ("mailbox", True), _A_SEND, ("wait", 300.25), _A_SEND),
    *(("unsend", 1), ("unsend", 1), ("refuse", 1), ("unsend", 0)),
    *(_A_SEND, ("wait", 300.25), _A_SEND, ("refuse", 1), ("unsend", 0)),
    *(("wait", "next"), _A_SEND, ("void", bytes(8), ""), ("withdraw",), ("unsend", 0)),
    *(_A_SEND, ("release",), ("unsend", 0), _A_SEND, ("check", "right", *_HERE, "", b"", False), ("unsend", 0)),
]
_MAILED_AGAIN_IN_VAIN = [
    *(_A_SEND, ("wait", "next"), _A_SEND, ("refuse", 0), _A_SEND, ("refuse", 1), ("refuse", 0)),
    *(("check", "right", *_HERE, "", b"", False), _A_SEND, ("refuse", 0), ("check", "right", *_HERE, "", b"", False)),
]
_A_REPEATED_CALL_REPLACED_ITS_OWN = [
    *(_A_SEND, ("wait", 300.25), ("unsend", 0), ("again",), _A_WRONG_CODE),
    *(("send", *_HERE, False, False, 2.0, "k1"), ("unsend", 0), ("unsend", 0), ("refuse", 0)),
]
_A_TEST_ADDRESS_AND_NOT = [
    *(_A_SEND, ("wait", 30.0), ("send", *_HERE, True, False, 600.0, FIXED_KEY), _A_WRONG_CODE),
    *(("wait", 30.0), ("send", *_HERE, True, False, 600.0, FIXED_KEY), ("wait", 30.0), _A_SEND, ("unsend", 0)),
]
_A_PROFILE_CHANGES = [
    ("profile", _PROFILES[2]),
    *(_A_SEND, _A_WRONG_CODE, ("profile", _PROFILES[1]), ("wait", 75.0), _A_SEND),
    *[("check", "right", *_HERE, "live", b"", False)] * 2,
    *(_A_SEND, ("wait", 301.0), ("profile", _PROFILES[3]), _A_SEND, *[_A_WRONG_CODE] * 3, _A_SEND, ("unsend", 0)),
]


_MORE_DEVICES_THAN_HAVE_LANES = [
    ("fill", 16),
    ("send", bytes(8), b"device 1", True, False, 600.0, "k1"),
    *[("check", "wrong", bytes(8), b"device 1", "", b"", False)] * 3,
    *(("wait", "next"), ("send", bytes(8), b"device 1", True, False, 600.0, "k1"), ("unsend", 0)),
    *[("check", "wrong", bytes(8), b"device 1", "", b"", False)] * 3,
    *[("send", b"scope  %d" % number, b"device 1", False, True, 600.0, "k1") for number in range(2)],
    *[("send", b"scope  %d" % number, b"device 1", True, False, 600.0, "k1") for number in range(8)],
    ("check", "right", b"scope  1", b"device 1", "", b"", False),
    ("check", "right", bytes(8), b"device03", "", b"", False),
    ("send", b"scope  9", b"device 1", True, False, 600.0, "k1"),
    ("check", "wrong", b"scope  9", b"device 1", "", b"", False),
]
_MORE_SESSIONS_OF_A_DEVICE = [
    *[("send", b"scope  %d" % number, b"device 1", True, False, 600.0, "k1") for number in range(5)],
    *[("send", b"scope  %d" % number, STRANGERS, True, False, 600.0, "k1") for number in range(5)],
    *[("check", "right", b"scope  %d" % number, b"device 1", "", b"", False) for number in range(5)],
]
_MORE_DEVICES_THAN_PLACES = [
    *[
        ("send", b"scope  %d" % (number % 3), b"owner %02d" % (number // 3), True, True, 600.0, "k1")
        for number in range(66)
    ],
    *[("send", b"scope  1", b"other %02d" % number, True, True, 600.0, "k1") for number in range(25)],
    *[("send", b"scope  %d" % number, b"other 24", True, True, 600.0, "k1") for number in range(5)],
    *[("send", b"scope  4", STRANGERS, True, True, 600.0, "k1"), ("check", "right", *_HERE, "", b"", False)],
]
_MAILS_THAT_WERE_NOT_SENT = [
    *[
        step
        for number in range(40)
        for step in (
            ("send", b"scope %2d" % number, b"device 1" if number % 5 == 4 else STRANGERS, False, True, 600.0, "k1"),
            *[("unsend", 0)][: number % 3],
        )
    ],
    *[("check", "right", b"scope %2d" % number, STRANGERS, "", b"", False) for number in (0, 3, 7, 36, 38, 33, 30)],
    *[("send", b"scope %2d" % number, STRANGERS, False, True, 600.0, "k1") for number in (37, 7, 39)],
    *[("check", "right", b"scope %2d" % number, STRANGERS, "", b"", False) for number in (37, 7, 34, 39)],
]
_RELEASED_BESIDE_MANY_DEVICES = [_A_SEND, ("release",), *_MORE_DEVICES_THAN_HAVE_LANES]


_FORGOTTEN_WITH_ITS_MAILBOX = [
    *(("mailbox", True), _A_SEND, ("wait", 45.0), _A_SEND, _A_WRONG_CODE, ("forget",), ("unsend", 0), _A_SEND),
    *(("mailbox", False), ("wait", 45.0), _A_SEND, ("mailbox", True), ("forget",), ("forget",), _A_SEND),
]


_A_CHECK_BESIDE_A_FULL_MAILBOX = [
    *(("mailbox", True), *[_A_SEND, ("wait", "next")] * 3, _A_SEND, *[_A_WRONG_CODE] * 4, ("wait", "next")),
    *(_A_SEND, ("quotas", (_GUESSES,)), ("release",), ("wait", "next"), _A_SEND, *[_A_WRONG_CODE] * 5),
    *(("send", *_HERE, True, True, 600.0, "k1"), ("check", "wrong", *_HERE, "", b"request1", False)),
    *(("check", "wrong", *_HERE, "", b"request1", False), ("check", "wrong", *_HERE, "", b"", True)),
]


_REFUSED_BY_SEVERAL_LIMITS = [
    *(("quotas", (_BLOCK, _CALLER)), ("mailbox", True)),
    *[("send", b"scope  %d" % number, STRANGERS, True, False, 600.0, "k1") for number in range(4)],
    *[("send", b"scope  1", STRANGERS, True, False, 600.0, "k1")],
    *(("wait", 3600.0), *[_A_SEND, ("wait", "next")] * 7, ("wait", 1700.0), *[_A_SEND, ("wait", "next")] * 4),
    *(("quotas", (_SHADOW, _CALLER)), _A_SEND, ("wait", "hour"), _A_SEND, _A_SEND, ("wait", "next"), _A_SEND),
]


class _Pair:
    """The same decisions in memory and on a server, and a look at both records after each."""

    def __init__(self, client: Client, keys: Keys, policy: Policy) -> None:
        self.now = 1_700_000_000.0  # so that sums with it are exact, and limits are met exactly
        self._client = client
        self._keys = keys
        self._policy = policy
        self.memory = MemoryChallengeStore(self._clock, policy)
        self.redis = RedisChallengeStore(self._clock, client, keys, policy, _Issuer(), time=self._clock)
        self.key = uuid4().bytes
        self.sendings: list[Sending] = []
        self._issued = 0
        self._quotas: tuple[Quota, ...] = ()
        self.mailbox = uuid4().bytes
        self._profile = _PROFILES[0]
        self._mailbox = b""
        self._asked = Send(self.key, self.now, self._fresh(600.0, "k1"))

    async def step(self, name: str, *details: Any) -> None:
        """Take one decision in both stores; answer, refusal and record must be equal."""
        if name == "wait":
            self.now = await self._later(details[0])
            await self._compare()
            return
        if name == "profile":
            (self._profile,) = details
            return
        if name == "mailbox":
            self._mailbox = self.mailbox if details[0] else b""
            return
        if name == "quotas":  # those of the mails that follow, each pair of stores with keys of its own
            self._quotas = tuple([one._replace(key=bytes(map(xor, one.key, self.key))) for one in details[0]])
            return
        decide = await self._decision(name, *details)
        expected, found = await _outcome(decide(self.memory)), await _outcome(decide(self.redis))
        assert found == expected
        if isinstance(expected, Sending):
            self.sendings.append(expected)
        elif isinstance(expected, Check) and expected.result is CheckResult.VALID:
            # No call without an answer has a code that was used.
            self._asked = Send(self.key, self.now, self._fresh(600.0, "k1"))
        await self._compare()

    async def _compare(self) -> None:
        """Check that both stores have the same counts and records."""
        keys = self.key, self.mailbox
        octets = {quota: self.memory.counts.read(quota.key) for quota in self._quotas}
        quotas = [quota for quota in octets if counts_end(octets[quota]) > self.now]  # a server drops others by itself
        reading = asyncio.gather(*map(self._kept, keys)), asyncio.gather(*map(self._kept_counts, quotas))
        records, counts = await asyncio.gather(*reading)  # in one round trip
        for quota, found in zip(quotas, counts, strict=True):
            assert recent_counts(found, self.now) == recent_counts(decode_counts(octets[quota]), self.now)
        for key, kept in zip(keys, records, strict=True):
            record = await self._record(key)
            assert _standing(kept, self.now) == _standing(record, self.now)
            if record is not None and _standing(record, self.now) is None:
                # The server drops what has ended by its own clock, so that it would be there for one of them alone.
                await self.memory.forget(key)
                await self._client.command("DEL", *self._keys.codes(key))

    def _quotas_of(self, *, guesses: bool) -> tuple[Quota, ...]:
        return tuple([quota for quota in self._quotas if (quota.limit == "guesses") is guesses])

    def _fresh(self, lifespan: float, key_id: str) -> Challenge:
        self._issued += 1
        return Challenge(self._issued.to_bytes(16), key_id, self.now + lifespan, length=6)

    async def _decision(  # noqa: PLR0911  one for each kind of step
        self, name: str, *details: Any
    ) -> Callable[[ChallengeStore], Awaitable[Any]]:
        match name, details:
            case "withdraw", ():
                return self._withdraw
            case "again", ():
                asked = self._asked
                lifespan = asked.fresh.expires - asked.now
                fresh = replace(asked.fresh, expires=self.now + lifespan)
                self._asked = asked._replace(now=self.now, fresh=fresh)
                return lambda store: store.send(self._asked)
            case "send", (scope, device, spaced, compat, lifespan, key_id):
                length, most, rules = self._profile
                fresh = replace(self._fresh(lifespan, key_id), length=length, most=most)
                asked = Send(self.key, self.now, fresh, spaced=spaced, scope=scope, device=device, compat=compat)
                self._asked = asked._replace(quotas=self._quotas_of(guesses=False), mailbox=self._mailbox, rules=rules)
                return lambda store: store.send(self._asked)
            case "check", (typed, scope, device, bound, request, compat):
                guess = BOOKS["k1"].guess(await self._typed(typed, scope, device))
                only = await self._bound(bound, scope, device)
                attempt = Attempt(scope, device, only, request, b"a new 1.", compat)
                attempt = attempt._replace(quotas=self._quotas_of(guesses=True), rules=self._profile[2])
                attempt = attempt._replace(mailbox=self._mailbox)
                return lambda store: store.check(self.key, self.now, guess, attempt)
            case "release", ():
                return self._release
            case "forget", ():
                return lambda store: store.forget(self.key, mailbox=self._mailbox)
            case "void", (scope, bound):
                only = await self._bound(bound, scope, STRANGERS)
                return lambda store: store.void(self.key, scope, only)
            case _, (which,):
                if which >= len(self.sendings):
                    return lambda store: store.void(self.key, bytes(8), bytes(16))
                sending = self.sendings[-1 - which]
                return lambda store: (store.refuse if name == "refuse" else store.unsend)(self.key, sending)
        raise AssertionError(name)

    async def _withdraw(self, store: ChallengeStore) -> None:
        asked = self._asked
        if isinstance(store, RedisChallengeStore):
            await store.withdraw(asked)
            await store.settled(self.key)
            return
        mail = await self.memory.update(self.key, lambda record: self._withdrawn(record, asked.fresh.id[CALL]))
        if mail is None:
            return
        for quota in asked.quotas:
            counts, ends = self._policy.uncount(decode_counts(self.memory.counts.read(quota.key)), mail)
            self.memory.counts.write(quota.key, encode_counts(counts, ends, 0.0) if counts else NO_COUNTS)
        if asked.mailbox:
            await self.memory.update(asked.mailbox, lambda record: (self._policy.unnote(record, mail), None))

    async def _release(self, store: ChallengeStore) -> None:
        at = self.now if self.redis.reads_earlier else None  # records of an earlier version, which memory has not
        if store is self.redis:
            await store.release(self.key)
        else:
            await self.memory.update(self.key, lambda record: self._policy.release(record, at))

    def _withdrawn(self, record: CodeRecord | None, call: bytes) -> tuple[CodeRecord | None, float | None]:
        return self._policy.withdraw(record, call)

    async def _later(self, wait: float | str) -> float:
        """Return the time after so many seconds, or at the very end of something in the record."""
        if isinstance(wait, float):
            return self.now + wait
        record = await self._record() or CodeRecord()
        times: dict[str, list[float]] = {
            "end": [slot.challenge.expires for slot in record.slots if slot.challenge is not None],
            "next": [slot.next_send for slot in record.slots],
            "hour": [float(at + HOUR) for lane in record.lanes for at in (*lane.failures, *lane.sends)],
            "day": [float(at + DAY) for lane in record.lanes for at in (*lane.failures, *lane.sends)],
        }
        return min([at for at in times[wait] if at > self.now], default=self.now)

    def _clock(self) -> float:
        return self.now

    async def _record(self, key: bytes = b"") -> CodeRecord | None:
        return await self.memory.update(key or self.key, lambda record: (record, record))

    async def _live(self, scope: bytes, device: bytes) -> Challenge | None:
        record = await self._record() or CodeRecord()
        slots = {slot.device: slot.challenge for slot in record.slots if slot.scope == scope}
        return slots.get(device) or slots.get(STRANGERS)

    async def _kept(self, key: bytes) -> CodeRecord | None:
        [name, *_] = self._keys.codes(key)
        value, left = await asyncio.gather(self._client.command("GET", name), self._client.command("PTTL", name))
        if value is None:
            return None
        assert left != _FOR_EVER
        assert value[0] == _VERSION
        slots, lanes, answers = msgpack.unpackb(value[1:], raw=True)
        return CodeRecord(
            tuple([self._slot(*slot) for slot in slots]),
            tuple([Lane(device, tuple(failures), tuple(sends)) for device, failures, sends in lanes]),
            tuple([_answer(*answer) for answer in answers]),
        )

    async def _kept_counts(self, quota: Quota) -> Counts:
        [name, *_] = self._keys.counts(quota.key)
        value, left = await asyncio.gather(self._client.command("GET", name), self._client.command("PTTL", name))
        if value is None:
            return ()
        assert left != _FOR_EVER
        numbers = msgpack.unpackb(value)
        return tuple(zip(numbers[::2], numbers[1::2], strict=True))

    def _slot(self, scope: bytes, device: bytes, next_send: float, *more: Any) -> Slot:
        call, challenge, older, mails = more
        replaced = Replaced(self._challenge(*older), tuple(mails)) if older else None
        return Slot(scope, device, self._challenge(*challenge) if challenge else None, next_send, call, replaced)

    def _challenge(self, challenge_id: bytes, key_id: bytes, *more: Any) -> Challenge:
        expires, attempts, length, proof, most = more
        challenge = Challenge(challenge_id, key_id.decode(), expires, attempts, length, most)
        assert proof == _Issuer().proof(self.key, challenge)
        return replace(challenge, attempts=attempts)

    async def _typed(self, kind: str, scope: bytes, device: bytes) -> str:
        live = await self._live(scope, device)
        older = self.sendings[0].challenge if self.sendings else None
        if kind == "right" and live is not None:
            return _Issuer().code(live)
        if kind == "older" and older is not None:
            return _Issuer().code(older)
        return {"none": "12345", "long": "2345-abcd-WXYZ"}.get(kind, "000000")

    async def _bound(self, kind: str, scope: bytes, device: bytes) -> bytes | None:
        if kind == "":
            return None
        live = await self._live(scope, device)
        return live.id if kind == "live" and live is not None else b"another challenge"[:16]


def _answer(request: bytes, until: float, answer: list[Any], is_free: bool = False) -> Answer:  # noqa: FBT001, FBT002
    result, left, retry, device, time, *_ = answer
    check = Check(CheckResult(result.decode()), left, retry if retry is not False else None, device, time)
    return Answer(request, check, until, is_free)


class _Issuer:
    """Makes proofs and codes with each key that ever issued one."""

    def proof(self, key: bytes, challenge: Challenge) -> bytes:
        """Return the proof of a challenge."""
        return self._book(challenge).proof(key, challenge)

    def code(self, challenge: Challenge) -> str:
        """Return the code of a challenge; for a fixed one, what is wrong."""
        if challenge.key_id == FIXED_KEY:
            return "424242"
        return self._book(challenge).code(challenge)

    def _book(self, challenge: Challenge) -> CodeBook:
        return _FORGOTTEN if challenge.key_id == "k3" else BOOKS["k1"]


def _standing(record: CodeRecord | None, now: float) -> CodeRecord | None:
    """Return the record unless it has ended: a server drops that by itself, and memory in its next sweep."""
    return None if record is None or ends_of(record)[0] <= now else record


async def _outcome(decision: Awaitable[Any]) -> Any:
    """Return what a decision has answered, or how it has refused."""
    try:
        return await decision
    except LimitExceeded as error:
        return str(error), error.subject, error.setting, error.retry_after


@contextmanager
def _client_of(server: RedisServer) -> Iterator[tuple[asyncio.Runner, Client]]:
    with asyncio.Runner() as runner:
        client = Client(OneServer((HOST, server.port)), Access())
        try:
            yield runner, client
        finally:
            runner.run(client.close())


@pytest.mark.timeout(300)
@pytest.mark.parametrize("policy", [POLICY, LOCKING, SHADOWS], ids=["longer", "lock", "shadow"])
def test_random_decisions(redis_server: RedisServer, policy: Policy) -> None:
    """Answers, refusals and records are equal after each decision, to the last bit of a time."""
    keys = Keys(uuid4().hex, Digests({"k1": bytes(32)}))
    examples = 60 if redis_server.kind == "redis-7" else 20  # the scripts are the same on each server
    with _client_of(redis_server) as (runner, client):

        @settings(deadline=None, max_examples=examples, suppress_health_check=list(HealthCheck))
        @example(_SPENT_AND_SENT_AGAIN)
        @example(_UNDER_ATTACK)
        @example(_MORE_SESSIONS_THAN_MAY_BE_LIVE)
        @example(_WITHDRAWN_AFTER_IT_REPLACED)
        @example(_REPLACED_AND_NEITHER_MAIL_SENT)
        @example(_LIMITED_AND_TAKEN_BACK)
        @example(_MORE_DEVICES_THAN_HAVE_LANES)
        @example(_MORE_SESSIONS_OF_A_DEVICE)
        @example(_MORE_DEVICES_THAN_PLACES)
        @example(_RELEASED_BESIDE_MANY_DEVICES)
        @example(_MAILS_THAT_WERE_NOT_SENT)
        @example(_A_PROFILE_CHANGES)
        @example(_TAKEN_BACK_AFTER_IT_WAS_REPLACED)
        @example(_MAILED_AGAIN_IN_VAIN)
        @example(_A_REPEATED_CALL_REPLACED_ITS_OWN)
        @example(_A_TEST_ADDRESS_AND_NOT)
        @example(_FORGOTTEN_WITH_ITS_MAILBOX)
        @example(_REFUSED_BY_SEVERAL_LIMITS)
        @example(_A_CHECK_BESIDE_A_FULL_MAILBOX)
        @given(st.lists(_STEPS, min_size=20, max_size=100))
        def decide(steps: list[tuple[Any, ...]]) -> None:
            runner.run(_decide(_Pair(client, keys, policy), steps))

        decide()


async def _decide(pair: _Pair, steps: list[tuple[Any, ...]]) -> None:
    for name, *details in steps:
        for one, *more in _each_asks(details[0]) if name == "fill" else [(name, *details)]:
            await pair.step(one, *more)


def _each_asks(count: int) -> list[tuple[Any, ...]]:
    """Return a step of each of many devices, which asks for a code."""
    return [("send", bytes(8), device, True, False, 600.0, "k1") for device in _MANY[:count]]


@pytest.mark.parametrize("digits", [4, 10])
def test_a_proof_is_of_one_record(digits: int) -> None:
    """The proof of a code is another for each key and each record, so that none can be moved or looked up."""
    book = CodeBook({"k1": b"1" * 32, "k2": b"2" * 32}, digits=digits)
    challenge = Challenge(bytes(16), "k1", 0.0)
    proof = book.proof(b"a", challenge)
    assert book.proofs(b"a", book.code(challenge))[0] == ("k1", proof)
    assert proof not in {book.proof(b"b", challenge), *[other for _, other in book.proofs(b"b", book.code(challenge))]}
    assert len(proof) == 32
