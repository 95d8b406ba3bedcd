"""Codes as somebody sees them who asks for thousands: evenly spread, and the next one not to be told from the last."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from attacks.targets import somebody
from otpmail.v1 import otp_pb2, otp_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterable

    from attacks.targets import Target

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.one_contract]

CODES, MORE_CODES = 200, 10_000
_AT_ONCE = 25
_DIGITS = 6
_LIMIT = 70.0
"""Chi-square with nine degrees of freedom is below this in all but one of 10**11 tries."""

_HEX_LIMIT = 90.0
"""So is it with fifteen."""

_RANDOM_DIGITS = 20  # hexadecimal ones of a mail's id, behind the time: 80 bits


def _chi_square(digits: Iterable[int], count: int, base: int = 10) -> float:
    """How far digits are from being evenly spread (Pearson)."""
    seen, expected = Counter(digits), count / base
    return sum((seen[digit] - expected) ** 2 / expected for digit in range(base))


async def test_codes_can_not_be_foretold(target: Target, *, full: bool) -> None:
    """Digits of codes, of their steps from one to the next and of their sums are evenly spread; few codes come twice.

    So a counter, a clock, a generator that steps evenly, or two replicas with one seed would be seen.
    """
    count = MORE_CODES if full else CODES
    before = len(target.mails)
    people = [somebody() for _ in range(count)]
    for start in range(0, count, _AT_ONCE):
        answers = await asyncio.gather(*(target.send_code(email) for email in people[start : start + _AT_ONCE]))
        assert None not in answers
    await target.relay.wait_for_mails(before + count)
    mails = [mail for mail in target.mails[before:] if mail.recipients[0] in people]
    codes = [int(target.system.codes_in(mail)[0]) for mail in mails]
    assert len(codes) == count
    pairs = list(itertools.pairwise(codes))
    for numbers in (
        codes,
        [later - earlier for earlier, later in pairs],
        [later + earlier for earlier, later in pairs],
    ):
        for place in range(_DIGITS):
            digits = (number % 10**_DIGITS // 10**place % 10 for number in numbers)
            assert _chi_square(digits, len(numbers)) < _LIMIT, place
    twice = count - len(set(codes))
    likely = count**2 / (2 * 10**_DIGITS)
    assert twice <= likely + 10 * (likely**0.5 + 1)


@pytest.mark.v1
async def test_ids_can_not_be_foretold(target: Target, *, full: bool) -> None:
    """Ids of mails and of challenges never come twice, and each random digit of them is evenly spread.

    A caller that knows the id of its mail can look it up, and one that knows a challenge can bind checks to it.
    """
    count = MORE_CODES if full else CODES
    call = otp_pb2_grpc.OtpServiceStub
    mails, challenges = list[str](), list[str]()
    for start in range(0, count, _AT_ONCE):
        requests = [otp_pb2.SendCodeRequest(email=somebody()) for _ in range(start, min(start + _AT_ONCE, count))]
        calls = (call(target.channel).SendCode(request, metadata=target.metadata) for request in requests)
        for sent in await asyncio.gather(*calls):
            mails.append(sent.mail.id[-_RANDOM_DIGITS:])
            challenges.append(sent.challenge_id)
    for ids in (mails, challenges):
        assert len(set(ids)) == count
        for place in range(len(ids[0])):
            assert _chi_square((int(one[place], 16) for one in ids), count, 16) < _HEX_LIMIT, place
