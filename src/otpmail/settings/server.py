"""The service's own settings: where and how it listens, stops and logs."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, field_validator

from otpmail.settings.hosts import is_loopback, is_place_to_listen
from otpmail.settings.problems import Problem
from otpmail.settings.section import Section, broken_rule, lower_case


class ServerSettings(Section):
    """Where and how the service listens, how long a stop takes, and how it logs."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 40700
    allow_anonymous: bool = False
    grpc_reflection: bool = False
    drain_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 25
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    http_host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    http_port: Annotated[int, Field(ge=0, le=65535)] | None = None

    _any_case = field_validator("log_format", "log_level", mode="before")(lower_case)

    @field_validator("host")
    @classmethod
    def _can_be_listened_on(cls, value: str) -> str:
        if not is_place_to_listen(value):
            raise broken_rule("is neither an IP address, nor unix:PATH, nor a name that can be resolved here")
        return value

    @property
    def address(self) -> str:
        """The address for gRPC to bind: `host:port`, or `unix:PATH`."""
        if self.host.startswith("unix:"):
            return self.host
        host = f"[{self.host}]" if ":" in self.host and not self.host.startswith("[") else self.host
        return f"{host}:{self.port}"

    def conflicts(self) -> Iterator[Problem]:
        """Yield a problem for an address that strangers can reach, unless ALLOW_ANONYMOUS is set."""
        if not is_loopback(self.host) and not self.allow_anonymous:
            yield Problem(
                f"HOST: {self.host} can be reached by strangers and callers are not asked who they are; "
                "listen on 127.0.0.1 or a unix: socket, or set ALLOW_ANONYMOUS=true",
                ("HOST", "ALLOW_ANONYMOUS"),
            )
