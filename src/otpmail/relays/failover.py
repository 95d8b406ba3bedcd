"""The relays in their order: mails go through the first that is not down, and back to an earlier one once it is up."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from itertools import takewhile
from math import inf

from otpmail.errors import ConnectFailed
from otpmail.model import Envelope
from otpmail.relays.connection import Connection
from otpmail.relays.owner import ConnectionOwner
from otpmail.relays.relay import Relay

_LOOK_SECONDS = 0.1  # between two looks, while other workers dial relays that are all down


class Failover:
    """Gives out connections. With several relays, a later one is used while those before it are down."""

    down: bool
    """Whether every relay is down (`Availability.down`). A plain value, since it is asked for with every mail."""

    def __init__(self, relays: Sequence[Relay]) -> None:
        self._relays = tuple(relays)
        for relay in self._relays:
            relay.on_change = self._look
            relay.on_refuses_all = partial(self._leave, relay)
        self._look()

    def __repr__(self) -> str:
        return f"<Failover {' '.join(map(repr, self._relays))}>"

    @property
    def outage(self) -> str:
        """Why no mail can be sent, in words that any caller may read; empty while a relay is not down."""
        return "; ".join(dict.fromkeys(relay.outage for relay in self._relays)) if self.down else ""

    @property
    def retry_after(self) -> float:
        """Seconds until a relay may be dialled again, 0 for now."""
        return min(relay.retry_after for relay in self._relays)

    async def connect(self) -> Connection:
        """A new connection to the first relay that gives one; waits as long as it takes.

        Relays that are down are asked later, since they may take long to answer, and those that refuse each mail as too
        fast last. While a later relay is in use, `connect_before` leads back.
        """
        if len(self._relays) == 1:
            return await self._relays[0].connect()
        while True:
            for relays in self._by_use():
                with suppress(ConnectFailed):
                    return await self._first_of(relays)
            await self._wait()

    async def connect_before(self, connection: Connection) -> Connection:
        """A new connection to a relay that comes before that of `connection`.

        Raises ConnectFailed when none of them gives one.
        """
        return await self._first_of(self._before(connection))

    def others(self, owner: ConnectionOwner, envelope: Envelope) -> list[Relay]:
        """The relays but this one that may take a mail, by what they have announced."""
        return [relay for relay in self._relays if relay is not owner and _may_take(relay, envelope)]

    def return_at(self, connection: Connection) -> float:
        """When a relay that comes before that of `connection` may be tried again, on the loop's clock.

        Infinity for a connection to the first relay.
        """
        if connection.owner is self._relays[0]:
            return inf
        return min((relay.return_at for relay in self._before(connection)), default=inf)

    def _look(self) -> None:
        self.down = all(relay.down for relay in self._relays)

    def _leave(self, relay: Relay) -> None:
        """Have mails go on to another relay while this one refuses each as too fast, if another one may take them."""
        for other in self._relays:
            if other is not relay and not other.refuses_all and not (other.down and other.retry_after):
                relay.leave()
                return

    def _by_use(self) -> Sequence[Sequence[Relay]]:
        """Return the relays to ask first, and those to ask then."""
        willing = [relay for relay in self._relays if not relay.refuses_all]
        well = [relay for relay in willing if not relay.down]
        return (well, willing) if len(willing) == len(self._relays) else (well, willing, self._relays)

    def _before(self, connection: Connection) -> tuple[Relay, ...]:
        return tuple(takewhile(lambda relay: relay is not connection.owner, self._relays))

    async def _wait(self) -> None:
        """Wait until a relay may be dialled, by its breaker's wait or because it has proved to be well."""
        changes = [asyncio.create_task(relay.changed()) for relay in self._relays]
        try:
            wait = min(relay.return_at for relay in self._relays) - asyncio.get_running_loop().time()
            timeout = max(wait, _LOOK_SECONDS)
            await asyncio.wait(changes, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for change in changes:
                change.cancel()

    @staticmethod
    async def _first_of(relays: Sequence[Relay]) -> Connection:
        failure = ConnectFailed("no relay comes before it")
        for relay in relays:
            try:
                return await relay.connect(patient=False)
            except ConnectFailed as error:
                failure = error
        raise failure


def _may_take(relay: Relay, envelope: Envelope) -> bool:
    capabilities = relay.capabilities
    if envelope.relay and envelope.relay != relay.name:
        return False
    return capabilities is None or not capabilities.rejects(capabilities.adapted(envelope))
