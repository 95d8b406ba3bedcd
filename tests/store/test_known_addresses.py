"""The addresses that a store knows: by caller, until it ends, within its bounds."""

from functools import partial
from pathlib import Path

import pytest

from otpmail.errors import Unavailable
from otpmail.limits import suppressing
from otpmail.store.address_codec import encode_address
from otpmail.store.addresses import AddressTable, CallersAddress, Changed, Rule
from otpmail.suppression import REMEMBERED_SECONDS
from store.clocks import Clock
from store.conftest import AnyStore, sqlite_store

DAY = 86_400.0
ADA = CallersAddress("shop", "ada@example.org")
BOB = ADA._replace(address="bob@example.org")


def _refused(clock: Clock, reason: str = "550 5.1.1 no") -> Rule:
    return partial(suppressing.refused, now=clock(), reason=reason)


def _table(clock: Clock, *, key: bytes = b"k", most: int = 10, most_octets: int = 1 << 20) -> AddressTable:
    return AddressTable((key,), clock, most=most, most_octets=most_octets)


async def test_a_caller_knows_its_own(store: AnyStore, clock: Clock) -> None:
    """One caller's record of an address is not another's; each change says what was known before."""
    addresses = store.addresses
    changed = await addresses.update(ADA, _refused(clock))
    assert (changed.before, changed.is_full) == (None, False)
    assert addresses.find(ADA) == changed.after
    assert addresses.find(ADA._replace(caller="bank")) is None
    assert addresses.find(BOB) is None
    assert addresses.note(ADA, suppressing.delivered).before == changed.after
    assert addresses.find(ADA) is None
    assert (addresses.count, addresses.octets) == (0, 0)


async def test_what_has_ended_is_forgotten(store: AnyStore, clock: Clock) -> None:
    """A refusal is known for a month after its end, and is swept then."""
    addresses = store.addresses
    await addresses.update(ADA, _refused(clock))
    await addresses.update(BOB, partial(suppressing.complained, now=clock(), reason="spam"))
    clock.time += DAY + REMEMBERED_SECONDS - 1
    assert addresses.find(ADA) is not None
    clock.time += 1
    assert addresses.find(ADA) is None
    assert addresses.count == 2
    swept = [names async for names in addresses.sweep()]
    assert sum(map(len, swept)) == 1
    assert addresses.count == 1
    assert addresses.find(BOB) is not None


def test_what_has_ended_is_not_taken_over(clock: Clock) -> None:
    """An announcement that comes after its record has ended, and was swept, brings nothing back."""
    table = _table(clock)
    octets = encode_address(suppressing.refused(None, clock(), "550 5.1.1 no"), ADA.address)
    clock.time += DAY + REMEMBERED_SECONDS
    assert table.put(table.names(ADA)[0], octets)
    assert table.count == 0


async def test_a_file_and_its_keys(tmp_path: Path, clock: Clock) -> None:
    """Notes are in the file after a stop. A new key in front of the old one leaves it, and takes it over."""
    old, new = bytes(32), bytes(range(32))
    store = sqlite_store(tmp_path / "store.db", clock, keys={"k1": old})
    await store.open()
    known = store.addresses.note(ADA, _refused(clock)).after
    await store.addresses.update(BOB, _refused(clock))
    await store.close()
    store = sqlite_store(tmp_path / "store.db", clock, keys={"k2": new, "k1": old})
    await store.open()
    assert store.addresses.find(ADA) == known
    await store.addresses.update(ADA, partial(suppressing.complained, now=clock(), reason="spam"))
    assert store.addresses.count == 2
    await store.close()
    store = sqlite_store(tmp_path / "store.db", clock, keys={"k2": new})
    await store.open()
    assert store.addresses.find(ADA) is not None
    assert store.addresses.find(BOB) is None  # its key is gone
    clock.time += 400 * DAY
    await store.addresses.forget_ended()
    await store.close()


@pytest.mark.parametrize("bounds", [{"most": 50}, {"most_octets": 9000}], ids=["count", "octets"])
def test_a_full_table_keeps_what_is_in_force(clock: Clock, bounds: dict[str, int]) -> None:
    """A full table takes nothing new and says so; what is in force stays, and what is over gives way."""
    table = _table(clock, most=bounds.get("most", 1000), most_octets=bounds.get("most_octets", 1 << 20))
    number = 0
    while not (last := table.apply(ADA._replace(address=f"{number}@example.org"), _refused(clock))).is_full:
        number += 1
    assert (last.before, last.after) == (None, None)
    assert number > 20
    assert all(table.find(ADA._replace(address=f"{one}@example.org")) for one in range(number))
    again = table.apply(ADA._replace(address="0@example.org"), partial(suppressing.complained, now=0.0, reason="spam"))
    assert not again.is_full  # it is known already
    clock.time += 2 * DAY
    # Each try searches a part of the table.
    assert any(not table.apply(BOB, _refused(clock)).is_full for _ in range(5000))
    assert table.count <= number


def test_a_table_without_places(clock: Clock) -> None:
    """SUPPRESSIONS_MAX=0 suppresses nobody."""
    table = _table(clock, most=0)
    assert table.apply(ADA, _refused(clock)).is_full
    assert table.find(ADA) is None


