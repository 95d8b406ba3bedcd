"""The rules of suppressed addresses: how long, what lifts it, and that nothing else does."""

from hypothesis import given
from hypothesis import strategies as st

from otpmail.address import AS_KEY, Address
from otpmail.limits import suppressing
from otpmail.limits.suppressing import COMPLAINED_SECONDS, REFUSED_SECONDS
from otpmail.suppression import (
    ANY_SPELLING,
    MOST_SPELLINGS,
    REMEMBERED_SECONDS,
    AddressRecord,
    Suppression,
    SuppressionScope,
)

DAY = 86_400.0
NOW = 1_700_000_000.0
LOUD = Address("ADA@example.org").spelling


def _until(record: AddressRecord) -> float:
    assert record.refused is not None
    return record.refused.until


def test_the_ladder() -> None:
    """An address is suppressed for a day, then for 7, then for 30 each time."""
    record, now = None, NOW
    for days in (1, 7, 30, 30):
        record = suppressing.refused(record, now, "550 5.1.1 no")
        assert record.suppression(now, ANY_SPELLING, bulk=False) == Suppression("550 5.1.1 no", now, now + days * DAY)
        now += days * DAY
        assert record.suppression(now, ANY_SPELLING, bulk=True) is None


def test_refusals_while_one_is_in_force() -> None:
    """Refusals of mails that were in flight together are one with the first: its reason and its end stay."""
    record = suppressing.refused(None, NOW, "first")
    assert suppressing.refused(record, NOW + DAY - 1, "second") == record
    assert suppressing.refused(record, NOW + 1, "bounced", is_reported=True) == record


def test_a_refusal_is_of_one_spelling() -> None:
    """A refusal of one spelling keeps no other back. That of another joins it: the ladder is one for all."""
    record = suppressing.refused(None, NOW, "first", spelling=LOUD)
    assert record.suppression(NOW, LOUD, bulk=False) == record.refused
    assert record.suppression(NOW, AS_KEY, bulk=True) is None
    assert not record.is_over(NOW)
    assert suppressing.refused(record, NOW + 1, "again", spelling=LOUD) == record
    both = suppressing.refused(record, NOW + 1, "second", spelling=AS_KEY)
    for spelling in (LOUD, AS_KEY):
        assert both.suppression(NOW + 1, spelling, bulk=False) == Suppression("first", NOW, NOW + DAY)
    assert both.strikes == record.strikes
    later = suppressing.refused(both, _until(both), "third", spelling=LOUD)
    assert _until(later) == _until(both) + 7 * DAY
    assert later.suppression(_until(both), AS_KEY, bulk=False) is None


def test_the_spellings_of_a_record() -> None:
    """A record notes some spellings, the newest ones; however many there are, the others go on and its end stays."""
    spellings = [f"{number}".encode() for number in range(MOST_SPELLINGS + 1)]
    record = None
    for number, spelling in enumerate(spellings):
        record = suppressing.refused(record, NOW + number, "no", spelling=spelling)
    assert record is not None
    kept_back = [record.suppression(NOW + DAY - 1, one, bulk=False) is not None for one in (*spellings, AS_KEY)]
    assert kept_back == [False, *[True] * MOST_SPELLINGS, False]
    assert _until(record) == NOW + DAY


def test_a_report_is_of_all_spellings() -> None:
    """A bounce that a caller reports keeps each spelling back, also after a refusal of one."""
    record = suppressing.refused(None, NOW, "no", spelling=LOUD)
    reported = suppressing.refused(record, NOW, "bounced", is_reported=True)
    assert reported.is_reported
    for spelling in (LOUD, AS_KEY, ANY_SPELLING):
        assert reported.suppression(NOW, spelling, bulk=False) == reported.refused
    assert suppressing.refused(reported, NOW + 1, "no", spelling=LOUD) == reported


def test_an_old_refusal_is_forgotten() -> None:
    """A refusal a month after the last one ended counts as the first."""
    record = suppressing.refused(None, NOW, "no")
    later = _until(record) + REMEMBERED_SECONDS
    assert record.ends == later
    assert _until(suppressing.refused(record, later, "no")) == later + DAY
    assert _until(suppressing.refused(record, later - 1, "no")) == later - 1 + 7 * DAY


def test_a_delivery() -> None:
    """A delivery ends a refusal and its history, but no complaint."""
    record = suppressing.refused(None, NOW, "no")
    assert suppressing.delivered(record) is None
    both = suppressing.complained(record, NOW, "spam")
    after = suppressing.delivered(both)
    assert after == AddressRecord(complained=both.complained)
    assert suppressing.delivered(after) == after
    assert suppressing.delivered(None) is None


def test_a_relay_does_not_end_what_was_reported() -> None:
    """A bounce that a caller has reported ends by a report of a delivery, not by a relay that takes the next mail."""
    record = suppressing.refused(None, NOW, "bounced", is_reported=True)
    assert suppressing.delivered(record) == record
    again = suppressing.refused(record, _until(record), "bounced", is_reported=True)
    assert _until(again) == _until(record) + 7 * DAY
    assert suppressing.delivered(again, is_reported=True) is None


def test_a_complaint() -> None:
    """A complaint keeps bulk alone back, for a year; beside a refusal the refusal is what counts."""
    record = suppressing.complained(None, NOW, "spam")
    assert record.suppression(NOW, ANY_SPELLING, bulk=False) is None
    found = record.suppression(NOW, ANY_SPELLING, bulk=True)
    assert found == Suppression("spam", NOW, NOW + COMPLAINED_SECONDS, SuppressionScope.BULK)
    assert suppressing.complained(record, NOW + 1, "again") == record
    both = suppressing.refused(record, NOW, "no")
    assert both.suppression(NOW, ANY_SPELLING, bulk=True) == both.refused
    assert both.suppression(NOW + DAY, ANY_SPELLING, bulk=True) == found


Steps = st.lists(
    st.tuples(st.sampled_from(["refused", "reported", "complained", "delivered"]), st.floats(0, 60 * DAY)), max_size=30
)


@given(Steps)
def test_whatever_happens(steps: list[tuple[str, float]]) -> None:
    """Codes are kept back only after a refusal, never by a complaint, and no longer than the ladder says."""
    record: AddressRecord | None = None
    now, refused_at = NOW, None
    for step, seconds in steps:
        now += seconds
        before = record
        match step:
            case "refused" | "reported":
                record = suppressing.refused(record, now, step, is_reported=step == "reported")
                refused_at = now
            case "complained":
                record = suppressing.complained(record, now, step)
            case _:
                record = suppressing.delivered(record, is_reported=True)
                refused_at = None
        if step == "complained" and before is not None:
            assert record is not None
            assert record.refused == before.refused
        if record is None:
            continue
        found = record.suppression(now, ANY_SPELLING, bulk=False)
        assert (found is not None) <= (refused_at is not None)
        if found is not None:
            assert found.scope is SuppressionScope.ALL
            assert found.until - found.since in REFUSED_SECONDS
            assert found.since <= now < found.until
        assert record.ends >= max(part.until for part in (record.refused, record.complained) if part is not None)
