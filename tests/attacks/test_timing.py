"""The time of ValidateCode does not tell whether a code is live: as guessers see it, over gRPC, with a memory store."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import random
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from statistics import median
from time import monotonic, perf_counter
from typing import TYPE_CHECKING

from otpmail.v1 import otp_pb2
from relay import Certificates, Faults, Relay
from service import Service, relay_settings

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)
ATTEMPTS = 5
_TRIES = 100  # that measure the speed of the machine
_PART = 0.4  # of the life of its codes that a round may take
_STEP = 100  # samples that all states can have
_MOST_SECONDS, _LEAST = 400.0, 5000  # after which so many samples will do: the chance then has a deviation of 0.006
GUESS = "000000"
CASES = {
    "live": otp_pb2.ValidateCodeResponse.RESULT_WRONG_CODE,
    "none": otp_pb2.ValidateCodeResponse.RESULT_NO_LIVE_CODE,
    "expired": otp_pb2.ValidateCodeResponse.RESULT_NO_LIVE_CODE,
    "used": otp_pb2.ValidateCodeResponse.RESULT_NO_LIVE_CODE,
    "spent": otp_pb2.ValidateCodeResponse.RESULT_TOO_MANY_ATTEMPTS,
}


def chance_of_less(first: list[float], second: list[float]) -> float:
    """How likely a sample of `first` is the smaller one of a pair: Mann and Whitney's U, divided by the pairs."""
    ordered = sorted(second)
    wins = sum(2 * len(ordered) - bisect_left(ordered, x) - bisect_right(ordered, x) for x in first)
    return wins / (2 * len(first) * len(second))


