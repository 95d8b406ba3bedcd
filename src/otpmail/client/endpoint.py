"""Where the service is, and how the client shows itself: from arguments, else from the environment."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

import grpc

DEFAULT_SERVER = "127.0.0.1:40700"

Options = tuple[tuple[str, str | int], ...]
ChannelT = TypeVar("ChannelT")

_ADDRESS = re.compile(r"(?:[^\s:/@\[\]]+|\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]):(?P<port>[0-9]{1,5})")
_OF_GRPC = re.compile(r"(?:unix|unix-abstract|dns|ipv4|ipv6|vsock|xds):.")
"""Names of another kind, which gRPC reads: https://github.com/grpc/grpc/blob/master/doc/naming.md."""
_LAST_PORT = 65_535

_OPTIONS: Options = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2000),  # how long an attempt to connect has at least, in spite of its name
    ("grpc.max_reconnect_backoff_ms", 5000),
    ("grpc.keepalive_time_ms", 20_000),  # the service takes one every 5 s; a dead connection ends its calls in 30 s
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", -1),  # an answer is as long as the service made it
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A service. A field that is None is read from the environment when needed, so a client can be made at import.

    These are OTPMAIL_SERVER, OTPMAIL_TOKEN, OTPMAIL_CA_FILE, OTPMAIL_CERT_FILE, OTPMAIL_KEY_FILE and OTPMAIL_TLS_NAME.
    Raises TypeError and ValueError for a field that is wrong, and those in the environment once they are needed.
    """

    server: str | None = None
    token: str | None = field(default=None, repr=False)
    ca_file: str | Path | None = None
    cert_file: str | Path | None = None
    key_file: str | Path | None = None
    tls_name: str | None = None

    def __post_init__(self) -> None:
        for name in ("server", "token", "tls_name"):
            if not isinstance(getattr(self, name), str | None):
                raise TypeError(f"{name}: must be text, not {type(getattr(self, name)).__name__}")
        for name in ("ca_file", "cert_file", "key_file"):
            if not isinstance(getattr(self, name), str | Path | None):
                raise TypeError(f"{name}: must be text or a Path, not {type(getattr(self, name)).__name__}")
        if self.server:
            _well_formed(self.server, "server")
        if self.token:
            _sendable(self.token, "token")

    @property
    def target(self) -> str:
        """The address of the service, as gRPC takes it. Raises ValueError for text that is no address."""
        return self.server or _well_formed(self.name, "OTPMAIL_SERVER")

    @property
    def name(self) -> str:
        """The address as it was given, to show it."""
        return self.server or os.environ.get("OTPMAIL_SERVER") or DEFAULT_SERVER

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata of a call. The token is read for each call, so it may be exchanged.

        Raises ValueError for text that is no token.
        """
        token = _sendable(os.environ.get("OTPMAIL_TOKEN", ""), "OTPMAIL_TOKEN") if self.token is None else self.token
        return (("authorization", f"Bearer {token}"),) if token else ()

    def channel(
        self,
        target: str,
        insecure: Callable[[str, Options], ChannelT],
        secure: Callable[[str, grpc.ChannelCredentials, Options], ChannelT],
    ) -> ChannelT:
        """Return a new channel, made by gRPC's own functions for one without TLS and for one with it.

        Raises as `credentials`.
        """
        options = self.options(target)
        credentials = self.credentials(target)
        return insecure(target, options) if credentials is None else secure(target, credentials, options)

    def options(self, target: str) -> Options:
        """Return the options of a channel. No proxy reaches this machine's own loopback, so none is asked there."""
        more: Options = (("grpc.enable_http_proxy", 0),) if is_here(target) else ()
        name = self.tls_name if self.tls_name is not None else os.environ.get("OTPMAIL_TLS_NAME", "")
        return (*_OPTIONS, *more, *((("grpc.ssl_target_name_override", name),) if name else ()))

    def credentials(self, target: str) -> grpc.ChannelCredentials | None:
        """Return the credentials for TLS, None for a channel without it.

        Raises OSError for a file that it can't read, and ValueError for one that would have no effect.
        """
        if target.startswith("unix:"):
            return None
        authority, chain, key = (self._octets(name) for name in ("ca_file", "cert_file", "key_file"))
        if key is not None and chain is None:
            raise ValueError(f"{self._named('key_file')}: needs cert_file or OTPMAIL_CERT_FILE, whose key it is")
        if authority is not None:
            return grpc.ssl_channel_credentials(authority, chain if key is None else key, chain)
        if chain is not None:
            raise ValueError(
                f"{self._named('cert_file')}: needs ca_file or OTPMAIL_CA_FILE, without which there is no TLS"
            )
        return None

    def _named(self, name: str) -> str:
        """Return how to call a field in an error: by its variable, unless it was given."""
        return f"OTPMAIL_{name.upper()}" if getattr(self, name) is None else name

    def _octets(self, name: str) -> bytes | None:
        """Return the content of a file, None where none is named."""
        given: str | Path | None = getattr(self, name)
        path = os.environ.get(self._named(name), "") if given is None else given
        if not path:
            return None
        try:
            return Path(path).read_bytes()
        except OSError as error:
            error.strerror = f"{self._named(name)}: {error.strerror}"
            raise


@lru_cache(maxsize=64)  # it is asked at each call
def _well_formed(server: str, name: str) -> str:
    """Return the address of a service. gRPC would take any text for a host, and say that none answers there."""
    match = _ADDRESS.fullmatch(server)
    if not _OF_GRPC.match(server) and (match is None or not 1 <= int(match["port"]) <= _LAST_PORT):
        raise ValueError(f"{name}: {server!r} is wrong: must be host:port, such as {DEFAULT_SERVER}, or unix:PATH")
    return server


def _sendable(token: str, name: str) -> str:
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise ValueError(f"{name}: holds blanks or characters that no token has")
    return token


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
