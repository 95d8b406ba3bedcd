"""Each caller has a share of the memory for codes: no flood of another takes it."""

from dataclasses import replace
from functools import partial

import pytest

from otp.trying import fresh
from otpmail.code_record import STRANGERS, CodeRecord, Lane
from otpmail.errors import LimitExceeded, MemoryFull
from otpmail.model import CheckResult
from otpmail.store.challenges import Attempt, Quota, Send
from otpmail.store.memory.codes import MemoryChallengeStore, _mark_of
from rules import BOOK, POLICY
from store.clocks import Clock


class _Codes(MemoryChallengeStore):
    """The codes of several callers, in so much memory."""

    most = 40_000

    async def mail(self, caller: str, number: int, *, mailbox: bytes = b"") -> None:
        """Mail a code of an address."""
        now, room = self.now(), self.octets < self.most
        challenge = fresh(f"{number:06}{now:010.0f}", now)
        await self.send(Send(_key(caller, number), now, challenge, room=room, mailbox=mailbox, caller=caller))

    async def guess(self, caller: str, number: int) -> CheckResult:
        """Try a wrong code."""
        return (await self.check(_key(caller, number), self.now(), BOOK.guess("000000"), Attempt())).result

    def records(self, caller: str) -> int:
        """Return how many records of a caller there are."""
        return sum(key.startswith(caller.encode()) for shard in self._shards for key in shard)


def _key(caller: str, number: int) -> bytes:
    return f"{caller}-{number}".encode()


def _with_failure(record: CodeRecord | None, *, device: bytes, now: float) -> tuple[CodeRecord, None]:
    """Return the record with one wrong code more of a device or of strangers."""
    assert record is not None
    lanes = {lane.device: lane for lane in record.lanes}
    lane = lanes.get(device, Lane(device))
    lanes[device] = replace(lane, failures=(*lane.failures, now))
    return replace(record, lanes=tuple(lanes.values())), None


@pytest.fixture
def codes(clock: Clock) -> _Codes:
    """The codes of several callers."""
    return _Codes(clock, POLICY)


async def _flood(codes: _Codes, caller: str) -> int:
    """Mail codes of one caller until there is no room."""
    for number in range(10_000):
        try:
            await codes.mail(caller, number)
        except MemoryFull:
            return number
    pytest.fail("there is always room")


