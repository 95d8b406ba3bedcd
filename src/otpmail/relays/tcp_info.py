"""Whether the machine at the other end still answers: by its acknowledgements to the kernel, not by replies."""

import asyncio
import socket
import struct
import sys

# Linux, struct tcp_info: tcpi_retransmits and tcpi_probes, both in a row; tcpi_last_ack_recv, in milliseconds.
_TCP_INFO = struct.Struct("=2xBB52xI")

# As often as the kernel tries before it doubts the route (tcp_retries1). One or two packets are lost on a good one too.
_IN_VAIN = 3


def seconds_unacknowledged(transport: asyncio.BaseTransport) -> float:
    """Seconds since the other end acknowledged anything, if packets were sent again and again in vain; else 0.0.

    Always 0.0 except on Linux, where alone it is known. TCP_USER_TIMEOUT (RFC 5482) would not do: with it Linux also
    ends a connection whose other end answers and only does not read, as a relay that judges one mail while the mails
    behind it fill its buffers.
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
