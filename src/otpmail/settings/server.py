"""The service's own settings: where and how it listens, stops and logs."""

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from otpmail.settings.duration import SecondOrMore, SecondsOrZero
from otpmail.settings.hosts import is_loopback
from otpmail.settings.listen import ListenAddress, read_hosts
from otpmail.settings.problems import Problem
from otpmail.settings.section import Count, Section, broken_rule, lower_case

_MODE = re.compile(r"(?:0o?)?[0-7]{3}")
_ANY_WRITE = 0o222


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
    allow_anonymous: bool = False
    grpc_reflection: bool = False
    drain_seconds: SecondsOrZero = 25
    lameduck_seconds: SecondsOrZero = 0
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_mails: Literal["all", "codes", "failed", "off"] = "codes"
    log_addresses: Literal["masked", "hashed", "full"] = "masked"
    http_host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    http_port: Annotated[int, Field(ge=0, le=65535)] | None = None

    _any_case = field_validator("log_format", "log_level", "log_mails", "log_addresses", mode="before")(lower_case)

    @field_validator("hosts", mode="before")
    @classmethod
    def _read_hosts(cls, value: object) -> object:
        try:
            return read_hosts(value) if isinstance(value, str) else value
        except ValueError as error:
            raise broken_rule(str(error)) from None

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

    def conflicts(self) -> Iterator[Problem]:
        """Yield a problem for an address that strangers can reach, unless ALLOW_ANONYMOUS is set."""
        if self.allow_anonymous:
            return
        for address in self.hosts:
            if not is_loopback(address.host):
                shown = f"{address.name} ({address.host})" if address.name else address.host
                yield Problem(
                    f"HOST: {shown} can be reached by strangers and callers are not asked who they are; "
                    "listen on 127.0.0.1 or a unix: socket, or set ALLOW_ANONYMOUS=true",
                    ("HOST", "ALLOW_ANONYMOUS"),
                )
                return
