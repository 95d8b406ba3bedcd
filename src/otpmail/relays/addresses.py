"""The addresses of a relay: asks the resolver, puts them in order, and remembers which one answered."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from itertools import chain, zip_longest
from typing import NamedTuple, cast

from otpmail.errors import ConnectFailed

MOST_ADDRESSES = 16
"""The addresses of one name that are tried at most."""


_SETTING = "EMAIL_HOST or EMAIL_RELAYS"

Target = tuple[str, int] | tuple[str, int, int, int]


class Address(NamedTuple):
    """Where to connect to: an address family and what `connect` takes."""

    family: int
    target: Target

    @property
    def text(self) -> str:
        """The IP address as the log has it."""
        return self.target[0]


Resolve = Callable[[str, int], Awaitable[Iterable[Address]]]
"""Finds the addresses of a host at a port. Raises OSError."""


class Addresses:
    """The addresses of one relay, in the order in which they are to be tried (RFC 8305, 4).

    The one that answered last comes first, those that broke down in the middle of a dial come last.
    """

    def __init__(self, host: str, port: int, *, resolve: Resolve | None = None) -> None:
        self._host = host
        self._port = port
        self._resolve = resolve or _resolve
        self._answered: Address | None = None
        self._broken: Address | None = None

    def __repr__(self) -> str:
        return f"<Addresses of {self._host}, answered={self._answered and self._answered.text}>"

    async def find(self, timeout: float) -> list[Address]:
        """Return the addresses to try, after `timeout` seconds at most. Raises ConnectFailed without any."""
        try:
            async with asyncio.timeout(timeout):
                found = list(dict.fromkeys(await self._resolve(self._host, self._port)))
        except TimeoutError:
            raise ConnectFailed(f"the resolver did not answer after {timeout:g} s for {self._host}") from None
        except (OSError, ValueError) as error:  # ValueError: a malformed host name
            why = getattr(error, "strerror", None) or str(error)
            if getattr(error, "errno", None) == socket.EAI_AGAIN:
                raise ConnectFailed(f"the resolver knows no address for {self._host} now: {why}") from None
            raise ConnectFailed(f"no address is known for {self._host}: {why}; check {_SETTING}") from None
        if not found:
            raise ConnectFailed(f"no address is known for {self._host}; check {_SETTING}")
        return sorted(interleave(found), key=self._rank)[:MOST_ADDRESSES]

    def answered(self, address: Address) -> None:
        """Try this address first from now on: a relay answered there."""
        self._answered = address
        if address == self._broken:
            self._broken = None

    def broke(self, address: Address) -> None:
        """Try this address last the next time: it answered, and then failed."""
        self._broken = address
        if address == self._answered:
            self._answered = None

    def describe(self, address: Address, text: str) -> str:
        """Put the address before a text about it, unless it is the host itself."""
        return text if address.text == self._host else f"{address.text}: {text}"

    def _rank(self, address: Address) -> int:
        return (address == self._broken) - (address == self._answered)


def interleave(addresses: Iterable[Address]) -> list[Address]:
    """Alternate between the families, each in the resolver's order, with its first choice first (RFC 8305, 4)."""
    families: dict[int, list[Address]] = {}
    for address in addresses:
        families.setdefault(address.family, []).append(address)
    rounds = zip_longest(*families.values())
    return [address for address in chain.from_iterable(rounds) if address is not None]


async def _resolve(host: str, port: int) -> Iterable[Address]:
    try:  # an IP address needs no thread to be looked up in
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except OSError:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [
        Address(family, cast("Target", target))
        for family, _, _, _, target in found
        if family in (socket.AF_INET, socket.AF_INET6)
    ]
