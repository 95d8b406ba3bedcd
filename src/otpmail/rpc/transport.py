"""The options of the gRPC server: sizes, keepalive, the age of connections. gRPC names them in `grpc_types.h`."""

from collections.abc import Sequence

Options = Sequence[tuple[str, int]]

METADATA_OCTETS = 64 << 10
"""The most metadata of a call, in octets: names, values, and 32 for each entry (RFC 9113, 10.5.1)."""

PING_SECONDS = 5.0
"""The least time between two pings of a caller (RFC 9113, 6.7)."""

AGE_SECONDS = 1800.0
"""The age at which a connection takes no further calls: clients then open another, and find new replicas."""

IDLE_SECONDS = 600.0
"""How long a connection stays after its last call: clients dial again when they need to."""

HANDSHAKE_SECONDS = 10.0
"""How long a client may take to begin to speak HTTP/2."""

_OWN_METADATA_OCTETS = 1 << 10  # added by a gRPC library to each call's metadata: its path, its name, encodings
_CALLS = 4000
_CALL_OCTETS = 16 << 10  # of a call that has not begun
_READ_OCTETS = 16 << 10  # of a connection at a time: metadata takes thirty times as much (`limits.floods`)
_PING_LEEWAY = 0.9  # a caller that pings by the clock has its pings arrive early by what the network varies


def server_options(
    *,
    most_octets: int,
    connections: int,
    shares_port: bool = False,
    call_octets: int = _CALLS * _CALL_OCTETS,
    ping_seconds: float = PING_SECONDS,
    age_seconds: float = AGE_SECONDS,
    idle_seconds: float = IDLE_SECONDS,
    handshake_seconds: float = HANDSHAKE_SECONDS,
) -> Options:
    """Return the options of a server whose requests have at most `most_octets`.

    Callers may have so many `connections` on each address. Calls that have not begun may take `call_octets` of memory.
    With `shares_port` other servers of this user may listen there too, and get a part of the connections.
    """
    return (
        # A second server on the port would get some of the calls, and must be one that knows the codes of this one.
        ("grpc.so_reuseport", int(shares_port)),
        *_call_options(most_octets, max(_CALLS, call_octets // _CALL_OCTETS)),
        *_keepalive_options(ping_seconds),
        ("grpc.max_allowed_incoming_connections", connections),
        ("grpc.max_connection_idle_ms", round(idle_seconds * 1000)),
        ("grpc.server_handshake_timeout_ms", round(handshake_seconds * 1000)),
        # Without a limit of the grace (grpc.max_connection_age_grace_ms) running calls end by themselves: no answer is
        # lost to the age of a connection; see docs/decisions/054-old-connections-end-with-their-calls.md.
        ("grpc.max_connection_age_ms", round(age_seconds * 1000)),
    )


def _call_options(most_octets: int, calls: int) -> Options:
    """Bound requests, metadata, and the calls that have not begun."""
    metadata = METADATA_OCTETS + _OWN_METADATA_OCTETS
    return (
        ("grpc.max_receive_message_length", most_octets),
        # Between a soft and a hard limit gRPC refuses calls at random, the more the larger they are. So both are one.
        ("grpc.max_metadata_size", metadata),
        ("grpc.absolute_max_metadata_size", metadata),
        # Calls that have not begun, those that their callers have reset (CVE-2023-44487) among them. Between two such
        # limits gRPC would refuse calls at random, so both are one.
        ("grpc.server.max_pending_requests", calls),
        ("grpc.server.max_pending_requests_hard_limit", calls),
        # gRPC's own protection counts calls that have ended, and refuses those of clients that keep to the limit.
        # Clients queue calls of one connection beyond these, once they know of the limit.
        ("grpc.max_concurrent_streams", calls),
        ("grpc.http.overload_protection", 0),
        # Otherwise gRPC reads megabytes of one connection before it looks at another one.
        ("grpc.experimental.tcp_max_read_chunk_size", _READ_OCTETS),
        # Otherwise gRPC guesses a window of megabytes, and fills it for each call that is not read yet.
        ("grpc.http2.bdp_probe", 0),
    )


def _keepalive_options(ping_seconds: float) -> Options:
    """Find peers that are gone, and let callers ping often: meshes ping idle connections."""
    return (
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # gRPC never forgives an early ping of a call that only waits: the third one ends the connection.
        ("grpc.http2.min_ping_interval_without_data_ms", round(ping_seconds * _PING_LEEWAY * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
    )
