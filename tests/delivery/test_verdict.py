"""The verdict on a mail: whether it may go again where the relay may have it, and the state in which it settles."""

from typing import Literal

import pytest

from delivery.fakes import make_job
from otpmail.delivery.verdict import MOST_COPIES, final_state, may_copy
from otpmail.model import MailState, RecipientResult

EXPIRED, FAILED, PARTIAL = MailState.EXPIRED, MailState.FAILED, MailState.PARTIAL
RELAYED, UNCERTAIN = MailState.RELAYED, MailState.UNCERTAIN


@pytest.mark.parametrize(
    ("codes", "uncertain", "otherwise", "state", "decided"),
    [
        ({}, "", EXPIRED, EXPIRED, False),
        ({}, "ab", EXPIRED, UNCERTAIN, True),
        ({"a": 0, "b": 0}, "", FAILED, FAILED, False),
        ({"a": 451, "b": 451}, "", FAILED, FAILED, False),
        ({"a": 451, "b": 550}, "", EXPIRED, EXPIRED, True),
        ({"a": 550, "b": 550}, "", FAILED, FAILED, True),
        ({"a": 250}, "", FAILED, PARTIAL, True),
        ({"a": 250, "b": 451}, "", EXPIRED, PARTIAL, True),
        ({"a": 250, "b": 550}, "b", FAILED, UNCERTAIN, True),
        ({"a": 250, "b": 251}, "", FAILED, RELAYED, True),
        ({"a": 250, "b": 250}, "b", FAILED, RELAYED, True),
    ],
)
def test_the_final_state(
    codes: dict[str, int],
    uncertain: str,
    otherwise: MailState,
    state: MailState,
    decided: bool,  # noqa: FBT001
) -> None:
    """The last reply about each recipient and doubt decide the state; only running out of time decides nothing."""
    job = make_job("m", "a@x.org", "b@x.org")
    job.results = {f"{name}@x.org": RecipientResult(f"{name}@x.org", code) for name, code in codes.items()}
    job.uncertain = frozenset(f"{name}@x.org" for name in uncertain)
    assert final_state(job, otherwise) == (state, decided)


@pytest.mark.parametrize("on_uncertain", ["retry", "fail"])
@pytest.mark.parametrize("copies", range(MOST_COPIES + 2))
def test_copies_are_few_or_none(copies: int, on_uncertain: Literal["retry", "fail"]) -> None:
    """A mail in doubt is sent again until MOST_COPIES are out, with EMAIL_ON_UNCERTAIN=fail never."""
    job = make_job()
    job.copies = copies
    assert may_copy(job, on_uncertain) == (on_uncertain == "retry" and copies < MOST_COPIES)
