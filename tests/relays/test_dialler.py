"""The dials of one relay, one after the other: what the next one takes from those before."""

import socket
from collections.abc import Iterable

from otpmail.events import Event
from otpmail.relays.addresses import Address, Addresses
from otpmail.relays.dialler import Dialler
from otpmail.settings import RelaySettings, load_section
from relay import HOST, Faults, Relay

REFUSES = "127.0.0.3"


class _Nobody:
    """An observer that is not interested."""

    event_types: frozenset[type[Event]] = frozenset()

    def notify(self, event: Event) -> None:
        """Drop it."""


async def test_the_address_that_answered_is_dialled_first() -> None:
    """An address that refused is not asked again while the one that answered does (RFC 5321, 5.1)."""
    async with (
        Relay(Faults(auth=())) as relay,
        Relay(Faults(greeting="554 5.3.2 no"), host=REFUSES, port=relay.port) as refusing,
    ):

        async def resolve(_host: str, port: int) -> Iterable[Address]:
            return [Address(socket.AF_INET, (host, port)) for host in (REFUSES, HOST)]

        settings = load_section(
            RelaySettings,
            EMAIL_HOST="relay.test",
            EMAIL_PORT=str(relay.port),
            EMAIL_SECURITY="plain",
            EMAIL="",
            APP_PASSWORD="",
        )
        addresses = Addresses("relay.test", relay.port, resolve=resolve)
        dialler = Dialler(settings, _Nobody(), lambda: 0.5, addresses=addresses)
        for _ in range(3):
            connection = await dialler.dial(avoids_chunks=False)
            assert connection.address == HOST
            await connection.close()
        assert (refusing.connections, relay.connections) == (1, 3)
