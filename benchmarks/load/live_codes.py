"""The cost of codes in memory by how many are live: octets, the time of a check, and the longest turn of the loop.

The store and the rules alone, without gRPC and mail, on a clock that can be set forward. The garbage collector has the
service's own thresholds.
"""

import argparse
import asyncio
import gc
import json
import time
from random import Random
from statistics import quantiles
from types import SimpleNamespace
from typing import Any, cast

import uvloop

from benchmarks.load.calls import holder
from benchmarks.load.stall import Collections, StallProbe
from benchmarks.memory import resident
from otpmail.callers import ANONYMOUS, Call
from otpmail.collector import spare_the_collector  # the collector's pauses must be the service's
from otpmail.events import Observers
from otpmail.model import DAY, Challenge, CheckResult
from otpmail.otp import codes
from otpmail.otp.policy import Policy
from otpmail.otp.request import CheckRequest, find_place
from otpmail.otp.service import OtpService
from otpmail.settings import OtpSettings, load_section
from otpmail.store.challenges import Send
from otpmail.store.memory.codes import MemoryChallengeStore

_LIFESPAN = 1000.0
_AT_ONCE = 8  # codes issued in a turn of the loop: more than gRPC brings calls in one
_CHECKED_AT_ONCE = 4
_WARM_UP = 200
_CALL = Call(ANONYMOUS, "unix:")


class Codes:
    """A store on a clock of its own, behind the service's rules and its use case of checking."""

    def __init__(self) -> None:
        self.ahead = 0.0
        settings = load_section(OtpSettings, OTP_LIFESPAN_SECONDS=str(_LIFESPAN))
        nobody = cast("Any", SimpleNamespace(suppressions=None, limits=None))  # mails and templates: no check uses them
        self._book = codes.CodeBook.of(settings)
        self.store = MemoryChallengeStore(lambda: time.monotonic() + self.ahead, Policy.of(settings))
        self._service = OtpService(settings, self.store, nobody, nobody, Observers(), codes=self._book)

    def __repr__(self) -> str:
        return f"<Codes {self.store!r}>"

    async def issue(self, number: int) -> Challenge:
        """Store a code, as SendCode does."""
        place = find_place(ANONYMOUS, holder(number), "")
        now = self.store.now()
        expires = now + _LIFESPAN
        fresh = Challenge(codes.new_challenge_id(), self._book.issuing_key, expires, length=self._book.digits)
        sending = await self.store.send(Send(place.key, now, fresh, scope=place.scope))
        return sending.challenge

    async def validate(self, number: int, code: str) -> None:
        """Check the right code, as ValidateCode does."""
        checked = await self._service.validate_code(_CALL, CheckRequest(email=holder(number), code=code))
        if checked.check.result is not CheckResult.VALID:
            raise RuntimeError(f"code {number}: {checked.check}")

    def code(self, challenge: Challenge) -> str:
        """The code of a challenge, as the mail would carry it."""
        return self._book.code(challenge)


async def issue_many(codes: Codes, first: int, count: int, keep: set[int]) -> dict[int, str]:
    """Issue that many, a few in each turn of the loop, and return the codes with the numbers in `keep`.

    They are text, which the collector does not visit, so that its pauses are the store's and not this dict's.
    """
    kept = {}
    for number in range(first, first + count):
        challenge = await codes.issue(number)
        if number in keep:
            kept[number] = codes.code(challenge)
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
    return kept


async def validate_many(codes: Codes, issued: dict[int, str]) -> list[float]:
    """Check these codes, and return how long each took, in microseconds."""
    took = []
    for number, code in issued.items():
        began = time.perf_counter()
        await codes.validate(number, code)
        took.append((time.perf_counter() - began) * 1e6)
        if len(took) % _CHECKED_AT_ONCE == 0:
            await asyncio.sleep(0)
    return took[_WARM_UP:]


async def measure(count: int, checks: int) -> dict[str, float]:
    """Return all figures at that many live codes."""
    codes = Codes()
    chosen = Random(count).sample(range(count), min(count // 2, checks + _WARM_UP))  # noqa: S311  a sample, not a secret
    spare_the_collector()
    before = resident()
    with Collections() as collections, StallProbe() as issuing:
        began = time.process_time()
        issued = await issue_many(codes, 0, count, set(chosen))
        issue_us = (time.process_time() - began) / count * 1e6
    gc.collect()  # else memory that is free but not collected would count
    each = (resident() - before) / count
    with StallProbe() as sweeping:
        dropped = await codes.store.sweep()
    assert dropped == 0
    picked = {number: issued[number] for number in chosen}
    with collections, StallProbe() as checking:
        took = await validate_many(codes, picked)
    codes.ahead = DAY + _LIFESPAN
    with collections, StallProbe() as expiring:  # all the old records end while new ones are issued
        new = asyncio.create_task(issue_many(codes, count, count // 10, set()))
        dropped = await codes.store.sweep()
        await new
    assert dropped == count, dropped
    stalls = {"issuing": issuing, "checking": checking, "sweeping": sweeping, "expiring": expiring}
    percentiles = quantiles(took, n=100)
    return {
        "live codes": count,
        "bytes each": each,
        "issue us": issue_us,
        "check p50_us": percentiles[49],
        "check p99_us": percentiles[98],
        **{f"stall_ms {name}": stall.processor * 1000 for name, stall in stalls.items()},
        "collection ms": collections.longest * 1000,
        "stall_ms by the clock": max(stall.clock for stall in stalls.values()) * 1000,
    }


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, required=True, help="live codes")
    parser.add_argument("--checks", type=int, default=20_000, help="how many of them to validate, at most half")
    given = parser.parse_args()
    print(json.dumps(uvloop.run(measure(given.count, given.checks))), flush=True)


if __name__ == "__main__":
    main()
