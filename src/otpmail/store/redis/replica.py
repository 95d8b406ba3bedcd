"""The client, keys, lease and clock that all parts of this replica share."""

from collections.abc import Callable
from typing import NamedTuple

from otpmail.store.redis.client import Client
from otpmail.store.redis.keys import Keys
from otpmail.store.redis.lease import Lease
from otpmail.store.redis.reader import Reader
from otpmail.store.redis.records import Records


class Replica(NamedTuple):
    """How a replica uses its server: it asks through `client`, by the names of `keys`, while it has the `lease`.

    `records` makes octets of mails, `reader` reads those of the server. `now` is the clock of the times in them.
    """

    client: Client
    keys: Keys
    lease: Lease
    records: Records
    reader: Reader
    now: Callable[[], float]

    def __repr__(self) -> str:
        return f"<Replica {self.lease!r}>"
