"""The addresses that replicas know, on real servers: the same, by announcements, whatever is lost."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from otpmail.errors import Unavailable
from otpmail.limits import suppressing
from otpmail.store.addresses import CallersAddress, Evicted, Rule
from otpmail.store.redis.addresses import RedisAddressStore
from otpmail.store.redis.keys import Keys
from otpmail.store.redis.subscription import Subscription
from store.clocks import Clock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from redis_server import RedisServer
    from store.redis.conftest import MakeClient

DAY = 86_400.0
SECONDS = 30  # for what comes by itself
ADA = CallersAddress("shop", "ada@example.org")
BOB = ADA._replace(address="bob@example.org")


class _Replicas:
    """Stores of several replicas on one server, each with its subscription."""

    def __init__(self, server: RedisServer, make_client: MakeClient, clock: Clock) -> None:
        self._server, self._make_client, self.clock = server, make_client, clock
        self._namespace = uuid4().hex
        self._stores: list[RedisAddressStore] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def add(
        self, *, follows: bool = True, most: int = 100, keys: dict[str, bytes] | None = None
    ) -> RedisAddressStore:
        """Start a replica. One that does not follow the others gets no announcement."""
        client = self._make_client(self._server)
        keys = keys or {"k1": bytes(32)}
        store = RedisAddressStore(self.clock, client, Keys(self._namespace), keys, most=most, most_octets=1 << 20)
        await store.load()
        self._stores.append(store)
        if follows:
            self.follow(store, Subscription(client))
        return store

    def follow(self, store: RedisAddressStore, subscription: Subscription) -> None:
        """Have a replica follow the others from now on."""
        store.subscribe(subscription)
        self.tasks.append(asyncio.create_task(subscription.run()))

    async def close(self) -> None:
        """Stop all."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for store in self._stores:
            await store.close()


@pytest.fixture
async def replicas(redis_server: RedisServer, make_client: MakeClient) -> AsyncIterator[_Replicas]:
    """Make replicas until the test ends."""
    replicas = _Replicas(redis_server, make_client, Clock())
    yield replicas
    await replicas.close()


def _refused(clock: Clock, reason: str = "550 5.1.1 no") -> Rule:
    return partial(suppressing.refused, now=clock(), reason=reason)


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not is_so():  # noqa: ASYNC110  the server tells the replica, and that tells nobody
            await asyncio.sleep(0.01)


async def test_replicas_learn_of_changes(replicas: _Replicas) -> None:
    """Each replica learns of what another one has noted or changed, and a new one reads all of it."""
    one, two = await replicas.add(), await replicas.add()
    known = one.note(ADA, _refused(replicas.clock)).after
    assert one.find(ADA) == known
    await _until(lambda: two.find(ADA) == known)
    three = await replicas.add()
    assert three.find(ADA) == known
    assert await three.read(ADA) == known
    await two.update(ADA, suppressing.released)
    await _until(lambda: one.find(ADA) is None and three.find(ADA) is None)
    assert await one.read(ADA) is None


@pytest.mark.parametrize("is_noted", [False, True], ids=["updated", "noted"])
async def test_a_flood_of_another_caller(replicas: _Replicas, *, is_noted: bool) -> None:
    """Each caller has its share on the server and in every replica: what gives way to others does so everywhere."""
    one, two = [await replicas.add(most=20) for _ in range(2)]
    for number in range(25):
        await one.update(CallersAddress("flood", f"{number}@example.org"), _refused(replicas.clock))
    assert one.count == 20
    await _until(lambda: two.count == 20)
    ours = [CallersAddress("shop", f"{number}@example.org") for number in range(8)]
    for place in ours:
        changed = two.note(place, _refused(replicas.clock))
        if not is_noted:
            changed = await two.update(place, _refused(replicas.clock))
        assert not changed.is_full
    await _until(lambda: all(store.find(place) for store in (one, two) for place in ours))
    assert (one.count, two.count) == (20, 20)
    await _until(lambda: two._writing is None or two._writing.done())
    late = await replicas.add()
    assert late.count == 20
    assert all(late.find(place) for place in ours)


