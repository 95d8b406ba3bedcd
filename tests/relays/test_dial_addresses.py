"""Dials of a relay that has several addresses, by real sockets on loopback."""

import asyncio
import errno
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from otpmail.errors import ConnectFailed, SignInRefused
from otpmail.relays.addresses import Address, Addresses
from otpmail.relays.dial import dial
from otpmail.relays.secure import tls_context
from otpmail.settings import RelaySettings, is_present, load_section
from relay import HOST, Certificates, Faults, Relay

OTHER = "127.0.0.2"
NAME = "localhost"  # which the test's certificate is for


@contextmanager
def swallows(host: str, port: int) -> Iterator[None]:
    """An address that drops SYNs, as a firewall does: its queue of connections is full."""
    with ExitStack() as opened:
        listener = opened.enter_context(socket.create_server((host, port), backlog=0))
        for _ in range(3):
            filler = opened.enter_context(socket.socket())
            filler.setblocking(False)  # noqa: FBT003  the signature of the standard library
            filler.connect_ex((host, port))
        assert listener
        yield


def _settings(port: int, **values: str) -> RelaySettings:
    known = {"EMAIL_HOST": NAME, "EMAIL_PORT": str(port), "EMAIL_SECURITY": "plain", "EMAIL": "", "APP_PASSWORD": ""}
    return load_section(RelaySettings, **known | values)


def _addresses(port: int, *hosts: str) -> Addresses:
    async def resolve(_host: str, _port: int) -> Iterable[Address]:
        return [Address(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port)) for host in hosts]

    return Addresses(NAME, port, resolve=resolve)


async def test_an_address_that_swallows_packets() -> None:
    """RFC 5321, 5.1 and RFC 8305: the second address is dialled soon, and is the first one the next time."""
    async with Relay(Faults(auth=())) as relay:
        with swallows(OTHER, relay.port):
            settings, addresses = _settings(relay.port), _addresses(relay.port, OTHER, HOST)
            async with asyncio.timeout(20):  # of the 30 that EMAIL_TIMEOUT allows
                signed_in = await dial(settings, tls_context(settings), addresses=addresses)
        signed_in.client.close()
        assert signed_in.address == HOST
        assert [address.text for address in await addresses.find(1)] == [HOST, OTHER]


@pytest.mark.parametrize("greeting", ["421 4.3.2 too busy", "554 5.3.2 not for you", "450 4.3.2 later"])
async def test_an_address_that_refuses_in_its_greeting(greeting: str) -> None:
    """An address whose relay greets with a refusal is no reason not to try the next one."""
    async with (
        Relay(Faults(auth=())) as relay,
        Relay(Faults(greeting=greeting), host=OTHER, port=relay.port) as refusing,
    ):
        settings = _settings(relay.port)
        addresses = _addresses(relay.port, OTHER, HOST)
        signed_in = await dial(settings, tls_context(settings), addresses=addresses)
        signed_in.client.close()
        assert (signed_in.address, refusing.connections) == (HOST, 1)
        alone = _addresses(relay.port, OTHER)
        with pytest.raises(ConnectFailed, match=rf"^{OTHER}: {greeting[:3]} ") as caught:
            await dial(settings, tls_context(settings), addresses=alone)
        assert caught.value.code == int(greeting[:3])


@pytest.mark.parametrize("security", ["plain", "tls", "starttls"])
async def test_an_address_that_says_nothing(security: str, certificates: Certificates) -> None:
    """An address that takes connections and says nothing, neither TLS nor a greeting, has its share of the time."""
    async with Relay(Faults(auth=(), security=security), certificates=certificates) as relay:  # type: ignore[arg-type]
        settings = _settings(
            relay.port, EMAIL_SECURITY=security, EMAIL_CA_FILE=str(certificates.ca_file), EMAIL_TIMEOUT="2"
        )
        addresses = _addresses(relay.port, OTHER, HOST)
        with socket.create_server((OTHER, relay.port)):
            signed_in = await dial(settings, tls_context(settings), addresses=addresses)
        signed_in.client.close()
        assert signed_in.address == HOST


