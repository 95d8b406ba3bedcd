"""Each caller has settled mails and request ids of its own: no flood of another takes them away."""

import pytest

from otpmail.store.base import Earlier, Request
from otpmail.store.memory.histories import Histories, History
from otpmail.store.memory.mails import MemoryMailStore
from otpmail.store.retention import Retention
from store.clocks import Clock
from store.entries import REMEMBER_SECONDS, mail_of, settled


async def _send(store: MemoryMailStore, caller: str, name: str) -> None:
    """Let a caller's mail with a request id settle."""
    await store.claim(Request(caller, name, b"f"), f"{caller}-{name}")
    store.settle(settled(mail_of(f"{caller}-{name}", caller=caller, request_id=name)))


async def test_a_flood_of_another_caller(clock: Clock) -> None:
    """A repeated request has its first answer, however many requests another caller has sent since."""
    most = 2000
    store = MemoryMailStore(clock, retention=Retention(seconds=REMEMBER_SECONDS, count=100, request_count=most))
    await _send(store, "shop", "r")
    for number in range(most + 100):
        await _send(store, "flood", str(number))
    again = await store.claim(Request("shop", "r", b"f"), "another")
    assert isinstance(again, Earlier)
    assert again.mail.id == "shop-r"
    assert (await store.get("shop", "shop-r")) is not None
    assert await store.find("flood", "0") is None


@pytest.mark.parametrize("callers", [1, 2, 12])
async def test_memory_is_bounded(clock: Clock, callers: int) -> None:
    """All callers together take no more than there is, and the latest of each is remembered."""
    most = 2 << 20
    store = MemoryMailStore(clock, retention=Retention(seconds=REMEMBER_SECONDS, count=100_000, octets=most))
    names = [f"c{number}" for number in range(callers)]
    for number in range(12_000):
        await _send(store, names[number % callers], str(number))
        assert store.octets <= most
    for place, name in enumerate(names):
        assert await store.find(name, str(12_000 - callers + place)) is not None
    assert store.octets > most // 2


async def test_the_caller_with_most_forgets_first(clock: Clock) -> None:
    """When others need the memory, a caller loses what it has beyond them."""
    store = MemoryMailStore(clock, retention=Retention(seconds=REMEMBER_SECONDS, count=1000))
    await _send(store, "shop", "r")
    for number in range(5000):
        await _send(store, "flood", str(number))
    before = store.octets
    while store.octets > before // 10:
        assert store.forget_oldest()
    assert await store.find("shop", "r") is not None
    while store.forget_oldest():
        pass
    assert store.octets == 0


async def test_a_mail_of_another_caller_does_not_exist(clock: Clock) -> None:
    """A mail is found by its own caller alone."""
    store = MemoryMailStore(clock, retention=Retention(seconds=REMEMBER_SECONDS, count=1000))
    await _send(store, "shop", "r")
    assert await store.get("other", "shop-r") is None
    assert await store.find("other", "r") is None
    assert [mail.caller async for some in store.remembered() for mail in some] == ["shop"]


def test_the_octets_are_those_of_all(clock: Clock) -> None:
    """The octets of all histories are the sum of what each has."""
    histories = Histories(clock, Retention(seconds=10, count=10))
    histories["a"].settled.add("m", b"x" * 100, 0.0)
    histories["b"].requests.add("r", b"x" * 200, 0.0)
    assert histories.octets == histories["a"].octets + histories["b"].octets > 300
    assert histories.forget_oldest()
    assert histories["b"].octets == 0
    assert repr(histories["a"]) == "<History 1 settled, 0 request ids>"


async def test_ever_new_callers(clock: Clock) -> None:
    """Histories in which nothing is remembered any more are dropped, and asking after a mail makes none."""
    store = MemoryMailStore(clock, retention=Retention(seconds=REMEMBER_SECONDS, count=1000))
    histories = Histories(clock, Retention(seconds=10, count=10))
    for number in range(1000):
        assert await store.get(f"c{number}", "m") is None
        histories[f"c{number}"].settled.add("m", b"x", clock())
        await _send(store, f"c{number}", "m")
        clock.time += 3600
    assert len(histories) <= 128
    assert repr(store) in {f"<MemoryMailStore {count} settled, {count} request ids>" for count in range(129)}
    while store.forget_oldest():
        pass
    assert store.octets == 0


def test_a_thread_asks_while_callers_come(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that comes while a thread adds up the memory of all does no harm."""
    histories = Histories(clock, Retention(seconds=10, count=10))
    for caller in "abc":
        _ = histories[caller]

    def octets(_: History) -> int:
        _ = histories[f"caller {len(histories)}"]
        return 1

    monkeypatch.setattr(History, "octets", property(octets))
    assert histories.octets == 3
