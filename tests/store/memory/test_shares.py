"""Each caller has a share of the memory for codes: no flood of another takes it."""

import pytest

from otp.trying import fresh
from otpmail.errors import MemoryFull
from otpmail.model import CheckResult
from otpmail.store.challenges import Attempt, Send
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
    codes.on_give_way = lambda *said: told.append(said)
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
    """Of the records that give way those go first that nobody has guessed at, and none whose guesses are used up."""
    free, tried, locked = range(20), range(20, 40), range(40, 80)
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
    codes.most = 0
    kept = []
    for number in range(20):
        await codes.mail("shop", number)
        kept.append([sum(_key("flood", one) in codes._shards[0] for one in some) for some in (free, tried, locked)])
    assert kept[9] == [0, 20, 40]
    assert kept[19] == [0, 0, 40]
    with pytest.raises(MemoryFull):
        await codes.mail("shop", 20)
    assert all([await codes.guess("flood", one) is CheckResult.TOO_MANY_ATTEMPTS for one in locked])


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
