"""The service's own settings: where and how it listens, stops and logs."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from otpmail.settings.duration import SecondOrMore, SecondsOrZero
from otpmail.settings.hosts import is_loopback
from otpmail.settings.listen import WILDCARDS, ListenAddress, read_hosts
from otpmail.settings.problems import Problem, quoted
from otpmail.settings.section import Count, Section, broken_rule, lower_case

_MODE = re.compile(r"(?:0o?)?[0-7]{3}")
_ANY_WRITE = 0o222
_HOST_NAME = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_ORIGIN = re.compile(rf"https?://(?:{_HOST_NAME.pattern}|\[[0-9a-f:.]+\])(?::[0-9]{{1,5}})?")


class Door(NamedTuple):
    """A host of ours, and the setting that names it."""

    setting: str
    host: str


class ServerSettings(Section):
    """Where and how the service listens, how long a stop takes, and how it logs."""

    hosts: Annotated[tuple[ListenAddress, ...], NoDecode] = Field(
        default="localhost", validation_alias="HOST", validate_default=True
    )
    port: Annotated[int, Field(ge=0, le=65535)] = 40700
    socket_mode: int | None = None
    processes: Annotated[int, Field(ge=1, le=256)] = 1
    process_hang_seconds: SecondsOrZero = 60
    max_connections: Count = 1000
    max_connection_age: SecondOrMore = 1800
    callers_file: Path | None = None
    allow_anonymous: bool = False
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    tls_client_ca_file: Path | None = None
    health_open: bool = True
    grpc_reflection: bool = False
    drain_seconds: SecondsOrZero = 25
    lameduck_seconds: SecondsOrZero = 0
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_mails: Literal["all", "codes", "failed", "off"] = "codes"
    log_addresses: Literal["masked", "hashed", "full"] = "masked"
    http_host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    http_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    http_allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    http_cors_origins: Annotated[tuple[str, ...], NoDecode] = ()

    _any_case = field_validator("log_format", "log_level", "log_mails", "log_addresses", mode="before")(lower_case)

    @field_validator("hosts", mode="before")
    @classmethod
    def _read_hosts(cls, value: object) -> object:
        try:
            return read_hosts(value) if isinstance(value, str) else value
        except ValueError as error:
            raise broken_rule(str(error)) from None

    @field_validator("http_allowed_hosts", mode="before")
    @classmethod
    def _read_names(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        names = value.replace(",", " ").split()
        for name in names:
            if not _HOST_NAME.fullmatch(name.lower()):
                raise broken_rule(f"{quoted(name)} is not the name of a host without a port, such as mail.example.org")
        return tuple(name.lower() for name in names)

    @field_validator("http_cors_origins", mode="before")
    @classmethod
    def _read_origins(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        origins = tuple(value.replace(",", " ").split())
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                form = "an origin as browsers write it, such as https://app.example.org"
                raise broken_rule(f"{quoted(origin)} is not {form}")
        return origins

    @field_validator("http_host")
    @classmethod
    def _without_brackets(cls, value: str) -> str:
        return value[1:-1] if value.startswith("[") and value.endswith("]") else value

    @field_validator("socket_mode", mode="before")
    @classmethod
    def _read_mode(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if not _MODE.fullmatch(value):
            raise broken_rule("must be the permissions of a file in octal, such as 0660")
        mode = int(value, 8)
        if not mode & _ANY_WRITE:
            raise broken_rule("lets nobody connect, for which a socket must be writable, as with 0600 or 0660")
        return mode

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses to bind, in the order of HOST: `host:port`, or `unix:PATH`."""
        return tuple(host.with_port(self.port) for host in self.hosts)

    @property
    def address(self) -> str:
        """The first of the addresses, which callers on this machine use."""
        return self.addresses[0]

    @property
    def asks_callers(self) -> bool:
        """Whether callers are asked who they are: by a token or by a certificate."""
        return self.callers_file is not None or self.tls_client_ca_file is not None

    @property
    def open_to_strangers(self) -> ListenAddress | None:
        """The first address that other machines reach, None without one."""
        return next((address for address in self.hosts if not is_loopback(address.host)), None)

    @property
    def door_of_strangers(self) -> Door | None:
        """The first door through which calls of other machines come in once callers are asked, None without one.

        HTTP_PORT is one too. Where callers are not asked, it serves no methods to other machines.
        """
        if (address := self.open_to_strangers) is not None:
            return Door("HOST", address.host)
        if self.http_port is not None and not is_loopback(self.http_host):
            return Door("HTTP_HOST", self.http_host)
        return None

    def conflicts(self) -> Iterator[Problem]:
        """Yield a problem for an address that strangers can reach, unless callers are asked or ALLOW_ANONYMOUS is set.

        Yields one too for a setting of TLS without its certificate, and for one port for both doors.
        """
        address = self.open_to_strangers
        if address is not None and not (self.allow_anonymous or self.asks_callers):
            shown = f"{address.name} ({address.host})" if address.name else address.host
            yield Problem(
                f"HOST: {shown} can be reached by strangers and callers are not asked who they are; set CALLERS_FILE "
                "(`otpmail caller add NAME` makes it), listen on 127.0.0.1 or a unix: socket, or set "
                "ALLOW_ANONYMOUS=true",
                ("HOST", "ALLOW_ANONYMOUS", "CALLERS_FILE", "TLS_CLIENT_CA_FILE"),
            )
        if self.tls_cert_file is None:
            for name, file in (("TLS_KEY_FILE", self.tls_key_file), ("TLS_CLIENT_CA_FILE", self.tls_client_ca_file)):
                if file is not None:
                    yield Problem(f"{name}: is set, and TLS_CERT_FILE is not", (name, "TLS_CERT_FILE"))
        if (shared := self._shared) is not None:
            yield Problem(
                f"HTTP_PORT: is {self.port}, and so is PORT, where gRPC listens on {shared.host}; set another "
                "HTTP_PORT (0: any that is free)",
                ("HTTP_PORT", "HTTP_HOST", "HOST", "PORT"),
            )

    @property
    def _shared(self) -> ListenAddress | None:
        """The address of HOST where HTTP_PORT would be PORT again, None without one.

        A wildcard of HOST is for IPv4 and IPv6, one of HTTP_HOST for its own alone.
        """
        if not self.port or self.http_port != self.port:
            return None
        ours = self.http_host
        for address in self.hosts:
            host = address.host
            covers = ours in WILDCARDS and (":" in ours) == (":" in host)
            is_local = ours.lower() == "localhost" and host in {"127.0.0.1", "::1"}
            if not address.path and (host in WILDCARDS or host == ours or covers or is_local):
                return address
        return None
