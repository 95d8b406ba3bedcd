"""The settings of codes: the keys they are derived with, how long they live, how often expired ones are dropped."""

import base64

import pytest

from otpmail.settings import parse_keys
from settings.conftest import Load, Problems

KEY = base64.b64encode(b"hunter2-hunter2-hunter2-hunter2-").decode()


def test_keys_keep_their_order(load: Load) -> None:
    """The first key is the one that issues; an empty list is allowed."""
    other = base64.b64encode(bytes(32)).decode()
    assert list(parse_keys(f" new:{other} , old:{KEY}, ")) == ["new", "old"]
    assert parse_keys("") == {}
    assert load(OTP_KEYS=f"k1:{KEY}").otp.derivation_keys == {"k1": b"hunter2-hunter2-hunter2-hunter2-"}


def test_the_life_of_a_code_depends_on_the_contract_unless_it_is_set(load: Load) -> None:
    """Unset, a code lives ten minutes, and two by the original's contract; OTP_LIFESPAN_SECONDS is for both."""
    unset, given = load().otp, load(OTP_LIFESPAN_SECONDS="90").otp
    assert [unset.lifespan(compat=compat) for compat in (False, True)] == [600, 120]
    assert [given.lifespan(compat=compat) for compat in (False, True)] == [90, 90]


@pytest.mark.parametrize("text", ["0", "0.5", "1us", "900ms"])
def test_records_are_dropped_at_most_every_second(problems: Problems, text: str) -> None:
    """A time below a second would keep the processor busy with sweeps, and is an error."""
    (line,) = problems(OTP_CLEANUP_SECONDS=text)
    assert line.startswith(f"OTP_CLEANUP_SECONDS: {text!r} is wrong: must be a time such as 90s, 5m or 1h30m, or a ")
    assert line.endswith(" from 1 to 316224000")


def test_what_a_start_warns_of(load: Load) -> None:
    """A setting beyond the ceilings of profiles, and a limit of an hour that the one of a day undercuts, are named."""
    usual = load(OTP_FAILURES_PER_HOUR="30", OTP_SENDS_PER_HOUR="30").otp
    assert [*usual.beyond_ceilings, *usual.without_effect] == []
    found = load(OTP_ATTEMPTS="11", OTP_FAILURES_PER_HOUR="31", OTP_SENDS_PER_HOUR="9", OTP_SENDS_PER_DAY="8").otp
    assert list(found.beyond_ceilings) == ["OTP_ATTEMPTS=11: more than 10 attempts at a code help a guesser alone"]
    assert list(found.without_effect) == [
        "OTP_FAILURES_PER_HOUR=31: has no effect, since OTP_FAILURES_PER_DAY=30 is reached first",
        "OTP_SENDS_PER_HOUR=9: has no effect, since OTP_SENDS_PER_DAY=8 is reached first",
    ]
