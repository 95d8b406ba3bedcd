"""Checks that count for a limit over many addresses: the memory store's fast path does what its full path does."""

from collections import Counter
from random import Random
from typing import Any

import pytest

from otpmail.code_record import STRANGERS
from otpmail.errors import LimitExceeded
from otpmail.model import LONG, Challenge, Check
from otpmail.store.challenges import NO_SCOPE, Attempt, Quota, Send
from otpmail.store.memory.codes import MemoryChallengeStore
from rules import BOOK, POLICY
from store.clocks import Clock

_LIMITS = (
    Quota("guesses", b"the counts of gu", 40, warns=True),
    Quota("guesses", b"the counts of sh", 40, is_shadow=True),
    Quota("guesses", b"the counts of no", 4),
)
_ONE_MORE = Quota("guesses", b"the counts of mo", 60)
_ADDRESSES = 4


class _Full(MemoryChallengeStore):
    """A store that takes the full path for each check."""

    def _guessed_at_once(self, *given: Any, **more: Any) -> Any:
        return self._guessed(self._others, *given, **more)


class _Watched(MemoryChallengeStore):
    """A store that notes how many checks took which path."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, POLICY)
        self.paths = Counter[str]()

    def _guessed_at_once(self, *given: Any, **more: Any) -> Any:
        self.paths["all"] += 1
        return super()._guessed_at_once(*given, **more)

    def _guessed(self, *given: Any, **more: Any) -> Any:
        self.paths["full"] += 1
        return super()._guessed(*given, **more)


async def _check(store: MemoryChallengeStore, key: bytes, typed: str, attempt: Attempt) -> Check | str:
    try:
        return await store.check(key, store.now(), BOOK.guess(typed), attempt)
    except LimitExceeded as error:
        return f"{error.limit} {error.retry_after}"


def _contents(store: MemoryChallengeStore) -> object:
    records = {key: kept for shard in store._shards for key, kept in shard.items()}
    return records, [store.counts.read(quota.key) for quota in (*_LIMITS, _ONE_MORE)], store.octets


def _attempt(random: Random) -> Attempt:
    return Attempt(
        scope=random.choice((NO_SCOPE, NO_SCOPE, b"a scope ")),
        device=random.choice((STRANGERS, STRANGERS, STRANGERS, b"a device")),
        request=b"again   " if random.random() < 0.1 else b"",
        new_device=b"a new one",
        quotas=(random.choice(_LIMITS), *random.choice(((), (), (_ONE_MORE,)))),
    )


@pytest.mark.parametrize("seed", range(4))
async def test_a_check_counts_as_by_the_full_path(seed: int) -> None:
    """Whatever is typed where, and however much of a limit is spent: answers, counts and records are the same."""
    random, clock = Random(seed), Clock()
    fast, full = _Watched(clock), _Full(clock, POLICY)
    codes: dict[bytes, Challenge] = {}
    seen = Counter[str]()
    for number in range(1500):
        key = b"address %08d" % random.randrange(_ADDRESSES)
        if random.random() < 0.3:
            length = LONG if random.random() < 0.1 else 6
            send = Send(key, clock.time, Challenge(number.to_bytes(16), "k1", clock.time + 600, length=length))
            for store in (fast, full):
                codes[key] = (await store.send(send._replace(spaced=False))).challenge
            continue
        right = BOOK.code(codes[key]) if key in codes and random.random() < 0.3 else ""
        typed, attempt = right or random.choice(("000000", "000000", "000000", "12", "ABCDEFGHJKLM")), _attempt(random)
        answers = [await _check(store, key, typed, attempt) for store in (fast, full)]
        assert answers[0] == answers[1]
        assert _contents(fast) == _contents(full)
        seen[answers[0].split()[0] if isinstance(answers[0], str) else answers[0].result.name] += 1
        clock.time += random.choice((0.5, 0.5, 5.0, 60.0))
    assert fast.paths["full"] > 50
    assert fast.paths["all"] - fast.paths["full"] > 50
    assert {"guesses", "VALID", "WRONG_CODE", "NO_LIVE_CODE", "TOO_MANY_ATTEMPTS"} <= seen.keys()


async def test_a_usual_check_takes_the_fast_path() -> None:
    """A check of somebody without a device and a request id, at a code of usual length, asks the rules of no limit."""
    clock = Clock()
    store = _Watched(clock)
    attempt = Attempt(quotas=_LIMITS[:1])
    for number in range(20):
        key, fresh = b"address %08d" % number, Challenge(number.to_bytes(16), "k1", clock.time + 600, length=6)
        await store.send(Send(key, clock.time, fresh))
        await store.check(key, clock.time, BOOK.guess("000000" if number % 2 else BOOK.code(fresh)), attempt)
    assert store.paths == {"all": 20}
