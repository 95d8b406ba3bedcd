"""A table of small values in few objects does what a dict does, in little memory."""

from hashlib import blake2b
from itertools import chain
from random import Random

from otpmail.store.packed import BUCKETS, PackedTable


def _key(number: int) -> bytes:
    return blake2b(b"%d" % number, digest_size=16).digest()


def test_it_is_a_dict() -> None:
    """After whatever was set and taken out, keys have the values of a dict, and the count and octets are right."""
    random, table, known = Random(7), PackedTable(), dict[bytes, bytes]()
    for _ in range(20_000):
        key = _key(random.randrange(3000))
        if random.random() < 0.3:
            table.discard(key)
            known.pop(key, None)
        else:
            # A value may hold the octets of another key.
            known[key] = random.choice((b"", b"x" * random.randrange(80), _key(random.randrange(3000)) * 2))
            table.set(key, known[key])
        assert table.count == len(known)
    for number in range(3000):
        assert table.get(_key(number)) == known.get(_key(number))
    for key in list(known):
        table.discard(key)
    assert (table.count, table.octets) == (0, 0)


def test_a_part_is_replaced() -> None:
    """Replacing the keys of one first octet leaves all others."""
    table, keys = PackedTable(), [_key(number) for number in range(5000)]
    for key in keys:
        table.set(key, b"old")
    octet = keys[0][0]
    table.replace(octet, [(keys[0], b"new")])
    for key in keys[1:]:
        assert table.get(key) == (None if key[0] == octet else b"old")
    assert table.get(keys[0]) == b"new"
    assert table.count == len([key for key in keys if key[0] != octet]) + 1


def test_a_sweep() -> None:
    """A sweep takes out what is over in the parts that it looks at, and those lie within one first octet."""
    table, keys = PackedTable(), [_key(number) for number in range(5000)]
    for number, key in enumerate(keys):
        table.set(key, b"%d" % (number % 2))
    dropped = [table.sweep(lambda value: value == b"1", start, 8) for start in range(0, BUCKETS, 8)]
    assert sorted(chain(*dropped)) == sorted(keys[1::2])
    assert all(len({key[0] for key in some}) <= 1 for some in dropped)
    assert table.count == 2500
