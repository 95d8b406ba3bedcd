"""The limits over many addresses that a mail counts for, and the events about them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otp.trying import DEVICE, POLICY, check, fail, send
from otpmail.callers import ANONYMOUS, Caller, Permissions, TableKey
from otpmail.code_record import STRANGERS, CodeRecord, Lane, Slot
from otpmail.errors import LimitExceeded
from otpmail.limits.rules import stretch_of
from otpmail.model import DAY, HOUR, LONG, Challenge, CheckResult, Counts, Reached
from otpmail.otp.policy import Policy
from otpmail.otp.quotas import Quotas, admit
from otpmail.otp.records import lane_of, recent
from otpmail.otp.slots import slot_of
from otpmail.settings import OtpSettings
from otpmail.settings.otp import LIMITS, limits_in_shadow
from otpmail.store.challenges import NO_SCOPE, Attempt, Quota
from otpmail.store.counts_codec import decode_counts, encode_counts, with_one_more
from otpmail.store.records import is_at_short_codes

SHOP, BANK = Caller("shop"), Caller("bank")


def test_blocks_of_callers_are_apart() -> None:
    """The mails of one caller count for no block of another: nobody learns what others do."""
    quotas = Quotas(OtpSettings())
    [shop], [bank], [other] = quotas.of(SHOP, "192.0.2.1"), quotas.of(BANK, "192.0.2.1"), quotas.of(SHOP, "192.0.2.2")
    assert len({shop.key, bank.key, other.key}) == 3
    assert (shop.limit, shop.most, shop.is_shadow) == ("block", 30, False)
    assert quotas.of(SHOP, "") == ()
    assert not quotas.are_usual


def test_all_callers_share_the_cap_of_the_service() -> None:
    """Each caller has a cap of its own, and all share one; both warn before they are reached."""
    quotas = Quotas(OtpSettings(sends_per_caller_hour=5, sends_per_service_hour=9))
    shop, bank = quotas.of(SHOP, ""), quotas.of(BANK, "")
    assert [(one.limit, one.most, one.warns) for one in shop] == [("caller", 5, True), ("service", 9, True)]
    assert shop[0].key != bank[0].key
    assert shop[1] == bank[1]
    assert quotas.are_usual


def test_a_caller_with_a_cap_of_its_own() -> None:
    """The cap of a caller in the file of callers counts in place of that for all."""
    shop = Caller("shop", Permissions(codes_per_hour=7))
    for settings in (OtpSettings(), OtpSettings(sends_per_caller_hour=5)):
        assert [one.most for one in Quotas(settings).of(shop, "")] == [7]


def test_a_limit_in_shadow() -> None:
    """LIMITS_MODE puts each limit into shadow by its name."""
    settings = OtpSettings.from_layers(
        {"LIMITS_MODE": "caller=shadow", "OTP_SENDS_PER_CALLER_HOUR": "5", "OTP_SENDS_PER_SERVICE_HOUR": "9"}
    )
    found = {one.limit: one.is_shadow for one in Quotas(settings).of(ANONYMOUS, "192.0.2.1")}
    assert found == {"block": False, "caller": True, "service": False}


@pytest.mark.parametrize(
    ("text", "shadows"),
    [
        ("enforce", set()),
        ("shadow", set(LIMITS)),
        (" Shadow ", set(LIMITS)),
        ("block=shadow", {"block"}),
        ("block=shadow, resend = SHADOW,", {"block", "resend"}),
        ("shadow,address=enforce", set(LIMITS) - {"address"}),
        ("block=shadow,enforce", set()),
    ],
)
def test_modes(text: str, shadows: set[str]) -> None:
    """A mode without a limit is for all of them, and later words count."""
    assert limits_in_shadow(text) == shadows
    assert OtpSettings.from_layers({"LIMITS_MODE": text}).limits_in_shadow == shadows


@pytest.mark.parametrize(
    "text", ["off", "block", "blocks=shadow", "block=off", "block=", "=shadow", "failures=enforce"]
)
def test_what_is_no_mode_is_refused(text: str) -> None:
    """Another word is refused, with the names of the limits that have a mode."""
    with pytest.raises(ValueError, match="resend, address, block, caller, service, guesses"):
        OtpSettings.from_layers({"LIMITS_MODE": text})


@pytest.mark.parametrize(
    "text",
    ["failures=shadow", "shadow, OTP_FAILURES_PER_HOUR=shadow", "failures_per_day = shadow", "attempts=shadow"],
)
def test_wrong_codes_of_an_address_are_never_in_shadow(text: str) -> None:
    """A shadow of the limits against guessing is refused, and the reason is said."""
    with pytest.raises(ValueError, match="anybody could guess on without them; only guesses"):
        OtpSettings.from_layers({"LIMITS_MODE": text})
    everything = Policy.of(OtpSettings.from_layers({"LIMITS_MODE": "shadow"}))
    record = fail(send(None, 0.0, policy=everything)[0], 0.0, 3)
    assert check(record, 0.0, policy=replace(everything, attempts=3))[1].result is CheckResult.TOO_MANY_ATTEMPTS
    failed = CodeRecord(record.slots if record else (), (Lane(failures=(0.0,) * 10),))
    assert check(failed, 0.0, policy=replace(everything, attempts=9))[1].result is CheckResult.TOO_MANY_ATTEMPTS


@pytest.mark.parametrize("given", [None, 9])
def test_a_caller_with_guesses_of_its_own(given: int | None) -> None:
    """The wrong codes of a caller in the file of callers count in place of those for all, and are named by its key."""
    quotas = Quotas(OtpSettings(failures_per_caller_hour=given))
    shop, bank = Caller("shop", Permissions(guesses_per_hour=7)), Caller("bank")
    [own] = quotas.of_guesses(shop)
    assert (own.limit, own.most, own.named) == ("guesses", 7, TableKey("guesses_per_hour", shop.place))
    assert [(one.most, one.named) for one in quotas.of_guesses(bank)] == ([(9, None)] if given else [])


def _flood(policy: Policy, count: int, *, compat: bool = False) -> list[tuple[Reached, ...]]:
    record, said = None, []
    for number in range(count):
        record, sending = send(record, 1000.0 + number, f"{number:016d}", policy=policy, compat=compat)
        said.append(sending.reached)
    return said


def test_the_caps_of_an_address_in_shadow() -> None:
    """An address in shadow has more mails than its caps, and each one beyond them is said."""
    policy = replace(POLICY, resend=0.0, shadows=frozenset({"address"}))
    assert _flood(policy, 12) == [()] * 10 + [(Reached("address", 100),)] * 2
    with pytest.raises(LimitExceeded):
        _flood(replace(policy, shadows=frozenset()), 11)


def test_the_wait_in_shadow() -> None:
    """A wait in shadow lets a mail go at once, and says so."""
    policy = replace(POLICY, shadows=frozenset({"resend"}))
    assert _flood(policy, 3) == [(), (Reached("resend", 100),), (Reached("resend", 100),)]


def test_the_contract_of_the_original_has_caps_in_shadow() -> None:
    """The original's clients may call ten times at once, and the caps of an address are in shadow for them."""
    assert _flood(POLICY, 12, compat=True) == [()] * 10 + [(Reached("address", 100),)] * 2


