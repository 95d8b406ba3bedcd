"""Where the service is, and how the client shows itself: from arguments, else from the environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import grpc

DEFAULT_SERVER = "127.0.0.1:40700"

Options = tuple[tuple[str, str | int], ...]

_OPTIONS: Options = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5000),
    ("grpc.keepalive_time_ms", 20_000),  # the service takes one every 5 s; a dead connection ends its calls in 30 s
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", -1),  # an answer is as long as the service made it
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A service. A field that is None is read from the environment when needed, so a client can be made at import.

    These are OTPMAIL_SERVER, OTPMAIL_TOKEN, OTPMAIL_CA_FILE, OTPMAIL_CERT_FILE, OTPMAIL_KEY_FILE and OTPMAIL_TLS_NAME.
    """

    server: str | None = None
    token: str | None = field(default=None, repr=False)
    ca_file: str | Path | None = None
    cert_file: str | Path | None = None
    key_file: str | Path | None = None
    tls_name: str | None = None

    @property
    def target(self) -> str:
        """The address of the service, as gRPC takes it."""
        return self.server or os.environ.get("OTPMAIL_SERVER") or DEFAULT_SERVER

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata of a call. The token is read for each call, so it may be exchanged."""
        token = os.environ.get("OTPMAIL_TOKEN", "") if self.token is None else self.token
        return (("authorization", f"Bearer {token}"),) if token else ()

    def options(self, target: str) -> Options:
        """Return the options of a channel. No proxy reaches this machine's own loopback, so none is asked there."""
        more: Options = (("grpc.enable_http_proxy", 0),) if is_here(target) else ()
        name = self.tls_name if self.tls_name is not None else os.environ.get("OTPMAIL_TLS_NAME", "")
        return (*_OPTIONS, *more, *((("grpc.ssl_target_name_override", name),) if name else ()))

    def credentials(self, target: str) -> grpc.ChannelCredentials | None:
        """Return the credentials for TLS, None for a channel without it. Raises OSError for a file it can't read."""
        ca_file = _file(self.ca_file, "OTPMAIL_CA_FILE", os.environ)
        if ca_file is None or target.startswith("unix:"):
            return None
        chain = _file(self.cert_file, "OTPMAIL_CERT_FILE", os.environ)
        key = _file(self.key_file, "OTPMAIL_KEY_FILE", os.environ) or chain
        return grpc.ssl_channel_credentials(
            ca_file.read_bytes(), key.read_bytes() if key else None, chain.read_bytes() if chain else None
        )


def _file(given: str | Path | None, name: str, environment: Mapping[str, str]) -> Path | None:
    path = environment.get(name, "") if given is None else given
    return Path(path) if path else None


def is_here(target: str) -> bool:
    """Whether a target is on this machine: a Unix socket, or an address of its loopback."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    host = target.rpartition("/")[2].rpartition(":")[0].strip("[]").partition("%")[0]
    if host.lower() == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