async def test_an_address_with_the_wrong_certificate(certificates: Certificates) -> None:
    """An address whose certificate is not the relay's is passed over."""
    async with (
        Relay(Faults(auth=(), security="tls"), certificates=certificates) as relay,
        Relay(
            Faults(auth=(), security="tls", certificate="wrong_name"),
            certificates=certificates,
            host=OTHER,
            port=relay.port,
        ),
    ):
        settings = _settings(relay.port, EMAIL_SECURITY="tls", EMAIL_CA_FILE=str(certificates.ca_file))
        addresses = _addresses(relay.port, OTHER, HOST)
        signed_in = await dial(settings, tls_context(settings), addresses=addresses)
        signed_in.client.close()
        assert signed_in.address == HOST


async def test_a_refused_sign_in_is_not_tried_elsewhere() -> None:
    """A password that one address refuses is not sent to the next one: providers lock accounts over that."""
    async with (
        Relay(Faults(refuse_auth="535 5.7.8 no")) as relay,
        Relay(Faults(), host=OTHER, port=relay.port) as other,
    ):
        settings = _settings(relay.port, EMAIL="user", APP_PASSWORD="secret")
        with pytest.raises(SignInRefused, match=rf"^{HOST}: the relay refused to sign user in: 535 "):
            await dial(settings, tls_context(settings), addresses=_addresses(relay.port, HOST, OTHER))
        assert other.connections == 0


async def test_an_address_that_breaks_after_its_greeting_comes_last() -> None:
    """An address whose relay ends the sign-in for now is tried last the next time."""
    async with Relay(Faults(refuse_auth="454 4.7.0 later")) as relay, Relay(host=OTHER, port=relay.port):
        settings, addresses = (
            _settings(relay.port, EMAIL="user", APP_PASSWORD="secret"),
            _addresses(relay.port, HOST, OTHER),
        )
        with pytest.raises(ConnectFailed, match=rf"^{HOST}: signing in failed for now: 454 "):
            await dial(settings, tls_context(settings), addresses=addresses)
        signed_in = await dial(settings, tls_context(settings), addresses=addresses)
        signed_in.client.close()
        assert signed_in.address == OTHER


async def test_no_address_works() -> None:
    """The error has the cause at each address, and names those with the same cause together."""
    async with Relay(Faults(greeting="554 5.3.2 no")) as relay:
        settings = _settings(relay.port)
        hosts = (OTHER, "127.0.0.3", HOST)
        with pytest.raises(ConnectFailed) as caught:
            await dial(settings, tls_context(settings), addresses=_addresses(relay.port, *hosts))
    refused = "cannot connect: Connection refused"
    assert str(caught.value) == f"{OTHER}, 127.0.0.3: {refused}; {HOST}: 554 5.3.2 no"


@pytest.mark.skipif(not is_present("::1"), reason="this machine has no ::1")
async def test_both_families() -> None:
    """A name with addresses of both families is reached by the one on which the relay listens."""
    async with Relay(Faults(auth=()), host="::1") as relay:
        settings = _settings(relay.port)
        signed_in = await dial(settings, tls_context(settings), addresses=_addresses(relay.port, HOST, "::1"))
        signed_in.client.close()
        assert signed_in.address == "::1"


async def test_a_machine_without_a_family(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address of a family that this machine does not have is passed over, and its error has the system's words."""
    create = socket.socket

    def without_ipv6(family: int = -1, *rest: int, **more: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "no IPv6 here")
        return create(family, *rest, **more)

    async with Relay(Faults(auth=())) as relay:
        settings = _settings(relay.port)
        monkeypatch.setattr(socket, "socket", without_ipv6)
        signed_in = await dial(settings, tls_context(settings), addresses=_addresses(relay.port, "::1", HOST))
        signed_in.client.close()
        with pytest.raises(ConnectFailed, match=r"^::1: cannot connect: Address family not supported"):
            await dial(settings, tls_context(settings), addresses=_addresses(relay.port, "::1"))
        monkeypatch.undo()
    assert signed_in.address == HOST
