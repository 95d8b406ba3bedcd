"""Judges hosts: whether a service can listen there, and whether only this machine reaches them."""

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


def is_place_to_listen(host: str) -> bool:
    """Whether `host` is `unix:PATH`, an IP address, or a name that can be resolved here. Asks the resolver."""
    if host.startswith("unix:"):
        return host != "unix:"
    if is_loopback(host):
        return True
    try:
        return bool(socket.getaddrinfo(host.strip("[]"), None))  # an address is not looked up anywhere
    except (OSError, ValueError):  # ValueError: the text can't be a name in the DNS
        return False
