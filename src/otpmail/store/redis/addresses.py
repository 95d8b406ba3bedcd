"""The records of addresses, on a server, with a copy in the memory of each replica.

A mail that waits for the relay asks no server, and so it asks the copy. That is read at the start, and follows what the
replicas announce. Where the subscription was lost meanwhile, it is read again if anything has changed.
"""

import asyncio
import logging
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import islice

import msgpack

from otpmail.errors import Unavailable
from otpmail.store.address_codec import decode_address
from otpmail.store.addresses import AddressTable, CallersAddress, Changed, Evicted, Rule, log_left_out
from otpmail.store.redis.client import Client
from otpmail.store.redis.keys import Keys
from otpmail.store.redis.replies import RETRY_SECONDS
from otpmail.store.redis.script import Script
from otpmail.store.redis.subscription import Subscription
from otpmail.store.sealed_addresses import SealedAddresses
from otpmail.suppression import AddressRecord

_log = logging.getLogger("otpmail")

_PUT = Script.load("address_put")
_DROP = Script.load("address_drop")

_PARTS = 256  # hashes, by the first octet of a key
_PARTS_AT_ONCE, _PART_OCTETS = 16, 4 << 20
_ENDS = struct.Struct("<d")
_TRIES = 20  # of a change that other replicas come before
_MOST_LATER = 10_000  # changes that wait for the server
_LATER_AT_ONCE = 100
_CLOSE_SECONDS = 1.0


