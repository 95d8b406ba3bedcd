"""The SQLite store: codes, request ids and guaranteed mails in one file, which one process owns."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from sqlite3 import Connection

from otpmail.store.base import Entry, Issued, StoreState
from otpmail.store.challenges import Rules, Send
from otpmail.store.cipher import Cipher
from otpmail.store.clock import Mark, StoreClock
from otpmail.store.digests import Digests
from otpmail.store.retention import Retention
from otpmail.store.sqlite.addresses import SqliteAddressStore
from otpmail.store.sqlite.codes import SqliteChallengeStore
from otpmail.store.sqlite.database import Database
from otpmail.store.sqlite.key_marks import note_keys
from otpmail.store.sqlite.mails import SqliteMailStore
from otpmail.store.sqlite.rows import Rows
from otpmail.store.sqlite.schema import step_functions
from otpmail.store.sqlite.stock import leave
from otpmail.store.sqlite.writer import Writer
from otpmail.store.sweeping import sweep_forever

_log = logging.getLogger("otpmail")

_MUCH_AHEAD = 60.0


class SqliteStore:
    """The store of `STORE_URL=sqlite:PATH` (see `store.base.Store`). All that it has confirmed survives the process.

    It encrypts with the first of `keys` and decrypts with any. `retention` says what it remembers of settled mails.
    """

    def __init__(
        self,
        database: Database,
        keys: Mapping[str, bytes],
        clock: StoreClock | None = None,
        *,
        retention: Retention,
        rules: Rules,
    ) -> None:
        self._clock = clock or StoreClock()
        digests = Digests(keys)
        self._marks = digests.marks
        database.functions = step_functions(digests)
        rows = Rows(Cipher(keys), retention)
        self._writer = Writer(database, self._clock, rows)
        self.challenges = SqliteChallengeStore(self._clock, rules, self._writer, digests)
        self.mails = SqliteMailStore(self._clock, self._writer, rows, digests, retention=retention)
        self.addresses = SqliteAddressStore(
            self._clock, self._writer, keys, most=retention.addresses, most_octets=retention.address_octets
        )
        self.contents = self.mails

    def __repr__(self) -> str:
        return f"<SqliteStore {self.challenges!r}, {self.mails!r}>"

    @property
    def unwritten(self) -> int:
        """How many changes wait for a file that can't be written, such as settlements."""
        return len(self._writer.committer.unwritten)

    async def open(self) -> None:
        """Lock the file, check it, and read what is to be taken up. Raises StoreError."""
        mark, knows_keys = await self._writer.open(self._begin)
        self._clock.continue_from(mark)
        if (ahead := self._clock.ahead) > _MUCH_AHEAD:
            _log.warning(
                "this machine's clock is %.0f s behind the time in the store's file, which never runs backwards: the "
                "times in answers are ahead by that until the clock has reached them",
                ahead,
                extra={"event": "clock-behind", "fields": {"seconds": round(ahead)}},
            )
        if not knows_keys:
            _log.warning(
                "OTP_KEYS has none of the keys with which the store was written last, so codes and mails of the "
                "process before can't be read; unless you want that, stop and give it the keys from before",
                extra={"event": "keys-differ", "fields": {}},
            )

    def _begin(self, connection: Connection) -> tuple[Mark, bool]:
        self.addresses.load(connection)
        return self.mails.begin(connection), note_keys(connection, self._marks)

    def watch(self, changed: Callable[[StoreState], None]) -> None:
        """Call `changed` on the loop whenever the file can no longer be written, and when it can again."""
        self._writer.changed = changed

    async def close(self) -> None:
        """Write what was noted, and unlock the file. It takes some seconds at most."""
        self._writer.note(leave)
        await self._writer.close()

    async def issue(self, send: Send, entry: Entry) -> Issued:
        """Decide which challenge to mail, and keep the mail of that one, in one commit (see `store.base.Issue`)."""
        issued = entry.mail.issued
        assert issued is not None
        return await self.mails.issue(entry, issued, partial(self.challenges.decide, send, issued))

    async def sweep_forever(self, every: float) -> None:
        """Drop what has ended each `every` seconds until cancelled; while the file can't be written, the next time.

        Raises StoreEnded when the thread of the file has ended by a mistake of ours.
        """
        sweeping = asyncio.create_task(sweep_forever(self._sweep, every))
        try:
            await self._writer.fail_with_thread()
        finally:
            sweeping.cancel()
            await asyncio.gather(sweeping, return_exceptions=True)

    async def _sweep(self) -> None:
        self._clock.keep_up()
        await self.challenges.sweep()
        await self.mails.forget_ended()
        await self.addresses.forget_ended()
