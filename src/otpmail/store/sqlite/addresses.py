"""The records of addresses, in a SQLite file and whole in memory: no other process has the file."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from sqlite3 import Connection

from otpmail.errors import Unavailable
from otpmail.store.addresses import AddressTable, CallersAddress, Changed, Rule, log_left_out
from otpmail.store.sealed_addresses import SealedAddresses
from otpmail.store.sqlite.writer import Writer
from otpmail.suppression import AddressRecord

_OCTETS = 256  # of the file, for a row
_READ = "SELECT key, record FROM address ORDER BY key"
_WRITE = "INSERT OR REPLACE INTO address VALUES (?, ?, ?)"
_DELETE = "DELETE FROM address WHERE key = ?"


class SqliteAddressStore(AddressTable):
    """The records of addresses (see `store.addresses.AddressStore`). A record is encrypted in the file."""

    def __init__(
        self,
        clock: Callable[[], float],
        writer: Writer,
        keys: Mapping[str, bytes],
        *,
        most: int,
        most_octets: int,
    ) -> None:
        self._sealed = SealedAddresses(keys)
        super().__init__(self._sealed.digest_keys, clock, most=most, most_octets=most_octets)
        self._writer = writer

    def load(self, connection: Connection) -> None:
        """Read all records of the file that can be read. Called in the writer thread, before all else."""
        left_out = 0
        for octet, rows in groupby(connection.execute(_READ), _first_octet):
            opened = ((name, self._sealed.open(name, sealed)) for name, sealed in rows)
            left_out += self.replace(octet, {name: octets for name, octets in opened if octets})
        log_left_out(left_out)

    def note(self, whose: CallersAddress, rule: Rule) -> Changed:
        """Apply a rule in memory; the file has it with the next commit."""
        changed = self.apply(whose, rule)
        if changed.before != changed.after:
            self._writer.note(self._writing(whose, changed))
        return changed

    async def update(self, whose: CallersAddress, rule: Rule) -> Changed:
        """Apply a rule. Raises Unavailable while the file can't be written, and changes nothing then."""
        changed = self.apply(whose, rule)
        if changed.before != changed.after:
            try:
                await self._writer.ask(self._writing(whose, changed), _OCTETS)
            except Unavailable:
                self.apply(whose, partial(_restored, changed))
                if changed.evicted is not None:
                    self.put_back(changed.evicted)
                raise
        return changed

    async def read(self, whose: CallersAddress) -> AddressRecord | None:
        """Return what `find` does: no other process knows anything."""
        return self.find(whose)

    async def forget_ended(self) -> None:
        """Forget what has ended, in memory and in the file. Raises Unavailable."""
        async for names in self.sweep():
            if names:
                await self._writer.ask(partial(_delete, names))

    def _writing(self, whose: CallersAddress, changed: Changed) -> Callable[[Connection], None]:
        name, *others = self.names(whose)
        record, evicted = changed.after, changed.evicted
        if record is None:
            return partial(_delete, [name, *others])
        sealed = self._sealed.seal(name, self.encode(whose, record))
        if evicted is not None:
            others += evicted.names
        return partial(_write, name, record.ends, sealed, others)


def _first_octet(row: tuple[bytes, bytes]) -> int:
    return row[0][0]


def _restored(changed: Changed, record: AddressRecord | None) -> AddressRecord | None:
    return changed.before if record == changed.after else record


def _write(name: bytes, ends: float, sealed: bytes, others: Sequence[bytes], connection: Connection) -> None:
    if others:
        _delete(others, connection)
    connection.execute(_WRITE, (name, ends, sealed))


def _delete(names: Sequence[bytes], connection: Connection) -> None:
    connection.executemany(_DELETE, [(name,) for name in names])
