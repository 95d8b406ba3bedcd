"""The block of addresses of an end user, for limits: with IPv6 one person has 18 quintillion addresses."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

_LONGEST = 64
_HOST_BITS = 64
_TRANSLATED = IPv6Network("64:ff9b::/96")
_IPV4 = 0xFFFF_FFFF


def block_of(text: str) -> str:
    """Return the block of an IP address: an IPv4 address itself, or the /64 of an IPv6 address.

    An IPv4 address that is written as an IPv6 address is an IPv4 address. One form is `::ffff:192.0.2.1` (RFC 4291,
    2.5.5.2). Another is `64:ff9b::192.0.2.1`, as IPv6 networks see people of IPv4 (RFC 6052, 2.1). With 6to4 each IPv4
    address has 65,536 blocks of its own, such as `2002:c000:201::/64` (RFC 3056, 2). Zones (`%eth0`) are ignored.
    Raises ValueError for another text.
    """
    if len(text) > _LONGEST:
        raise ValueError("too long")
    address = ip_address(text)
    if not isinstance(address, IPv6Address):
        return str(address)
    if (mapped := address.ipv4_mapped or address.sixtofour) is not None:
        return str(mapped)
    if address in _TRANSLATED:
        return str(IPv4Address(int(address) & _IPV4))
    return f"{IPv6Address(int(address) >> _HOST_BITS << _HOST_BITS)}/{128 - _HOST_BITS}"
