"""The rates of callers: mails beyond them are refused, or only counted in shadow."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pytest

from drafts import read_draft
from mail.rigs import DRAFT, Rig
from mail.test_group_commit import GroupStore
from otpmail.callers import Call, Caller, Permissions, Rates
from otpmail.delivery.job import Job
from otpmail.delivery.suppressions import whose
from otpmail.errors import InvalidArgument, LimitExceeded, Unavailable
from otpmail.events import LimitReached
from otpmail.limits import suppressing
from otpmail.limits.rules import total_of
from otpmail.mail.rates import Rates as Counting
from otpmail.mail.submission import Submission
from otpmail.model import DAY, HOUR, Mail, MailState, Reached, WaitFor
from otpmail.store.base import Earlier
from otpmail.store.challenges import Quota
from otpmail.store.counts_codec import decode_counts
from rig import NOW

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


async def _suppress(rig: Rig) -> None:
    """Have nothing sent to the recipients of DRAFT."""
    for address in DRAFT.to:
        rule = partial(suppressing.refused, now=rig.now, reason="550 5.1.1 no such user")
        await rig.memory.addresses.update(whose("shop", address.spec), rule)


async def test_a_mail_that_nobody_is_sent_counts_for_nothing(rig: Rig) -> None:
    """A mail whose recipients are all suppressed uses nothing up, and one with another recipient does."""
    call = _call(mails_per_hour=2)
    await _suppress(rig)
    for _ in range(5):
        job = await rig.mails.accept(call, SUBMISSION)
        assert job.state is MailState.FAILED
        await rig.mails.rates.close(10)
    assert _counted(rig) == 0
    others = replace(SUBMISSION, draft=read_draft(to=(*[to.spec for to in DRAFT.to], "other@example.org")))
    await rig.mails.accept(call, others)
    await rig.mails.rates.close(10)
    assert _counted(rig) == 1


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


async def test_a_level_is_said_once_though_mails_are_taken_back(rig: Rig) -> None:
    """Mails that reach half of a rate and are not accepted say so once in an hour, and not each of them."""
    call = _call(mails_per_hour=4)
    await rig.mails.accept(call, SUBMISSION)
    for _ in range(5):
        with pytest.raises(InvalidArgument):
            await rig.mails.accept(call, replace(SUBMISSION, ttl=-1.0))
    assert _counted(rig) == 1
    assert [event.percent for event in rig.seen(LimitReached)] == [50]


# Calls that are cancelled.


async def _cancelled(sending: "asyncio.Future[Job]") -> None:
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending


def _counted(rig: Rig) -> int:
    """Return how many mails of the hour count."""
    counts = rig.memory.challenges.counts
    [quota] = rig.mails.rates._quotas("shop", 3, None)
    return total_of(decode_counts(counts.read(quota.key)))


async def test_a_call_that_is_cancelled_while_its_mail_is_counted(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store counts the mail of a call that has gone; once it has said so, the mail counts no more."""
    count, asked, answers = rig.memory.challenges.count_at_once, asyncio.Event(), asyncio.Event()

    async def counted(quotas: Sequence[Quota]) -> tuple[float, tuple[Reached, ...]]:
        answer = count(quotas)
        asked.set()
        await answers.wait()
        return answer

    monkeypatch.setattr(rig.memory.challenges, "count_at_once", lambda _: None)
    monkeypatch.setattr(rig.memory.challenges, "count", counted)
    sending = asyncio.ensure_future(rig.mails.accept(_call(mails_per_hour=3), SUBMISSION))
    await asked.wait()
    await _cancelled(sending)
    assert _counted(rig) == 1
    answers.set()
    await rig.mails.rates.close(10)
    assert _counted(rig) == 0