@st.composite
def _counted(draw: st.DrawFn) -> tuple[bytes, Quota, float]:
    """Return counts of a limit as octets, the limit, and a time: its stretch may be a later one, or an earlier."""
    span = draw(st.sampled_from([HOUR, DAY]))
    stretch, most = stretch_of(span), draw(st.integers(1, 50))
    quota = Quota("caller", b"key", most, draw(st.booleans()), draw(st.booleans()), stretch)
    numbers = sorted(draw(st.sets(st.integers(1000, 1030), max_size=13)))
    counts: Counts = tuple([(number, draw(st.integers(1, 9))) for number in numbers])
    ends = float((numbers[-1] + 13) * stretch) if numbers else 0.0
    needed = draw(st.sampled_from([0.0, 0.0, 1e9]))
    now = draw(st.integers(990, 1050)) * stretch + draw(st.floats(0.0, stretch - 1))
    return encode_counts(counts, ends, needed), quota, now


@given(_counted())
def test_counting_octets_is_what_the_rules_do(given: tuple[bytes, Quota, float]) -> None:
    """Octets with one more are those that the rules make of them, where nothing is worth a line."""
    octets, quota, now = given
    after = with_one_more(octets, quota.most, now, quota.stretch)
    if after is None:
        return
    admitted = admit(decode_counts(octets), quota, now)
    assert after == encode_counts(admitted.counts, admitted.ends, admitted.needed)
    assert admitted.reached is None


@pytest.mark.parametrize("span", [HOUR, DAY])
def test_most_mails_take_the_fast_path(span: int) -> None:
    """A caller with less than half of its limit spent is counted on the octets, also as time passes."""
    stretch, now, octets, slow = stretch_of(span), 1e9, encode_counts((), 0.0, 0.0), 0
    quota = Quota("caller", b"key", 1000, warns=True, stretch=stretch)
    for _ in range(400):
        now += stretch / 25
        after = with_one_more(octets, quota.most, now, stretch)
        if after is None:
            slow += 1
            admitted = admit(decode_counts(octets), quota, now)
            after = encode_counts(admitted.counts, admitted.ends, admitted.needed)
        octets = after
    assert slow <= 4  # where the oldest stretch has ended


_SLOTS = st.lists(
    st.builds(
        Slot,
        st.sampled_from([NO_SCOPE, b"scope  1"]),
        st.sampled_from([STRANGERS, DEVICE]),
        st.none()
        | st.builds(
            Challenge,
            st.sampled_from([b"a" * 16, b"b" * 16]),
            st.just("k1"),
            st.sampled_from([0.0, 9.0]),
            length=st.sampled_from([6, LONG]),
        ),
    ),
    max_size=3,
).map(tuple)
_OTHERS = tuple([Lane(b"other %02d" % number, (0.5,)) for number in range(16)])
_LANES = st.sampled_from([(), _OTHERS, _OTHERS[1:], (Lane(DEVICE, (0.5,)), *_OTHERS[1:])])


@given(
    st.none() | st.builds(CodeRecord, _SLOTS, _LANES),
    st.sampled_from([STRANGERS, DEVICE]),
    st.sampled_from([None, b"a" * 16]),
)
def test_the_fast_path_of_who_is_limited_is_the_full_path(
    record: CodeRecord | None, device: bytes, only: bytes | None
) -> None:
    """Limits over many addresses are for strangers, and devices that count with them, but not at a live long code."""
    attempt = Attempt(device=device, only=only)
    known = recent(record or CodeRecord(), 1.0, POLICY.resend)
    challenge = slot_of(known, attempt).challenge
    is_long = challenge is not None and challenge.is_long and (only is None or only == challenge.id)
    expected = lane_of(known, device).device == STRANGERS and not is_long
    assert POLICY.is_limited(record, 1.0, attempt) is expected
    assert expected or not is_at_short_codes(record, attempt)
