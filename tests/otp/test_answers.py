"""The answers to checks with a request id that a record keeps: which, for how long, and how many."""

from dataclasses import replace

import pytest

from otp.trying import POLICY, check, fail, send, sent
from otpmail.code_record import CodeRecord, Lane
from otpmail.limits.rules import Windows
from otpmail.model import DAY, HOUR, CheckResult
from otpmail.store.challenges import Attempt
from otpmail.store.record_codec import encode_record, ends_of


def _named(number: int) -> Attempt:
    return Attempt(request=b"check%03d" % number)


def test_a_record_keeps_few_answers() -> None:
    """Of each kind a record keeps the latest four: right codes, wrong ones, and answers that cost nothing."""
    policy = replace(POLICY, attempts=9, failures=Windows(100, 100))
    record, now = None, 0.0
    for number in range(8):
        record, _ = send(record, now, f"{number:016d}", spaced=False, policy=policy)
        for place in range(8):
            record, _ = check(record, now, attempt=_named(100 + 10 * number + place), policy=policy)
        record, _ = check(record, now, f"{number:016d}".encode(), attempt=_named(number), policy=policy)
        for place in range(8):
            record, _ = check(record, now, attempt=_named(200 + 10 * number + place), policy=policy)
    assert record is not None
    results = [answer.check.result for answer in record.answers]
    assert {result: results.count(result) for result in set(results)} == {
        CheckResult.VALID: 4,
        CheckResult.WRONG_CODE: 4,
        CheckResult.NO_LIVE_CODE: 4,
    }
    assert [answer.is_free for answer in record.answers].count(True) == 4
    assert {answer.request for answer in record.answers} >= {b"check007", b"check277", b"check177"}
    bare = CodeRecord(record.slots, record.lanes)
    assert len(encode_record(record)) - len(encode_record(bare)) <= 12 * 48


def test_checks_do_not_make_a_record_live_on() -> None:
    """With checks without end, a record ends a minute after what it says without them, and may be forgotten before."""
    record: CodeRecord | None = CodeRecord(lanes=(Lane(sends=(30.0,)),))
    ends, now = 30.0 + DAY, DAY - 100.0
    needed = []
    while now < ends + 200.0:
        now += 7.0
        record, _ = check(record, now, attempt=_named(int(now) % 1000))
        if record is not None and record.lanes:
            needed.append(ends_of(record)[1])
            assert ends_of(record)[0] <= ends + 60.0
    assert max(needed) == 0.0
    assert record is None or ends_of(record)[0] <= ends + 60.0


@pytest.mark.parametrize("locks", [False, True])
def test_an_answer_does_not_outlive_a_lock(locks: bool) -> None:  # noqa: FBT001  pytest passes it by name
    """Where a lock ends within the minute, the same check is asked anew then, as its answer has said."""
    policy = replace(POLICY, locks=locks)
    sent_again, _ = send(fail(sent(), 0.0, 3), HOUR - 40.0, "b")
    record = fail(sent_again, HOUR - 35.0, 2)
    first = check(record, HOUR - 30.0, b"b", attempt=_named(1), policy=policy)
    assert first[1].result is CheckResult.TOO_MANY_ATTEMPTS
    again = check(first[0], HOUR - 1.0, b"b", attempt=_named(1), policy=policy)
    assert again == first
    later = check(first[0], HOUR, b"b", attempt=_named(1), policy=policy)[1].result
    assert later is (CheckResult.VALID if locks else CheckResult.TOO_MANY_ATTEMPTS)
