"""The rates of callers: mails beyond them are refused, or only counted in shadow."""

import asyncio
from dataclasses import replace

import pytest

from mail.rigs import DRAFT, Rig
from otpmail.call_events import LimitReached
from otpmail.callers import Call, Caller, Permissions, Rates
from otpmail.errors import InvalidArgument, LimitExceeded
from otpmail.mail.rates import Rates as Counting
from otpmail.mail.submission import Submission
from otpmail.model import DAY, HOUR, WaitFor

pytestmark = pytest.mark.usefixtures("empty_directory")
SUBMISSION = Submission(draft=DRAFT, wait_for=WaitFor.QUEUE)


@pytest.fixture
async def rig() -> Rig:
    """The service, whose queue has places enough."""
    return Rig(queue_size=1000)


def _call(name: str = "shop", **rates: int) -> Call:
    return Call(Caller(name, Permissions(rates=Rates(**rates))), "unix:")


async def test_mails_beyond_a_rate_are_refused(rig: Rig) -> None:
    """A caller has so many mails in an hour; the refusal names the limit, whose it is, and when to try again."""
    call = _call(mails_per_hour=3)
    for _ in range(3):
        await rig.mails.accept(call, SUBMISSION)
    with pytest.raises(LimitExceeded, match="too many mails in an hour") as refused:
        await rig.mails.accept(call, SUBMISSION)
    error = refused.value
    assert (error.subject, error.setting) == ("caller", "mails_per_hour")
    assert HOUR - 300 <= error.retry_after <= HOUR + 300
    assert rig.seen(LimitReached)[-1] == LimitReached("mails_per_hour", "shop")
    await rig.mails.accept(_call("bank", mails_per_hour=3), SUBMISSION)
    rig.now += error.retry_after
    await rig.mails.accept(call, SUBMISSION)


async def test_mails_of_a_day(rig: Rig) -> None:
    """A rate of a day holds however the mails lie in it, and both rates hold together."""
    call = _call(mails_per_hour=3, mails_per_day=7)
    accepted = 0
    began = rig.now
    while rig.now < began + DAY - 1:
        try:
            await rig.mails.accept(call, SUBMISSION)
            accepted += 1
        except LimitExceeded:
            rig.now += 1800
    assert accepted == 7


async def test_what_is_not_accepted_counts_for_nothing(rig: Rig) -> None:
    """A mail that is refused, and a call that is repeated with its request id, use nothing up."""
    call = _call(mails_per_hour=2)
    wrong = replace(SUBMISSION, ttl=-1.0)
    for _ in range(5):
        with pytest.raises(InvalidArgument):
            await rig.mails.accept(call, wrong)
    repeated = replace(SUBMISSION, request_id="r1", fingerprint=b"f")
    jobs = [await rig.mails.accept(call, repeated) for _ in range(5)]
    assert len({job.id for job in jobs}) == 1
    await rig.mails.accept(call, SUBMISSION)
    with pytest.raises(LimitExceeded):
        await rig.mails.accept(call, SUBMISSION)


async def test_calls_at_once(rig: Rig) -> None:
    """Of many calls in one moment exactly as many are accepted as the rate has."""
    call = _call(mails_per_hour=7)
    calls = [asyncio.ensure_future(rig.mails.accept(call, SUBMISSION)) for _ in range(50)]
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(not isinstance(end, LimitExceeded) for end in ends) == 7


async def test_a_rate_in_shadow(rig: Rig) -> None:
    """A rate in shadow refuses nothing, and says what it would have refused; half and four fifths are worth a line."""
    rig.mails.rates = Counting(rig.memory.challenges, rig, frozenset({"mails_per_hour"}))
    for _ in range(11):
        await rig.mails.accept(_call(mails_per_hour=10), SUBMISSION)
    assert [event.percent for event in rig.seen(LimitReached)] == [50, 80, 100]
