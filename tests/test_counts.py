"""Counts in words."""

import pytest

from otpmail.counts import counted, describe_counts


@pytest.mark.parametrize(
    ("sent", "kept", "failed", "said"),
    [
        (0, 0, 0, ""),
        (1, 0, 0, "1 mail sent"),
        (2, 0, 1, "2 mails sent, 1 failed"),
        (0, 3, 1, "3 mails kept, 1 failed"),
        (2, 3, -1, "2 mails sent, 3 kept"),
    ],
)
def test_only_counts_above_0_are_told(sent: int, kept: int, failed: int, said: str) -> None:
    """The first count that is above 0 has the noun, and those that are not are left out."""
    assert describe_counts((sent, "sent"), (kept, "kept"), (failed, "failed")) == said


@pytest.mark.parametrize(("count", "said"), [(0, "0 accepted mails"), (1, "1 accepted mail"), (2, "2 accepted mails")])
def test_one_has_no_plural(count: int, said: str) -> None:
    """A noun has its plural for every count but one."""
    assert counted(count, "accepted mail") == said
