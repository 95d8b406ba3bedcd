"""Looks for the port at which a relay answers, where it does not at the one that was dialled."""

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

from otpmail.errors import ConnectFailed
from otpmail.relays.dial import dial
from otpmail.relays.secure import tls_context
from otpmail.settings import RelaySettings, Security

USUAL_PORTS = (587, 465, 2525, 2465, 2587)
"""The ports at which providers take submissions; networks that close one of them leave another one open."""

_TLS_PORTS = frozenset({465, 2465})  # RFC 8314, 3.3, and what SES and others add to it
_MOST_SECONDS = 5.0  # a port that is open answers sooner, and whoever runs the command waits for it


class Door(NamedTuple):
    """A port at which the relay answers, and the EMAIL_SECURITY for it."""

    port: int
    security: Security


async def find_doors(relay: RelaySettings, ports: Iterable[int] = USUAL_PORTS) -> list[Door]:
    """Return where the relay greets and can be secured, of `ports` and its own port with another EMAIL_SECURITY.

    All are tried at once, for five seconds at most, and nobody signs in.
    """
    other: Security = "starttls" if relay.security == "tls" else "tls"
    doors = [Door(port, "tls" if port in _TLS_PORTS else "starttls") for port in ports if port != relay.port]
    doors.insert(0, Door(relay.port, other))
    open_doors = await asyncio.gather(*(_is_open(relay, door) for door in doors))
    return [door for door, is_open in zip(doors, open_doors, strict=True) if is_open]


async def _is_open(relay: RelaySettings, door: Door) -> bool:
    settings = relay.model_copy(
        update={
            "port": door.port,
            "security": door.security,
            "user": "",
            "auth": None,
            "timeout": min(relay.timeout, _MOST_SECONDS),
        }
    )
    try:
        async with asyncio.timeout(_MOST_SECONDS):
            signed_in = await dial(settings, tls_context(settings))
    except (ConnectFailed, TimeoutError):
        return False
    signed_in.client.close()
    return True