@pytest.fixture
def one_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all records lie in one shard, as hundreds of thousands lie in a thousand."""
    monkeypatch.setattr("otpmail.store.memory.codes._SHARDS", 1)


@pytest.mark.usefixtures("one_shard")
async def test_a_flood_of_one_caller(codes: _Codes) -> None:
    """A caller that is alone has all the room; others get their shares of it, which no flood takes back."""
    told: list[tuple[str, str, int]] = []
    codes.on_evicted = lambda *said: told.append(said)
    many = await _flood(codes, "flood")
    assert many > 50
    for number in range(many // 3):
        await codes.mail("shop", number)
    await _flood(codes, "flood")
    assert codes.records("shop") == many // 3
    await _flood(codes, "other")
    assert codes.records("shop") == many // 3
    shares = [codes.records(name) for name in ("flood", "other")]
    assert abs(shares[0] - shares[1]) <= 4096 // 200
    assert {said[:2] for said in told} == {("shop", "flood"), ("other", "flood")}
    assert sum(said[2] for said in told) >= many - codes.records("flood")


@pytest.mark.usefixtures("one_shard")
async def test_records_that_refuse_somebody_stay(codes: _Codes, clock: Clock) -> None:
    """Records that nobody has guessed at give way first, then codes of others, and no wrong code is ever forgotten."""
    free, tried, locked = range(20), range(20, 50), range(50, 80)
    for number in (*free, *tried, *locked):
        await codes.mail("flood", number)
    for number in tried:
        assert await codes.guess("flood", number) is CheckResult.WRONG_CODE
    for _ in range(2):
        for number in locked:
            await codes.mail("flood", number)
            for _ in range(5):
                assert await codes.guess("flood", number) is CheckResult.WRONG_CODE
        clock.time += 31
    codes.most, octets = 0, codes.octets
    kept = []
    for number in range(15):
        await codes.mail("shop", number)
        kept.append([sum(_key("flood", one) in codes._shards[0] for one in some) for some in (free, tried, locked)])
        assert codes.octets <= octets
    assert kept[9] == [0, 30, 30]
    assert kept[14] == [0, 30, 30]
    with pytest.raises(MemoryFull):
        await codes.mail("shop", 20)
    assert all([await codes.guess("flood", one) is CheckResult.NO_LIVE_CODE for one in tried])
    assert [[one.spent for one in await codes.budgets(_key("flood", number))][:2] for number in tried] == [[1, 1]] * 30
    assert all([await codes.guess("flood", one) is CheckResult.TOO_MANY_ATTEMPTS for one in locked])


async def test_no_flood_of_another_caller_gives_a_guesser_new_guesses(codes: _Codes, clock: Clock) -> None:
    """Wrong codes of strangers and of devices count for their hour and day, however many codes others ask for."""
    codes.most = 1_000_000
    guessed, lanes = range(200), {STRANGERS: 9, b"device 1": 4}
    for number in guessed:
        await codes.mail("flood", number)
        for device, failures in lanes.items():
            for _ in range(failures):
                await codes.update(_key("flood", number), partial(_with_failure, device=device, now=clock.time))
    codes.most = 0
    assert await _flood(codes, "shop") > 10
    for number in guessed:
        record = await codes.update(_key("flood", number), lambda record: (record, record))
        assert record is not None
        assert {lane.device: len(lane.failures) for lane in record.lanes} == lanes


async def test_no_flood_of_another_caller_gives_a_mailbox_more_mails(codes: _Codes, clock: Clock) -> None:
    """Mails to an address count for its hour and day, however many codes others ask for, unless they are few."""
    codes.most = 1_000_000
    for _ in range(4):
        for number in range(60):
            await codes.mail("flood", number)
        clock.time += 31
    codes.most = 0
    assert await _flood(codes, "shop") > 2
    mails = [[one.spent for one in await codes.budgets(_key("flood", number))] for number in range(60)]
    assert mails == [[4, 4]] * 60


async def test_records_without_wrong_codes_go_first_wherever_they_lie(codes: _Codes) -> None:
    """No code with a wrong guess ends while a record that says nothing is among those that are looked at."""
    codes.most = 1_000_000
    for number in range(200):
        await codes.mail("flood", number)
        if number % 2:
            await codes.guess("flood", number)
    codes.most = 0
    for number in range(20):
        await codes.mail("shop", number)
    assert codes.records("flood") == 160
    tried = [await codes.guess("flood", number) for number in range(1, 200, 2)]
    assert tried == [CheckResult.WRONG_CODE] * 100


@pytest.mark.usefixtures("one_shard")
async def test_a_refused_or_repeated_mail_makes_no_room(codes: _Codes, clock: Clock) -> None:
    """Live codes of others stay where a mail is refused, was decided already, or is of an address with a record."""
    for number in range(40):
        await codes.mail("flood", number)
    await codes.mail("shop", 0)
    codes.most = 0
    clock.time += 1
    with pytest.raises(LimitExceeded):
        await codes.mail("shop", 0)
    clock.time += 31
    await codes.mail("shop", 0)
    challenge = fresh("another new code", clock.time)
    spent = Quota("block", b"a block", 1)
    await codes.count((spent,))
    with pytest.raises(LimitExceeded):
        await codes.send(Send(_key("shop", 1), clock.time, challenge, room=False, quotas=(spent,), caller="shop"))
    assert (codes.records("flood"), codes.records("shop")) == (40, 1)
    send = Send(_key("shop", 1), clock.time, challenge, room=False, caller="shop")
    first = await codes.send(send)
    assert (codes.records("flood"), codes.records("shop")) == (38, 2)
    assert await codes.send(send) == first
    assert (codes.records("flood"), codes.records("shop")) == (38, 2)


@pytest.mark.usefixtures("one_shard")
async def test_the_shares_are_what_is_there(codes: _Codes, clock: Clock) -> None:
    """Sends, checks, mailboxes, releases and sweeps leave each share as what its caller has."""
    for number in range(20):
        for caller in ("shop", "bank"):
            await codes.mail(caller, number, mailbox=_key(caller, 100 + number % 3))
            await codes.guess(caller, number)
    await codes.forget(_key("shop", 3))
    await codes.void(_key("bank", 4), bytes(8), None)
    assert sum(codes._shares.values()) == codes.octets
    assert codes._shares[_mark_of("bank")] > codes._shares[_mark_of("shop")] > 0
    clock.time += 3 * 86_400
    await codes.sweep()
    assert (codes.octets, dict(codes._shares), codes._callers) == (0, {}, {})