class Guesser:
    """Tries wrong codes on addresses in each state, one call at a time, and notes how long each answer takes.

    Each round issues codes to new addresses. With a `lifespan` those of the round before have expired meanwhile, and
    are tried, too. `samples` are taken in each state in a round, or fewer on a machine that is so slow that the live
    codes would expire in it.
    """

    def __init__(self, service: Service, *, samples: int, lifespan: float | None) -> None:
        self.seconds: dict[str, list[float]] = {}
        self._service = service
        self._samples = samples
        self._lifespan = lifespan
        self._numbers = itertools.count()
        self._random = random.Random(14)
        self._expiring: list[str] = []
        self._expire_at = 0.0
        self._per_sample = 0.0  # seconds of a round

    @property
    def taken(self) -> int:
        """How many samples there are in each state."""
        return len(self.seconds.get("live", ()))

    async def prepare(self) -> None:
        """Issue the codes that will have expired in the first round."""
        begun = monotonic()
        self._expiring = list(await self._issue(self._samples // (ATTEMPTS - 1)))
        for number in range(_TRIES):
            await self._try(f"nobody{number}@example.org", GUESS)
        self._per_sample = len(CASES) * (monotonic() - begun) / _TRIES

    def _fitting(self) -> int:
        """Return how many samples a round can take in each state while its codes live."""
        if not self._lifespan or not self._per_sample:
            return self._samples
        expired = len(self._expiring) * (ATTEMPTS - 1)
        most = min(self._samples, expired, int(_PART * self._lifespan / self._per_sample))
        return max(_STEP, most // _STEP * _STEP)

    async def round(self) -> None:
        """Take the samples of a round, in an order by chance."""
        await asyncio.sleep(self._expire_at - monotonic())
        samples, begun = self._fitting(), monotonic()
        issued = await self._issue(samples // (ATTEMPTS - 1) + 60)
        used, spent, live = [*issued][:50], [*issued][50:60], [*issued][60:]
        for email in used:
            assert await self._try(email, issued[email]) == otp_pb2.ValidateCodeResponse.RESULT_VALID
        for email in spent * ATTEMPTS:
            assert await self._try(email, _other_than(issued[email])) == CASES["live"]
        addresses = {
            "live": live * (ATTEMPTS - 1),
            "none": [f"n{next(self._numbers)}@example.org" for _ in range(samples)],
            "used": used * (samples // len(used)),
            "spent": spent * (samples // len(spent)),
        }
        if self._lifespan:
            addresses["expired"] = self._expiring[: samples // (ATTEMPTS - 1)] * (ATTEMPTS - 1)
        await self._measure(addresses)
        self._per_sample = (monotonic() - begun) / samples
        assert not self._lifespan or monotonic() < self._expire_at, "the live codes have expired: raise `lifespan`"
        self._expiring = live

    async def _measure(self, addresses: dict[str, list[str]]) -> None:
        gc.disable()
        try:
            for emails in zip(*addresses.values(), strict=True):
                turns = list(zip(addresses, emails, strict=True))
                self._random.shuffle(turns)
                for case, email in turns:
                    request = otp_pb2.ValidateCodeRequest(email=email, code=GUESS)
                    begun = perf_counter()
                    answer = await self._service.otp.ValidateCode(request)
                    self.seconds.setdefault(case, []).append(perf_counter() - begun)
                    assert answer.result == CASES[case], case
        finally:
            gc.enable()

    async def _issue(self, count: int) -> dict[str, str]:
        """Have codes mailed to so many new addresses; returns the codes by address."""
        codes: dict[str, str] = {}
        while len(codes) < count:
            emails = [f"p{next(self._numbers)}@example.org" for _ in range(min(50, count - len(codes)))]
            requests = [otp_pb2.SendCodeRequest(email=email) for email in emails]
            answers = await asyncio.gather(*map(self._service.otp.SendCode, requests))
            codes |= {email: answer.otp_code for email, answer in zip(emails, answers, strict=True)}
            if self._lifespan:
                self._expire_at = monotonic() + self._lifespan
        return codes

    async def _try(self, email: str, code: str) -> int:
        return (await self._service.otp.ValidateCode(otp_pb2.ValidateCodeRequest(email=email, code=code))).result


def _other_than(code: str) -> str:
    return f"{(int(code) + 1) % 10 ** len(code):0{len(code)}d}"


@dataclass(frozen=True)
class Form:
    """How much is measured, and how far from a half the chance may be."""

    rounds: int
    more_rounds: int  # where the chance is too far off: what other processes had a part in has less of it then
    samples: int
    within: float
    lifespan: float | None  # of codes, in seconds; without one no expired codes are tried


# 20,000 samples in each state leave the chance a standard deviation of 0.003; 800 leave 0.014.
FULL = Form(rounds=8, more_rounds=0, samples=2500, within=0.02, lifespan=20)
SHORT = Form(rounds=1, more_rounds=3, samples=800, within=0.06, lifespan=None)


async def test_the_time_of_a_check_does_not_tell_a_live_code(
    certificates: Certificates,
    tmp_path: Path,
    full: bool,  # noqa: FBT001  a fixture
) -> None:
    """Of two checks in any two states, either takes longer as often: no code, an expired, used, live or spent one."""
    form = FULL if full else SHORT
    async with Relay(Faults(auth=())) as relay:
        settings = relay_settings(relay, certificates, tmp_path / "token")
        settings |= {"OTP_LIFESPAN_SECONDS": form.lifespan, "OTP_RETURN_CODE": True, "OTP_ATTEMPTS": ATTEMPTS}
        async with Service(**settings) as service:
            await service.wait_until_serving()
            guesser = Guesser(service, samples=form.samples, lifespan=form.lifespan)
            if form.lifespan:
                await guesser.prepare()
            give_up = monotonic() + _MOST_SECONDS
            while guesser.taken < form.rounds * form.samples:
                await guesser.round()
                if monotonic() > give_up and guesser.taken >= _LEAST:
                    break
            for _ in range(form.more_rounds):
                if not _far_from_a_half(guesser.seconds, form.within):
                    break
                await guesser.round()
    medians = {case: f"{1e6 * median(seconds):.0f} us" for case, seconds in guesser.seconds.items()}
    log.info("medians %s", medians)
    assert _far_from_a_half(guesser.seconds, form.within) == {}, medians


def _far_from_a_half(taken: dict[str, list[float]], within: float) -> dict[tuple[str, str], float]:
    """Return the pairs of states of which one takes longer more often, with the chance."""
    chances = {(a, b): chance_of_less(taken[a], taken[b]) for a, b in itertools.combinations(taken, 2)}
    log.info("chances %s", chances)
    return {pair: chance for pair, chance in chances.items() if abs(chance - 0.5) > within}
