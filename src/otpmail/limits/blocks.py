"""The block of addresses that an end user has, for limits: one address may be as cheap as 18 quintillion others."""

from ipaddress import IPv6Address, ip_address

_LONGEST = 64
_HOST_BITS = 64


def block_of(text: str) -> str:
    """Return the block of an IP address: an IPv4 address itself, or the /64 of an IPv6 address.

    An IPv4 address that is written as an IPv6 address (`::ffff:192.0.2.1`, RFC 4291, 2.5.5.2) is an IPv4 address. Zones
    (`%eth0`) are ignored. Raises ValueError for another text.
    """
    if len(text) > _LONGEST:
        raise ValueError("too long")
    address = ip_address(text)
    if not isinstance(address, IPv6Address):
        return str(address)
    if (mapped := address.ipv4_mapped) is not None:
        return str(mapped)
    return f"{IPv6Address(int(address) >> _HOST_BITS << _HOST_BITS)}/{128 - _HOST_BITS}"
