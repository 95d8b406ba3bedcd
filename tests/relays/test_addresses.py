"""The addresses of a relay: in which order they are tried, and what is remembered of them."""

import asyncio
import socket
from collections.abc import Iterable

import pytest

from otpmail.errors import ConnectFailed
from otpmail.relays.addresses import MOST_ADDRESSES, Address, Addresses, interleave


def v4(number: int) -> Address:
    """An address by IPv4."""
    return Address(socket.AF_INET, (f"192.0.2.{number}", 587))


def v6(number: int) -> Address:
    """An address by IPv6."""
    return Address(socket.AF_INET6, (f"2001:db8::{number}", 587, 0, 0))


def _known(*found: Address) -> Addresses:
    async def resolve(host: str, port: int) -> Iterable[Address]:
        assert (host, port) == ("relay.test", 587)
        return found

    return Addresses("relay.test", 587, resolve=resolve)


def test_families_alternate() -> None:
    """The families take turns, each in the resolver's order, with its first choice first (RFC 8305, 4)."""
    found = [v6(1), v6(2), v6(3), v4(1), v4(2)]
    assert interleave(found) == [v6(1), v4(1), v6(2), v4(2), v6(3)]
    assert interleave([v4(1), v4(2), v6(1)]) == [v4(1), v6(1), v4(2)]


async def test_the_one_that_answered_comes_first() -> None:
    """An address that answered is tried first, until it breaks: then it is tried last."""
    addresses = _known(v6(1), v4(1), v4(2))
    assert await addresses.find(1) == [v6(1), v4(1), v4(2)]
    addresses.answered(v4(2))
    assert await addresses.find(1) == [v4(2), v6(1), v4(1)]
    addresses.broke(v4(2))
    assert await addresses.find(1) == [v6(1), v4(1), v4(2)]
    addresses.answered(v4(1))
    assert await addresses.find(1) == [v4(1), v6(1), v4(2)]
    addresses.answered(v4(2))
    assert await addresses.find(1) == [v4(2), v6(1), v4(1)]


async def test_an_address_that_the_resolver_forgot() -> None:
    """Only what the resolver knows now is tried, each address once, and not hundreds of them."""
    addresses = _known(*[v4(n) for n in range(1, 200)], v4(1))
    addresses.answered(v6(7))
    assert await addresses.find(1) == [v4(n) for n in range(1, MOST_ADDRESSES + 1)]


async def test_names_that_lead_nowhere() -> None:
    """The error says that the name has no address, with the resolver's words, and names the setting."""

    async def unknown(_host: str, _port: int) -> Iterable[Address]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def away(_host: str, _port: int) -> Iterable[Address]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    async def silent(_host: str, _port: int) -> Iterable[Address]:
        await asyncio.Event().wait()
        return ()

    for resolve, words in (
        (unknown, r"^no address is known for relay.test: Name or service not known; check EMAIL_HOST or EMAIL_RELAYS$"),
        (away, r"^the resolver knows no address for relay.test now: Temporary failure in name resolution$"),
        (silent, r"^the resolver did not answer after 0.01 s for relay.test$"),
    ):
        with pytest.raises(ConnectFailed, match=words):
            await Addresses("relay.test", 587, resolve=resolve).find(0.01)
    with pytest.raises(ConnectFailed, match=r"^no address is known for relay.test; check EMAIL_HOST or EMAIL_RELAYS$"):
        await _known().find(1)


async def test_the_system_resolver() -> None:
    """An IP address stands for itself, of either family."""
    assert await Addresses("127.0.0.1", 25).find(5) == [Address(socket.AF_INET, ("127.0.0.1", 25))]
    assert await Addresses("::1", 25).find(5) == [Address(socket.AF_INET6, ("::1", 25, 0, 0))]
