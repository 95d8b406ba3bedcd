"""The counts of limits as octets."""

import pytest

from otpmail.errors import StoreError
from otpmail.store.counts_codec import (
    NO_COUNTS,
    counts_end,
    counts_needed,
    decode_counts,
    encode_counts,
)


@pytest.mark.parametrize("counts", [(), ((5, 1),), ((5, 1), (6, 4_000_000_000), (4_000_000_000, 2))])
def test_counts_are_read_as_written(counts: tuple[tuple[int, int], ...]) -> None:
    """Counts and their times come back, each within 32 bits."""
    octets = encode_counts(counts, 17.5, 3.5)
    assert (decode_counts(octets), counts_end(octets), counts_needed(octets)) == (counts, 17.5, 3.5)


def test_no_counts() -> None:
    """No counts end at once, and may be forgotten."""
    assert (decode_counts(NO_COUNTS), counts_end(NO_COUNTS), counts_needed(NO_COUNTS)) == ((), 0.0, 0.0)


def test_counts_of_a_later_version_are_refused() -> None:
    """Counts of another version are not read as if they were ours."""
    with pytest.raises(StoreError, match="version 2; this program reads version 1"):
        decode_counts(b"\x02" + NO_COUNTS[1:])
