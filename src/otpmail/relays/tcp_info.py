"""Tells by TCP acknowledgements, not by replies, whether the machine at the other end still answers."""

import asyncio
import socket
import struct
import sys

# From Linux's struct tcp_info: tcpi_retransmits and tcpi_probes (attempts in a row), tcpi_last_ack_recv (milliseconds).
_TCP_INFO = struct.Struct("=2xBB52xI")

# Linux doubts the route after this many retransmissions (tcp_retries1). A good route loses one or two packets as well.
_IN_VAIN = 3


def seconds_unacknowledged(transport: asyncio.BaseTransport) -> float:
    """Seconds since the other end last acknowledged anything, or 0.0 unless packets were retransmitted in vain.

    Only Linux reports this, so the result is 0.0 elsewhere. TCP_USER_TIMEOUT (RFC 5482) does not serve here. With it
    Linux also ends a connection whose other end answers but does not read. A relay does that while it judges one mail
    and the next mails fill its buffers.
    """
    connection = transport.get_extra_info("socket")
    if sys.platform != "linux" or connection is None:
        return 0.0
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        retransmits, probes, since_last = _TCP_INFO.unpack(info)
    except (OSError, struct.error):  # closed meanwhile, not TCP, or an older kernel
        return 0.0
    return since_last / 1000 if max(retransmits, probes) >= _IN_VAIN else 0.0
