"""Judges hosts: whether only this machine reaches them, and whether they are this machine's."""

import ipaddress
import socket


def is_loopback(host: str) -> bool:
    """Whether `host` can only be reached from this machine: a loopback address, localhost, or a Unix socket."""
    if host == "localhost" or host.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_ip_address(host: str) -> bool:
    """Whether `host` is an IP address, without brackets."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def bare_address(host: str) -> str:
    """Take the brackets off an IPv6 address, as URLs write it; anything else is returned as it came."""
    bare = host.removeprefix("[").removesuffix("]")
    return bare if host == f"[{bare}]" and ":" in bare and is_ip_address(bare) else host


def is_present(host: str) -> bool:
    """Whether this machine has the IP address. False for names: no resolver is asked."""
    host = host.strip("[]")
    try:
        ipaddress.ip_address(host)
        [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except (OSError, ValueError):
        return False
    return True
