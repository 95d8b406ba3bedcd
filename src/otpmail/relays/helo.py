"""The address literal in EHLO, where no name of this machine is known, and what to set where a name is refused."""

import ipaddress
import socket
from collections.abc import Callable

from otpmail.settings import RelaySettings
from otpmail.settings.helo import is_host_name
from otpmail.settings.terms import in_terms_of

# TEST-NET-1 and the prefix for documentation (RFC 5737, RFC 3849), to which the way out leads like to any other.
_ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


def address_literal(local: str, *, find_own: Callable[[], str] | None = None) -> str:
    """Return the literal of a connection's local address, as [192.0.2.1] or [IPv6:2001:db8::1] (RFC 5321, 4.1.3).

    A relay on this machine sees a loopback address, which names nobody. Then the literal is of the address that this
    machine has for others. Without one it is the host name without a dot, and the loopback address as the last resort.
    """
    address = ipaddress.ip_address(local.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if address.is_loopback:
        if own := (find_own or _own_address)():
            return address_literal(own)
        name = socket.gethostname()
        if is_host_name(name) and name.lower() != "localhost":
            return name
    return f"[IPv6:{address}]" if address.version == 6 else f"[{address}]"


def cure_helo(settings: RelaySettings) -> str:
    """Say what to set where a relay refuses the name in EHLO."""
    return in_terms_of(settings, "set EMAIL_HELO to a name of this machine that DNS knows")


def _own_address() -> str:
    """The address that this machine has for others, empty without any. Nothing is sent for it."""
    for family, elsewhere in _ELSEWHERE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((elsewhere, 9))
                own = str(probe.getsockname()[0])
        except OSError:
            continue
        if not ipaddress.ip_address(own.partition("%")[0]).is_loopback:
            return own
    return ""
