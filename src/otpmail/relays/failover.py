"""The relays in their order: mails go through the first that can be had, and back to an earlier one once it is well."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from itertools import takewhile
from math import inf

from otpmail.errors import ConnectFailed
from otpmail.relays.connection import Connection
from otpmail.relays.relay import Relay

_LOOK_SECONDS = 0.1  # while others are trying relays that are all away


class Failover:
    """Gives out connections. With several relays, a later one stands in while those before it are away.

    A relay is away when dialling it has failed and none of its connections is open.
    """

    def __init__(self, relays: Sequence[Relay]) -> None:
        self._relays = tuple(relays)

    def __repr__(self) -> str:
        return f"<Route {' '.join(map(repr, self._relays))}>"

    @property
    def down(self) -> bool:
        """No relay has a connection open, and not just for the moment that a new one takes."""
        for relay in self._relays:  # noqa: SIM110  asked for every mail, and `all` over a generator is slower
            if not relay.down:
                return False
        return True

    @property
    def retry_after(self) -> float:
        """Seconds until a relay may be dialled again, 0 for now."""
        return min(relay.retry_after for relay in self._relays)

    async def connect(self) -> Connection:
        """A new connection to the first relay that can be had; waits as long as it takes to get one.

        One that is away is not asked before a later one that is not: it may take long to say nothing. Going back to it
        is `connect_before`'s, while the later one is at work.
        """
        if len(self._relays) == 1:
            return await self._relays[0].connect()
        while True:
            for relays in (self._not_away, self._relays):
                with suppress(ConnectFailed):
                    return await self._first_of(relays)
            await asyncio.sleep(max(self.retry_after, _LOOK_SECONDS))

    async def connect_before(self, connection: Connection) -> Connection:
        """A new connection to a relay that comes before that of `connection`.

        Raises ConnectFailed when there is none to be had.
        """
        return await self._first_of(self._before(connection))

    def return_at(self, connection: Connection) -> float:
        """When a relay that comes before that of `connection` may be tried again, on the loop's clock.

        Infinity when none does.
        """
        if connection.owner is self._relays[0]:
            return inf
        return min((relay.return_at for relay in self._before(connection)), default=inf)

    @property
    def _not_away(self) -> Sequence[Relay]:
        return [relay for relay in self._relays if not relay.down]

    def _before(self, connection: Connection) -> tuple[Relay, ...]:
        return tuple(takewhile(lambda relay: relay is not connection.owner, self._relays))

    @staticmethod
    async def _first_of(relays: Sequence[Relay]) -> Connection:
        failure = ConnectFailed("no relay comes before it")
        for relay in relays:
            try:
                return await relay.connect(patient=False)
            except ConnectFailed as error:
                failure = error
        raise failure
