"""Looks for the port at which a relay answers, where it does not at the one that was dialled."""

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

from otpmail.errors import ConnectFailed, Unreachable
from otpmail.relays.dial import dial
from otpmail.relays.secure import tls_context
from otpmail.settings import RelaySettings, Security

USUAL_PORTS = (587, 465, 2525, 2465, 2587)
"""The ports at which providers take submissions; networks that close one of them leave another one open."""

_TLS_PORTS = frozenset({465, 2465})  # RFC 8314, 3.3, and what SES and others add to it
_MOST_SECONDS = 5.0  # a port that is open answers sooner, and a person waits for the command


class Endpoint(NamedTuple):
    """A port at which the relay answers, the EMAIL_SECURITY for it, and what is wrong there; empty for nothing."""

    port: int
    security: Security
    fault: str = ""


def endpoints_to_try(relay: RelaySettings) -> list[Endpoint]:
    """Return the relay's own port with another EMAIL_SECURITY, and then the usual ports."""
    other: Security = "starttls" if relay.security == "tls" else "tls"
    usual = [Endpoint(port, "tls" if port in _TLS_PORTS else "starttls") for port in USUAL_PORTS if port != relay.port]
    return [Endpoint(relay.port, other), *usual]


async def find_endpoints(relay: RelaySettings, endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """Return the endpoints at which the relay answers, the good ones first. Its own port counts if it is good.

    All are tried at once, for five seconds at most, and nobody signs in.
    """
    found = await asyncio.gather(*(_try(relay, endpoint) for endpoint in endpoints))
    # The error of the first dial says what is wrong at the relay's own port; that of another try may contradict it.
    answering = (
        endpoint for endpoint in found if endpoint is not None and not (endpoint.fault and endpoint.port == relay.port)
    )
    return sorted(answering, key=lambda endpoint: endpoint.fault != "")


async def _try(relay: RelaySettings, endpoint: Endpoint) -> Endpoint | None:
    """Return the endpoint with its fault, or None if nobody answers there."""
    settings = relay.model_copy(
        update={
            "port": endpoint.port,
            "security": endpoint.security,
            "user": "",
            "auth": None,
            "timeout": min(relay.timeout, _MOST_SECONDS),
        }
    )
    try:
        async with asyncio.timeout(_MOST_SECONDS):
            signed_in = await dial(settings, tls_context(settings))
    except (Unreachable, TimeoutError):
        return None
    except ConnectFailed as error:
        return endpoint._replace(fault=str(error))
    signed_in.client.close()
    return endpoint