def test_places_depend_on_the_key(clock: Clock) -> None:
    """Nobody can choose addresses that lie together without the key."""
    addresses = [ADA._replace(address=f"{number}@example.org") for number in range(2000)]
    first, second = (_table(clock, key=key) for key in (b"one", b"two"))
    together = [one for one in addresses if first.names(one)[0][0] == 7]
    assert len({second.names(one)[0][0] for one in together}) > len(together) // 3


def _fill(table: AddressTable, caller: str, count: int, clock: Clock) -> list[Changed]:
    rule = _refused(clock)
    return [table.apply(CallersAddress(caller, f"{number}@example.org"), rule) for number in range(count)]


def _known(table: AddressTable, caller: str, count: int) -> int:
    places = [CallersAddress(caller, f"{number}@example.org") for number in range(count)]
    return sum(table.find(place) is not None for place in places)


@pytest.mark.parametrize("bounds", [{"most": 60}, {"most_octets": 12_000}], ids=["count", "octets"])
def test_a_flood_of_another_caller(clock: Clock, bounds: dict[str, int]) -> None:
    """A caller that is alone has the whole table. Others get their shares of it, and no flood takes those away."""
    table = _table(clock, most=bounds.get("most", 1000), most_octets=bounds.get("most_octets", 1 << 20))
    full = _known_at_most(table, clock)
    assert table.apply(CallersAddress("flood", "further@example.org"), _refused(clock)).is_full
    changes = _fill(table, "shop", 10, clock)
    assert not any(change.is_full for change in changes)
    assert {change.evicted.caller for change in changes if change.evicted is not None} == {"flood"}
    lost = sum(len(change.evicted.names) for change in changes if change.evicted is not None)
    assert _known(table, "flood", full) == full - lost
    assert all(change.is_full for change in _fill(table, "other flood", 3 * full, clock)[2 * full :])
    _fill(table, "flood", 3 * full, clock)
    assert _known(table, "shop", 10) == 10
    shares = [_known(table, caller, 3 * full) for caller in ("flood", "other flood")]
    assert abs(shares[0] - shares[1]) <= 2
    assert table.octets <= 12_000 + 300 or "most" in bounds
    assert table.count <= full


def _known_at_most(table: AddressTable, clock: Clock) -> int:
    number = 0
    while not table.apply(CallersAddress("flood", f"{number}@example.org"), _refused(clock)).is_full:
        number += 1
    return number


async def test_what_gave_way_is_not_in_the_file(tmp_path: Path, clock: Clock) -> None:
    """The file has forgotten what gave way, and a start knows whose the rest is."""
    for _ in range(2):
        store = sqlite_store(tmp_path / "store.db", clock, most_addresses=20)
        await store.open()
        table = store.addresses
        for number in range(20):
            table.note(CallersAddress("flood", f"{number}@example.org"), _refused(clock))
        for number in range(5):
            assert not (await table.update(CallersAddress("shop", f"{number}@example.org"), _refused(clock))).is_full
        assert (_known(table, "flood", 20), _known(table, "shop", 5)) == (15, 5)
        await store.close()


async def test_what_gave_way_comes_back_on_a_full_disk(tmp_path: Path, clock: Clock) -> None:
    """A change that the full disk refuses takes nothing away from others: the file still has what gave way."""
    disk = [1 << 40]
    store = sqlite_store(tmp_path / "store.db", clock, most_addresses=10, free=lambda _: disk[0])
    await store.open()
    table = store.addresses
    for number in range(10):
        await table.update(CallersAddress("flood", f"{number}@example.org"), _refused(clock))
    disk[0] = 1000
    with pytest.raises(Unavailable):
        await table.update(ADA, _refused(clock))
    assert (table.count, _known(table, "flood", 10), table.find(ADA)) == (10, 10, None)
    disk[0] = 1 << 40
    await store.close()


def test_records_of_an_earlier_version_share(clock: Clock) -> None:
    """Records that do not say whose they are count as those of one caller, and give way as such."""
    table = _table(clock, most=10)
    record = suppressing.refused(None, clock(), "550 5.1.1 no")
    for number in range(10):
        place = CallersAddress("old", f"{number}@example.org")
        assert table.put(table.names(place)[0], encode_address(record, place.address))
    assert _known(table, "old", 10) == 10
    [change] = _fill(table, "shop", 1, clock)
    assert change.evicted is not None
    assert (change.evicted.caller, len(change.evicted.names)) == ("", 1)


async def test_the_shares_are_right_after_a_sweep(store: AnyStore, clock: Clock) -> None:
    """Records that have ended, were lifted or changed count for nobody: each share is what is there."""
    table = store.addresses
    for caller in ("shop", "bank"):
        _fill(table, caller, 30, clock)
    for number in range(10):
        table.apply(CallersAddress("shop", f"{number}@example.org"), suppressing.released)
    _fill(table, "shop", 30, clock)
    assert sorted(table._shares.values()) == [30, 30]
    clock.time += DAY + REMEMBERED_SECONDS
    assert sum([len(names) async for names in table.sweep()]) == 60
    assert not table._shares
