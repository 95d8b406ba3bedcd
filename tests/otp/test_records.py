"""The parts of a record that end with time, and those that stay."""

from hypothesis import given
from hypothesis import strategies as st

from otpmail.code_record import RELEASED, STRANGERS, Answer, CodeRecord, Lane, Slot
from otpmail.model import DAY, Challenge, Check, CheckResult
from otpmail.otp.records import lane_of, recent, recent_lanes, with_lane

_NOW = 1_000_000.0
_TIMES = st.sampled_from([_NOW - 1, _NOW, _NOW + 1])
_AT = st.sampled_from([_NOW - DAY - 1, _NOW - DAY, _NOW - DAY + 1, _NOW - DAY + 30, _NOW - DAY + 31, _NOW])
_LOGS = st.lists(_AT, max_size=4).map(sorted).map(tuple)
_MAILS = st.lists(_AT, max_size=4).map(tuple)  # in no order after OTP_RESEND_SECONDS has changed
_CHALLENGES = st.none() | _TIMES.map(lambda expires: Challenge(bytes(16), "k1", expires))
_SLOTS = st.builds(Slot, st.just(bytes(8)), challenge=_CHALLENGES, next_send=_TIMES)
_RECORDS = st.builds(
    CodeRecord,
    st.lists(_SLOTS, max_size=3).map(tuple),
    st.lists(st.builds(Lane, failures=_LOGS, sends=_MAILS), max_size=3).map(tuple),
    st.lists(_TIMES.map(lambda at: Answer(bytes(8), Check(CheckResult.VALID), at)), max_size=2).map(tuple),
)


@given(_RECORDS)
def test_the_fast_path_is_the_full_path(record: CodeRecord) -> None:
    """Lanes in which nothing has ended are the same after the full look, but for those that say nothing."""
    lanes = tuple([lane for lane in recent(record, _NOW, 30.0).lanes if lane.failures or lane.sends])
    assert lanes == recent_lanes(record.lanes, _NOW, 30.0)


@given(_RECORDS)
def test_what_has_ended_is_gone(record: CodeRecord) -> None:
    """A challenge ends at its expiry, a wait at the next send, an answer after a minute, each to the moment."""
    left = recent(record, _NOW, 30.0)
    assert all(slot.challenge.expires > _NOW for slot in left.slots if slot.challenge is not None)
    assert all(slot.next_send > _NOW for slot in left.slots if slot.challenge is None)
    assert left.answers == tuple([answer for answer in record.answers if answer.until > _NOW])
    live = [slot for slot in record.slots if slot.challenge is not None and slot.challenge.expires > _NOW]
    assert [slot for slot in left.slots if slot.challenge is not None] == live


def test_devices_have_few_lanes() -> None:
    """Sixteen devices have lanes of their own, none of which gives way; a further one counts in strangers' lane."""
    record = CodeRecord(lanes=(Lane(STRANGERS, (1,)),))
    for number in range(20):
        lane = lane_of(record, b"device%02d" % number)
        failed = Lane(lane.device, (*lane.failures, number))
        record = CodeRecord(lanes=with_lane(record.lanes, failed))
    own = [Lane(b"device%02d" % number, (number,)) for number in range(16)]
    assert record.lanes == (Lane(STRANGERS, (1, 16, 17, 18, 19)), *own)
    assert lane_of(record, b"device05") == own[5]
    lanes = with_lane(record.lanes, Lane(b"device05", (5, 6)))
    assert lanes[-1] == Lane(b"device05", (5, 6)) == lane_of(CodeRecord(lanes=lanes), b"device05")
    assert with_lane(lanes, Lane(STRANGERS, (2,)))[0] == Lane(STRANGERS, (2,))


def test_what_was_released_takes_the_lane_of_no_device() -> None:
    """After a release sixteen devices have lanes of their own as before, beside that of what was released."""
    spent = Lane(RELEASED, sends=(1,))
    record = CodeRecord(lanes=(spent, *[Lane(b"device%02d" % number, (1,)) for number in range(15)]))
    assert lane_of(record, b"device15") == Lane(b"device15")
    record = CodeRecord(lanes=(*record.lanes, Lane(b"device15", (1,))))
    assert lane_of(record, b"device16") == Lane(STRANGERS)


def test_devices_have_few_lanes_without_strangers() -> None:
    """Where strangers have done nothing yet, a further device begins their lane."""
    record = CodeRecord(lanes=tuple([Lane(b"device%02d" % number, (1,)) for number in range(16)]))
    assert lane_of(record, b"device16") == lane_of(record, STRANGERS) == Lane(STRANGERS)
    assert lane_of(CodeRecord(lanes=record.lanes[1:]), b"device16") == Lane(b"device16")