class RedisAddressStore(AddressTable):
    """The records of addresses (see `store.addresses.AddressStore`). A record is encrypted on the server.

    Its whole state beside the table:

    - `_later`: changes that wait for the server. `_in_flight`: those that are being written, each with its task.
    - `_gone`: keys that were evicted, and that the server is to forget.
    - `_asked`: keys that are being changed on the server, and that no replica has announced since.
    - `_fresh`: keys that were announced while the copy is being read. `_changes`: how many changes it has.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        client: Client,
        keys: Keys,
        secrets: Mapping[str, bytes],
        *,
        most: int,
        most_octets: int,
    ) -> None:
        self._sealed = SealedAddresses(secrets)
        super().__init__(self._sealed.digest_keys, clock, most=most, most_octets=most_octets)
        self._client = client
        self._server = keys
        self._channel = keys.named("addresses")
        self._counter = keys.named("address-changes")
        self._later: dict[CallersAddress, list[Rule]] = {}
        self._in_flight: dict[CallersAddress, tuple[list[Rule], asyncio.Task[bool]]] = {}
        self._gone: set[bytes] = set()
        self._asked: set[bytes] = set()
        self._fresh: set[bytes] | None = None
        self._changes = -1
        self._writing: asyncio.Task[None] | None = None
        self._loading: asyncio.Task[None] | None = None

    def subscribe(self, subscription: Subscription) -> None:
        """Follow what other replicas announce."""
        subscription.add(self._channel, self._announced)
        subscription.call_when_connected(self._connected)

    async def load(self) -> None:
        """Read all that the server knows, unless the copy has it. Raises Unavailable."""
        changes = int(await self._client.command("GET", self._counter) or 0)
        if changes == self._changes:
            return
        self._fresh, left_out = set(), 0
        try:
            for start in range(0, _PARTS, _PARTS_AT_ONCE):
                left_out += await self._load_parts(range(start, start + _PARTS_AT_ONCE))
        finally:
            self._fresh = None
        self._changes = changes
        log_left_out(left_out)

    def note(self, whose: CallersAddress, rule: Rule) -> Changed:
        """Apply a rule to the copy at once; the server has it soon, or once it is up again."""
        changed = self.apply(whose, rule)
        self._gone.update(changed.evicted.names if changed.evicted else ())
        if changed.before != changed.after:
            if whose in self._later or len(self._later) < _MOST_LATER:
                self._later.setdefault(whose, []).append(rule)
                self._begin_writing()
            else:
                text = "%d changes of addresses wait for the store; a further one ends with this process"
                _log.warning(text, _MOST_LATER, extra=_NOT_STORED)
        return changed

    async def update(self, whose: CallersAddress, rule: Rule) -> Changed:
        """Apply a rule on the server, then to the copy. Raises Unavailable; what it has changed is not known then."""
        while (in_flight := self._in_flight.get(whose)) is not None:  # it comes first, or it would undo this one
            await asyncio.wait([in_flight[1]])
        noted = self._later.pop(whose, [])
        try:
            return await self._change(whose, [*noted, rule])
        except Unavailable:
            if noted:
                self._later[whose] = [*noted, *self._later.get(whose, ())]
                self._begin_writing()
            raise

    async def read(self, whose: CallersAddress) -> AddressRecord | None:
        """Return what the server knows, or will once it has what is noted here. Raises Unavailable."""
        noted = [*self._in_flight.get(whose, ((), None))[0], *self._later.get(whose, ())]
        record = (await self._look(whose))[2]
        for rule in noted:  # a rule that the server has already changes nothing the second time
            record = rule(record)
        return self._as_stored(whose, record)

    async def forget_ended(self) -> None:
        """Forget what has ended, in the copy and on the server. Raises Unavailable."""
        await self._drop_gone()
        async for names in self.sweep():
            if names:
                await self._client.run(_DROP, [self._part(names[0])], [self.now(), *names])

    async def close(self) -> None:
        """Write what waits, in a second or so."""
        tasks = [task for task in (self._writing, self._loading) if task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_CLOSE_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # The copy.

    async def _load_parts(self, octets: Sequence[int]) -> int:
        """Read some parts; returns for how many addresses there is no room."""
        left_out, names = 0, [self._part(bytes((octet,))) for octet in octets]
        asked = [self._client.command("HGETALL", name, reply_octets=_PART_OCTETS) for name in names]
        for octet, fields in zip(octets, await asyncio.gather(*asked), strict=True):
            opened = ((name, self._opened(name, value)) for name, value in zip(fields[::2], fields[1::2], strict=True))
            found = {name: value for name, value in opened if value}
            left_out += self.replace(octet, found, self._fresh or ())
            await asyncio.sleep(0)  # other tasks have the loop meanwhile
        return left_out

    def _announced(self, message: bytes) -> None:
        name, value = msgpack.unpackb(message, raw=True)
        self._asked.discard(name)
        if self._fresh is not None:
            self._fresh.add(name)
        self.put(name, self._opened(name, value))

    def _connected(self) -> None:
        if self._loading is None or self._loading.done():
            self._loading = asyncio.create_task(self._load_again())

    async def _load_again(self) -> None:
        with suppress(Unavailable):  # the subscription is lost with the server, and comes again with it
            await self.load()

    def _opened(self, name: bytes, value: bytes) -> bytes:
        return self._sealed.open(name, value[_ENDS.size :])

    # The server.

    def _part(self, name: bytes) -> bytes:
        return self._server.named(f"a:{name[0]:02x}")

    async def _change(self, whose: CallersAddress, rules: Sequence[Rule]) -> Changed:
        """Apply rules to what the server has, again where another replica was first."""
        names, changed = self.names(whose), None
        evicted: list[Evicted] = []  # in all tries
        try:
            for _ in range(_TRIES):
                self._asked.update(names)
                if (changed := await self._try_to_change(whose, rules, evicted)) is not None:
                    return changed
            raise Unavailable("other processes change this address all the time", retry_after=RETRY_SECONDS)
        finally:
            self._asked.difference_update(names)
            for lost in evicted:
                if (gone := self._put_back(lost) if changed is None else lost) is not None:
                    self.report(whose.caller, gone)

    def _put_back(self, evicted: Evicted) -> Evicted | None:
        """Know again what was evicted and the server still has; returns what it has forgotten, None for nothing."""
        found = zip(evicted.names, evicted.octets, strict=True)
        kept = {name: octets for name, octets in found if name in self._gone}
        self._gone.difference_update(kept)
        self.put_back(Evicted(tuple(kept), evicted.caller, tuple(kept.values())))
        gone = tuple(name for name in evicted.names if name not in kept)
        return Evicted(gone, evicted.caller) if gone else None

    async def _try_to_change(
        self, whose: CallersAddress, rules: Sequence[Rule], evicted: list[Evicted]
    ) -> Changed | None:
        """Apply rules, and add what is evicted for them to `evicted`. None where another replica was first."""
        found, value, before = await self._look(whose)
        (name, *older), last, after = self.names(whose), before, before
        for rule in rules:
            last, after = after, rule(after)
        last = self._as_stored(whose, last)  # the earlier rules were noted, and the observer has their changes
        if after == before and found == name:
            self._adopt(whose, name, b"" if before is None else self._opened(name, value))
            return Changed(last, before)
        if before is None and after is not None and self.find(whose) is None and not self.has_room():
            if (lost := self.make_room(whose.caller)) is None:
                return Changed(before, before, is_full=True)
            evicted.append(lost)
            self._gone.update(lost.names)
        await self._drop_gone()  # before others learn of a further one, for which they have no room
        octets = b"" if after is None else self.encode(whose, after)
        put = b"" if after is None else _ENDS.pack(after.ends) + self._sealed.seal(name, octets)
        if not await self._put(value, put, name, *older):
            return None
        self._adopt(whose, name, octets)
        return Changed(last, self._as_stored(whose, after))

    def _as_stored(self, whose: CallersAddress, record: AddressRecord | None) -> AddressRecord | None:
        """Return a record as `find` does, with a long reason cut."""
        return record and decode_address(self.encode(whose, record), whose.address)

    async def _put(self, expected: bytes, value: bytes, *names: bytes) -> bool:
        """Have the server keep a value under the first of these keys alone, unless it has another than is expected."""
        args = expected, value, self._channel, *names
        return bool(await self._client.run(_PUT, [self._counter, *map(self._part, names)], args))

    async def _drop_gone(self) -> None:
        """Have the server forget the records that were evicted. Raises Unavailable, and tries again later."""
        while self._gone:
            name = self._gone.pop()
            try:
                value = await self._client.command("HGET", self._part(name), name)
                if value and self._packed.get(name) is None:  # it may have come again
                    await self._put(value, b"", name)
            except Unavailable:
                self._gone.add(name)
                raise

    async def _look(self, whose: CallersAddress) -> tuple[bytes, bytes, AddressRecord | None]:
        """Return under which key the server knows an address, what it has there, and what that says."""
        names = self.names(whose)
        replies = [self._client.command("HGET", self._part(name), name) for name in names]
        for name, value in zip(names, await asyncio.gather(*replies), strict=True):
            if value:
                octets = self._opened(name, value)
                record = decode_address(octets, whose.address) if octets else None
                return name, value, record if record and record.ends > self.now() else None
        return names[0], b"", None

    def _adopt(self, whose: CallersAddress, name: bytes, octets: bytes) -> None:
        """Have the copy know an address under this key alone, unless a change was announced since the server was asked.

        The announcement says the same, or what is later.
        """
        if name in self._asked:
            for other in reversed(self.names(whose)):  # the newest is the last, so that there is room for it
                self.put(other, octets if other == name else b"")

    def _begin_writing(self) -> None:
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_later())

    async def _write_later(self) -> None:
        """Write what was noted, many addresses at a time, again for as long as the server is down."""
        while some := [(whose, self._later.pop(whose)) for whose in list(islice(self._later, _LATER_AT_ONCE))]:
            tasks = [asyncio.create_task(self._write_noted(whose, rules)) for whose, rules in some]
            self._in_flight = {whose: (rules, task) for (whose, rules), task in zip(some, tasks, strict=True)}
            if not all(await asyncio.gather(*tasks)):
                await asyncio.sleep(RETRY_SECONDS)

    async def _write_noted(self, whose: CallersAddress, rules: list[Rule]) -> bool:
        """Write what was noted of an address. False while the server is down: it waits again then."""
        try:
            await self._change(whose, rules)
        except Unavailable:
            self._later[whose] = [*rules, *self._later.get(whose, ())]
            return False
        except Exception as error:  # noqa: BLE001  a mistake of ours is to stop no other address
            _log.error("a record of an address can't be stored: %r", error, extra=_NOT_STORED)
        finally:
            self._in_flight.pop(whose, None)
        return True


_NOT_STORED = {"event": "address-not-stored", "fields": {}}
