"""A day of an attacker against one mailbox, through the use cases of codes and on each store, all limits set."""

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from itertools import count
from random import Random
from typing import Any

import pytest

from otpmail.compose.catalog import Templates
from otpmail.errors import LimitExceeded
from otpmail.model import DAY, HOUR, CheckResult, MailState, WaitFor
from otpmail.otp.request import Checked, CheckRequest, CodeRequest, SentCode
from otpmail.otp.service import OtpService
from otpmail.settings import OtpSettings
from otpmail.store.challenges import ChallengeStore
from rig import NOW, MailRig, call_of
from rules import BOOK
from store.clocks import Clock

ADA = "ada@example.org"
CALL = call_of("shop")
LOGINS = 100
FAILURES_PER_HOUR, FAILURES_PER_DAY = 10, 30
SENDS_PER_HOUR, SENDS_PER_DAY = 10, 30
MOST_TRIES = 3  # each that strangers spoil costs them three of ten mails in an hour
MAIL_CAPS = frozenset({"OTP_SENDS_PER_HOUR", "OTP_SENDS_PER_DAY"})
SETTINGS = OtpSettings(
    return_code=True,  # the owner reads it there, as in the mail
    sends_per_caller_hour=10_000,
    sends_per_service_hour=10_000,
    failures_per_caller_hour=10_000,
)
_PAUSE = 180.0  # between two bursts of the attacker
_BURST = 12


class Service(MailRig):
    """The use cases of codes over one store, on the test's clock. The relay accepts every mail."""

    def __init__(self, codes: ChallengeStore, clock: Clock) -> None:
        self._clock = clock
        super().__init__()
        templates = Templates(None, default_locale="en")
        self.codes = OtpService(SETTINGS, codes, self.mails, templates, self, codes=BOOK)

    @property
    def now(self) -> float:
        """The time, on the clock of the store."""
        return self._clock.time

    @now.setter
    def now(self, time: float) -> None:
        self._clock.time = time

    async def send(self, **fields: Any) -> SentCode:
        """Have a code mailed to Ada. Raises LimitExceeded."""
        sent = await self.codes.send_code(CALL, CodeRequest(email=ADA, wait_for=WaitFor.QUEUE, **fields))
        self.settle()
        return sent

    async def check(self, code: str, **fields: Any) -> Checked:
        """Type a code of Ada's."""
        return await self.codes.validate_code(CALL, CheckRequest(email=ADA, code=code, **fields))


class Attacker:
    """Asks for codes and guesses six digits, from sessions and addresses of origin without number.

    Of the codes it has mailed it knows no more than their length.
    """

    def __init__(self, service: Service, random: Random) -> None:
        self._service = service
        self._random = random
        self._lengths = {"": 0}
        self.mails: list[float] = []
        self.guesses: list[float] = []
        self.results = Counter[str]()

    async def act(self) -> None:
        """Do many things at once: first ask for codes, then guess."""
        random, now = self._random, self._service.now
        asked = [random.choice(["", f"{random.getrandbits(64):x}"]) for _ in range(random.randrange(4))]
        await asyncio.gather(*map(self._ask, dict.fromkeys(asked)))
        tried = random.choices(list(self._lengths)[-20:], k=random.randrange(1, _BURST))
        checks = await asyncio.gather(*(self._service.check(self._digits(), session=session) for session in tried))
        for session, checked in zip(tried, checks, strict=True):
            result = checked.check.result
            self.results[result.name] += 1
            if result is CheckResult.WRONG_CODE and self._lengths[session] == SETTINGS.digits:
                self.guesses.append(now)

    async def _ask(self, session: str) -> None:
        block = f"203.0.113.{self._random.randrange(256)}"
        try:
            sent = await self._service.send(session=session, block=block)
        except LimitExceeded as error:
            self.results[error.setting] += 1
            assert error.retry_after > 0  # noqa: PT017  it is the whole answer
            return
        self.mails.append(self._service.now)
        self._lengths[session] = sent.code_length

    def _digits(self) -> str:
        return f"{self._random.randrange(10**6):06d}"


class Owner:
    """Signs in, with the token of a device if there is one, in a session of its own each time."""

    def __init__(self, service: Service, attacker: Attacker, random: Random, token: str) -> None:
        self._service = service
        self._attacker = attacker
        self._random = random
        self._token = token
        self.mails: list[float] = []
        self.long_codes = 0
        self.most_tries = 0

    async def log_in(self) -> bool:
        """Ask for a code, and type it half a minute later; again until it is good, or the caps leave no mail.

        Strangers end a short code by three sessions of their own, or by wrong codes.
        """
        session, token = f"{self._random.getrandbits(64):x}", self._token
        for tries in count(1):
            try:
                sent = await self._service.send(session=session, device_token=token, block="198.51.100.7")
            except LimitExceeded as error:
                assert error.setting in MAIL_CAPS  # noqa: PT017  nothing else may refuse the owner
                return False
            self.most_tries = max(self.most_tries, tries)
            assert sent.mail.state is MailState.QUEUED
            self.mails.append(self._service.now)
            for _ in range(3):
                self._service.now += 11.0
                await self._attacker.act()
            checked = await self._service.check(sent.code, session=session, device_token=token)
            is_long = sent.code_length > SETTINGS.digits
            self.long_codes += is_long
            if checked.check.result is CheckResult.VALID:
                self._token = token and checked.device_token
                return True
            assert not is_long, f"a long code was refused: {checked.check}"
        raise AssertionError


def _most_in(times: Sequence[float], seconds: int) -> int:
    return max([bisect_left(times, at + seconds) - place for place, at in enumerate(times)], default=0)


async def _token_of(service: Service) -> str:
    """Sign in where nobody disturbs it, and return the token of the device."""
    sent = await service.send()
    service.now += 10.0
    return (await service.check(sent.code)).device_token


@pytest.mark.one_loop
@pytest.mark.parametrize("has_token", [True, False], ids=["with a token", "without a token"])
async def test_a_day_of_an_attacker_from_addresses_without_number(
    codes: ChallengeStore, clock: Clock, *, has_token: bool
) -> None:
    """An owner with a token gets in each time, one without it whenever the caps of mails leave one.

    A live long code is never refused for what strangers did. They guess six digits 30 times in a day at most, and the
    mails that are no device's stay within the caps.
    """
    clock.time, random = NOW, Random(11)
    service = Service(codes, clock)
    token = await _token_of(service) if has_token else ""
    attacker = Attacker(service, random)
    owner = Owner(service, attacker, random, token)
    entered = Counter[bool]()
    for _ in range(LOGINS):
        end = service.now + DAY / LOGINS
        entered[await owner.log_in()] += 1
        while service.now < end:
            service.now += _PAUSE
            await attacker.act()
    if has_token:
        assert entered == {True: LOGINS}
        assert owner.most_tries == 1
    else:
        assert entered[True] > 0
        assert owner.long_codes > 0
        assert owner.most_tries <= MOST_TRIES
    assert 0 < _most_in(attacker.guesses, DAY) <= FAILURES_PER_DAY
    assert _most_in(attacker.guesses, HOUR) <= FAILURES_PER_HOUR
    assert attacker.results["TOO_MANY_ATTEMPTS"] > 0
    strangers = sorted(attacker.mails + ([] if has_token else owner.mails))
    assert 0 < _most_in(strangers, DAY) <= SENDS_PER_DAY
    assert _most_in(strangers, HOUR) <= SENDS_PER_HOUR
