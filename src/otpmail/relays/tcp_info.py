"""Whether the machine at the other end is still there: what it acknowledges to the kernel, not what the relay says."""

import asyncio
import socket
import struct
import sys

# Linux, struct tcp_info: tcpi_retransmits and tcpi_probes, both in a row; tcpi_last_ack_recv, in milliseconds.
_TCP_INFO = struct.Struct("=2xBB52xI")

# As often as the kernel tries before it doubts the route (tcp_retries1): one or two are lost on a good one too.
_IN_VAIN = 3


def unheard(transport: asyncio.BaseTransport) -> float:
    """Seconds since the other end acknowledged anything, if it was asked again and again in vain; else 0.0.

    Always 0.0 where it can't be known: only Linux tells. TCP_USER_TIMEOUT (RFC 5482) would not do instead: by that
    Linux also ends a connection whose other end is there, and only does not read, as a relay that judges one mail
    while those behind it fill its buffers.
    """
    connection = transport.get_extra_info("socket")
    if sys.platform != "linux" or connection is None:
        return 0.0
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        retransmits, probes, last_heard = _TCP_INFO.unpack(info)
    except (OSError, struct.error):  # closed meanwhile, no TCP, or a kernel that tells less
        return 0.0
    return last_heard / 1000 if max(retransmits, probes) >= _IN_VAIN else 0.0