async def _full(replicas: _Replicas) -> tuple[RedisAddressStore, list[tuple[str, Evicted]]]:
    """Return a replica that a flood has filled, and what it reports as given way."""
    store, reported = await replicas.add(most=20), []
    for number in range(20):
        await store.update(CallersAddress("flood", f"{number}@example.org"), _refused(replicas.clock))
    store.report = lambda *lost: reported.append(lost)
    return store, reported


async def test_what_gave_way_comes_back(replicas: _Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that the server does not take takes nothing away from others, here or there."""
    store, reported = await _full(replicas)

    async def refuse(*_: object) -> None:
        raise Unavailable("the store is down", retry_after=1.0)

    with monkeypatch.context() as patched:
        patched.setattr(store._client, "run", refuse)
        with pytest.raises(Unavailable):
            await store.update(ADA, _refused(replicas.clock))
    assert (store.count, store.find(ADA), reported) == (20, None, [])
    await store.forget_ended()
    assert (await replicas.add()).count == 20


async def test_what_gave_way_in_vain_is_reported(replicas: _Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that the server has dropped for a change that it then refuses are reported."""
    store, reported = await _full(replicas)
    put, [name] = store._put, store.names(ADA)

    async def refuse(expected: bytes, value: bytes, *names: bytes) -> bool:
        if name in names:
            raise Unavailable("the store is down", retry_after=1.0)
        return await put(expected, value, *names)

    monkeypatch.setattr(store, "_put", refuse)
    with pytest.raises(Unavailable):
        await store.update(ADA, _refused(replicas.clock))
    assert [(caller, lost.caller, len(lost.names)) for caller, lost in reported] == [("shop", "flood", 1)]
    assert store.count == (await replicas.add()).count == 19


async def test_what_gave_way_in_an_earlier_try_is_reported(
    replicas: _Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another replica was first, the second try has room, and what the first one took is reported."""
    store, reported = await _full(replicas)
    put, [name], tries = store._put, store.names(ADA), list[bytes]()

    async def put_second(expected: bytes, value: bytes, *names: bytes) -> bool:
        if name in names and not tries:
            tries.append(name)
            return False
        return await put(expected, value, *names)

    monkeypatch.setattr(store, "_put", put_second)
    changed = await store.update(ADA, _refused(replicas.clock))
    assert store.find(ADA) == changed.after is not None
    assert [(caller, lost.caller, len(lost.names)) for caller, lost in reported] == [("shop", "flood", 1)]


async def test_what_is_being_written_is_read(replicas: _Replicas) -> None:
    """A replica reads what it has noted itself, before the server has it; a release that follows comes after it."""
    one = await replicas.add()
    known = one.note(ADA, _refused(replicas.clock, "550 5.1.1 " + "long " * 100)).after
    assert await one.read(ADA) == known
    one.note(BOB, _refused(replicas.clock))
    await asyncio.sleep(0)
    changed = await one.update(BOB, suppressing.released)
    assert changed.before is not None
    await _until(lambda: one._writing is None or one._writing.done())
    assert await one.read(BOB) is None
    assert await one.read(ADA) == known


async def test_changes_at_once(replicas: _Replicas) -> None:
    """Of refusals that many replicas note at once one counts, and no change of another kind is lost."""
    stores = [await replicas.add() for _ in range(5)]
    complained = partial(suppressing.complained, now=replicas.clock(), reason="spam")
    rules = [_refused(replicas.clock, f"reply {number}") for number in range(5)] + [complained] * 5
    await asyncio.gather(*[store.update(ADA, rule) for store, rule in zip(stores * 2, rules, strict=True)])
    known = await stores[0].read(ADA)
    assert known is not None
    assert (known.strikes, known.complained is None) == (1, False)
    await _until(lambda: all(store.find(ADA) == known for store in stores))


async def test_a_lost_subscription(replicas: _Replicas, make_client: MakeClient, redis_server: RedisServer) -> None:
    """A replica that follows again after a while reads what it has missed, releases too."""
    one, two = await replicas.add(), await replicas.add(follows=False)
    await one.update(ADA, _refused(replicas.clock))
    await two.load()
    await one.update(ADA, suppressing.released)
    known = (await one.update(BOB, _refused(replicas.clock))).after
    assert two.find(ADA) is not None
    assert two.find(BOB) is None
    replicas.follow(two, Subscription(make_client(redis_server)))
    await _until(lambda: two.find(ADA) is None and two.find(BOB) == known)


async def test_what_has_ended_is_forgotten(replicas: _Replicas) -> None:
    """Records that have ended are dropped from the server too."""
    one = await replicas.add(follows=False)  # a subscription begins with a load, which may come between
    await one.update(ADA, _refused(replicas.clock))
    await one.update(BOB, partial(suppressing.complained, now=replicas.clock(), reason="spam"))
    replicas.clock.time += 40 * DAY
    await one.forget_ended()
    assert one.count == 1
    two = await replicas.add()
    assert two.count == 1
    assert two.find(BOB) == one.find(BOB)


async def test_a_server_that_is_away(replicas: _Replicas, redis_server: RedisServer, make_client: MakeClient) -> None:
    """Changes noted while the server is down are written once it is up; a report is refused meanwhile."""
    client = make_client(redis_server)
    store = RedisAddressStore(
        replicas.clock, client, Keys(uuid4().hex), {"k1": bytes(32)}, most=100, most_octets=1 << 20
    )
    client.is_away = True
    known = store.note(ADA, _refused(replicas.clock)).after
    with pytest.raises(Unavailable):
        await store.update(BOB, _refused(replicas.clock))
    assert store.find(ADA) == known
    assert store.find(BOB) is None
    client.is_away = False
    async with asyncio.timeout(SECONDS):
        while await store.read(ADA) != known:  # noqa: ASYNC110  the server tells nobody
            await asyncio.sleep(0.01)
    await store.close()


@pytest.mark.parametrize("change", [suppressing.released, partial(suppressing.complained, now=1000.0, reason="spam")])
async def test_a_key_is_replaced(replicas: _Replicas, change: Rule) -> None:
    """A change moves what is known to the name of the newest key, in each replica, also where there is room for one."""
    newest = {"k2": b"2" * 32}
    one = await replicas.add()
    await one.update(ADA, _refused(replicas.clock))
    both = newest | {"k1": bytes(32)}
    two, three = await replicas.add(keys=both, most=1), await replicas.add(keys=both, most=1)
    known = (await two.update(ADA, change)).after
    assert two.find(ADA) == known
    await _until(lambda: three.find(ADA) == known and one.find(ADA) is None)
    assert await (await replicas.add()).read(ADA) is None
    assert await (await replicas.add(keys=newest)).read(ADA) == known


async def test_what_does_not_change_moves_too(replicas: _Replicas) -> None:
    """A rule that changes nothing moves what is known to the newest key, and so does a refusal after it has ended."""
    newest = {"k2": b"2" * 32}
    one = await replicas.add()
    known = (await one.update(ADA, _refused(replicas.clock))).after
    await one.update(BOB, _refused(replicas.clock))
    two = await replicas.add(keys=newest | {"k1": bytes(32)})
    changed = await two.update(ADA, lambda record: record)
    assert changed.before == changed.after == known
    replicas.clock.time += 400 * DAY
    again = (await two.update(BOB, _refused(replicas.clock))).after
    replicas.clock.time -= 400 * DAY
    last = await replicas.add(keys=newest)
    assert (last.find(ADA), last.find(BOB)) == (known, again)
    older = await replicas.add()
    assert (await older.read(ADA), await older.read(BOB)) == (None, None)
