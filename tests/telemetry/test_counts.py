"""Counts in words."""

import pytest

from otpmail.telemetry.counts import describe_counts


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
