"""The budget of octets: what is read, unsettled and remembered, in that order of weight."""

import pytest

from otpmail.errors import MemoryFull
from otpmail.limits.memory import Memory


class Remembered:
    """Something that is forgotten in parts."""

    def __init__(self, *parts: int) -> None:
        self.parts = list(parts)

    @property
    def octets(self) -> int:
        """The octets that are left."""
        return sum(self.parts)

    @octets.setter
    def octets(self, _: int) -> None:
        raise AttributeError

    def forget_oldest(self) -> bool:
        """Forget the first part."""
        if not self.parts:
            return False
        self.parts.pop(0)
        return True


def test_what_is_remembered_gives_way() -> None:
    """The oldest is forgotten, no more than is needed, before a mail is refused."""
    remembered = Remembered(100, 100, 100)
    memory = Memory(800, remembered, Remembered())
    memory.unsettled = 550
    memory.make_room()
    assert remembered.octets == 100
    memory.unsettled = 700
    memory.make_room()
    assert remembered.octets == 0
    memory.unsettled = 701
    with pytest.raises(MemoryFull):
        memory.make_room()


def test_a_part_is_for_codes() -> None:
    """Mails get seven eighths of the budget, codes all of it."""
    memory = Memory(800, Remembered(), Remembered())
    memory.unsettled = 750
    with pytest.raises(MemoryFull):
        memory.make_room()
    memory.make_room(50, code=True)
    with pytest.raises(MemoryFull):
        memory.make_room(51, code=True)


def test_code_records_count() -> None:
    """Code records leave less for mails, which get no part of what is for codes, and what is remembered gives way."""
    remembered = Remembered(100)
    memory = Memory(800, remembered, Remembered(300))
    memory.unsettled = 400
    memory.make_room()
    assert remembered.octets == 0
    with pytest.raises(MemoryFull):
        memory.make_room(1)
    memory.reading = 1
    assert not memory.has_room_for_stream()
    memory.reading = 0
    memory.make_room(100, code=True)
    with pytest.raises(MemoryFull):
        memory.make_room(101, code=True)
    assert memory.for_records == 400


def test_octets_that_are_wanted_count() -> None:
    """A request has room only with what its mail will take."""
    memory = Memory(800, Remembered(), Remembered())
    memory.reading = 300
    memory.make_room(400)
    with pytest.raises(MemoryFull):
        memory.make_room(401)


def test_streams_do_not_wait_for_each_others_batches() -> None:
    """Batches that take the whole budget do not keep the mails in them from being accepted."""
    memory = Memory(800, Remembered(100), Remembered())
    memory.reading = 10_000
    assert memory.has_room_for_stream()
    memory.unsettled = 500
    assert memory.has_room_for_stream()
    assert memory.parts() == {"reading": 10_000, "unsettled": 500, "remembered": 0, "codes": 0, "addresses": 0}
    memory.unsettled = 501
    assert not memory.has_room_for_stream()


def test_the_repr_counts() -> None:
    """The repr shows what is used of the budget."""
    memory = Memory(800, Remembered(1, 2), Remembered())
    memory.reading, memory.unsettled = 3, 4
    assert repr(memory) == "<Memory 10 of 800 octets>"
