"""Records of addresses, as octets and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpmail.address import AS_KEY, Address
from otpmail.errors import StoreError
from otpmail.store.address_codec import MOST_REASON, decode_address, encode_address, mark_in, mark_of
from otpmail.suppression import AddressRecord, Suppression, SuppressionScope

ADA = "ada@example.org"
LOUD = Address("ADA@example.org").spelling
TIMES = st.floats(0, 4e9)


def _suppressions(scope: SuppressionScope) -> st.SearchStrategy[Suppression | None]:
    reasons = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=24)
    return st.none() | st.builds(Suppression, reasons, TIMES, TIMES, st.just(scope))


RECORDS = st.builds(
    AddressRecord,
    _suppressions(SuppressionScope.ALL),
    st.integers(0, 3),
    st.booleans(),
    _suppressions(SuppressionScope.BULK),
    st.lists(st.sampled_from([AS_KEY, LOUD, Address("Ada@example.org").spelling]), unique=True).map(tuple),
)


@given(RECORDS, st.sampled_from([b"", mark_of("shop")]))
def test_it_comes_back(record: AddressRecord, mark: bytes) -> None:
    """A record comes back as it was, and so does the mark of its caller."""
    octets = encode_address(record, ADA, mark)
    assert decode_address(octets, ADA) == record
    assert mark_in(octets) == mark


def test_a_usual_spelling_takes_no_room() -> None:
    """An address that is written as its key takes as many octets as one that is refused in any spelling."""
    records = [AddressRecord(Suppression("no", 1.0, 2.0), 1, spellings=some) for some in ((), (AS_KEY,))]
    assert len({len(encode_address(record, ADA)) for record in records}) == 1


def test_an_earlier_version_reads_one_spelling() -> None:
    """The first of several spellings stands where a version that knew one alone has it; so a replica can be older."""
    suppression = Suppression("no", 1.0, 2.0)
    one, both = [
        encode_address(AddressRecord(suppression, 1, spellings=some), ADA) for some in ((LOUD,), (LOUD, AS_KEY))
    ]
    assert both == one + AS_KEY


def test_the_address_is_not_kept() -> None:
    """A reason that quotes the address is kept without it, and shown with it."""
    record = AddressRecord(Suppression(f"550 5.1.1 <{ADA}>: unknown", 1.0, 2.0), 1)
    octets = encode_address(record, ADA)
    assert ADA.encode() not in octets
    assert decode_address(octets, ADA) == record


def test_a_long_reason() -> None:
    """A long reason is cut between two characters, and ends with an ellipsis."""
    octets = encode_address(AddressRecord(Suppression("ü" * 500, 1.0, 2.0), 1), ADA)
    refused = decode_address(octets).refused
    assert refused is not None
    assert refused.reason.strip("ü") == "…"
    assert MOST_REASON - 2 <= len(refused.reason.encode()) <= MOST_REASON


def test_a_later_version() -> None:
    """A record of a later version is an error, not another record."""
    octets = encode_address(AddressRecord(strikes=1), ADA)
    with pytest.raises(StoreError, match="version 2"):
        decode_address(b"\x02" + octets[1:])