async def test_a_cancelled_call_whose_mail_was_not_counted(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is taken back for a call that has gone where the store could not count."""
    asked, answers = asyncio.Event(), asyncio.Event()

    async def down(_: Sequence[Quota]) -> tuple[float, tuple[Reached, ...]]:
        asked.set()
        await answers.wait()
        raise Unavailable("the store is down")

    await rig.mails.accept(_call(mails_per_hour=3), SUBMISSION)
    monkeypatch.setattr(rig.memory.challenges, "count_at_once", lambda _: None)
    monkeypatch.setattr(rig.memory.challenges, "count", down)
    sending = asyncio.ensure_future(rig.mails.accept(_call(mails_per_hour=3), SUBMISSION))
    await asked.wait()
    await _cancelled(sending)
    answers.set()
    await rig.mails.rates.close(10)
    assert _counted(rig) == 1


async def test_what_counts_is_taken_back_also_where_the_call_is_cancelled_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that is down for a moment gets the mail back once it is up, though the call has gone since."""
    uncount, tries = rig.memory.challenges.uncount, 0
    tried = asyncio.Event()

    async def uncounted(quotas: Sequence[Quota], when: float) -> None:
        nonlocal tries
        tries += 1
        tried.set()
        if tries < 3:
            raise Unavailable("the store is down", retry_after=0.01)
        await uncount(quotas, when)

    monkeypatch.setattr(rig.memory.challenges, "uncount", uncounted)
    sending = asyncio.ensure_future(rig.mails.accept(_call(mails_per_hour=3), replace(SUBMISSION, ttl=-1.0)))
    await tried.wait()
    await _cancelled(sending)
    await rig.mails.rates.close(10)
    assert (_counted(rig), tries) == (0, 3)


class DurableRig(Rig):
    """The service on a store that keeps mails when the test says so."""

    def __init__(self) -> None:
        self.file = GroupStore(known=Earlier(Mail("m0", "shop", "<m0@example.org>", NOW, "known")))
        super().__init__(store=self.file, queue_size=1000)


@pytest.fixture
async def durable() -> DurableRig:
    """The service on a store that keeps mails when the test says so."""
    return DurableRig()


async def test_a_call_that_is_cancelled_in_the_turn_of_the_commit(durable: DurableRig) -> None:
    """A mail that goes out counts, however late its call is cancelled, and the call has its answer."""
    call = _call(mails_per_hour=3)
    sending = asyncio.ensure_future(durable.mails.accept(call, SUBMISSION))
    await durable.file.asked.wait()
    durable.file.goes_on.set()
    while not durable.queue.qsize():  # noqa: ASYNC110  in the turn of the answer
        await asyncio.sleep(0)
    assert not sending.done()
    sending.cancel()
    job = await sending
    await durable.mails.rates.close(10)
    assert (job.state, _counted(durable)) == (MailState.QUEUED, 1)


async def test_a_call_that_is_cancelled_before_the_commit(durable: DurableRig) -> None:
    """A mail that is not to go out counts for nothing."""
    sending = asyncio.ensure_future(durable.mails.accept(_call(mails_per_hour=3), SUBMISSION))
    await durable.file.asked.wait()
    sending.cancel()
    durable.file.goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await durable.mails.rates.close(10)
    assert (durable.queue.qsize(), _counted(durable)) == (0, 0)


@pytest.mark.parametrize("end", ["kept", "refused", "earlier", "cancelled", "dropped", "suppressed"])
async def test_the_mails_of_a_stream_count_once_they_are_accepted(durable: DurableRig, end: str) -> None:
    """Of the mails that a stream has prepared those count that the store has accepted, and no others."""
    call = _call(mails_per_hour=9)
    if end == "suppressed":
        await _suppress(durable)
    submission = replace(SUBMISSION, request_id="known" if end == "earlier" else "new", fingerprint=b"f")
    prepared = await durable.mails.prepare(call, submission, durable.admission, lambda: None)
    assert prepared is not None
    assert _counted(durable) == 1
    durable.file.error = Unavailable("the store is down") if end == "refused" else None
    if end == "dropped":
        durable.mails.drop(prepared)
    else:
        keeping = asyncio.ensure_future(durable.mails.keep([prepared]))
        await durable.file.asked.wait()
        if end == "cancelled":
            keeping.cancel()
        durable.file.goes_on.set()
        await asyncio.wait((keeping,))
    await durable.mails.rates.close(10)
    assert _counted(durable) == (end == "kept")
