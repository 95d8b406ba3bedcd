"""Every setting by sections: its name, its default, what it may be. Where the values come from is `load`'s to know.

A section is frozen and holds what one part needs; constructors take their section, never the whole.
"""

import base64
import binascii
import ipaddress
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from otpmail.address import parse_address, parse_mailbox
from otpmail.errors import InvalidArgument

_HELO = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,253}[A-Za-z0-9])?|\[[0-9A-Za-z.:]+\]")

SECRETS = frozenset({"APP_PASSWORD", "EMAIL_RELAYS", "OTP_KEYS"})
"""The settings whose values are never shown."""

Security = Literal["tls", "starttls", "plain"]
AuthMechanism = Literal["plain", "login", "cram-md5", "xoauth2"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Names = Annotated[tuple[str, ...], NoDecode]


def _wrong(message: str) -> PydanticCustomError:
    return PydanticCustomError("setting", "{message}", {"message": message})


def is_loopback(host: str) -> bool:
    """Whether `host` can only be reached from this machine: a loopback address, localhost, or a Unix socket."""
    if host == "localhost" or host.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_place_to_listen(host: str) -> bool:
    if host.startswith("unix:"):
        return host != "unix:"
    if is_loopback(host):
        return True
    try:
        return bool(socket.getaddrinfo(host.strip("[]"), None))  # of an address it asks nobody
    except (OSError, ValueError):  # ValueError: what can't be a name in the DNS
        return False


def _host_name() -> str:
    name = socket.gethostname()
    return name if _HELO.fullmatch(name) else "localhost"


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class Problem(NamedTuple):
    """What is wrong, in a line that opens with the setting to change, and the names of all settings that it lies in."""

    line: str
    names: tuple[str, ...]


class Section(BaseSettings):
    """One part's settings. A field's name in the environment is the section's prefix and its own name, upper-case."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_file=".env", env_ignore_empty=True)

    @classmethod
    def variables(cls) -> dict[str, str]:
        """Each setting's name in the environment, and the key under which pydantic knows its field."""
        prefix = cls.model_config.get("env_prefix", "")
        return {
            str(field.validation_alias or f"{prefix}{name}").upper(): str(field.validation_alias or name)
            for name, field in cls.model_fields.items()
        }

    @classmethod
    def defaults(cls) -> dict[str, object]:
        """What each setting is where it is not set, by its name in the environment."""
        fields = cls.model_fields.values()
        return dict(
            zip(cls.variables(), (field.get_default(call_default_factory=True) for field in fields), strict=True)
        )

    def conflicts(self) -> Iterator[Problem]:
        """What does not go together, though each may be so by itself. Not asked by pydantic: it stops at the first."""
        yield from ()


class ServerSettings(Section):
    """Where and how the service listens, and how it stops and logs."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 40700
    allow_anonymous: bool = False
    grpc_reflection: bool = False
    drain_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 25
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    http_host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    http_port: Annotated[int, Field(ge=0, le=65535)] | None = None

    _any_case = field_validator("log_format", "log_level", mode="before")(_lower)

    @field_validator("host")
    @classmethod
    def _can_be_listened_on(cls, value: str) -> str:
        if not _is_place_to_listen(value):
            raise _wrong("is neither an IP address, nor unix:PATH, nor a name that can be resolved here")
        return value

    @property
    def address(self) -> str:
        """What gRPC binds to: `host:port`, or `unix:PATH`."""
        if self.host.startswith("unix:"):
            return self.host
        host = f"[{self.host}]" if ":" in self.host and not self.host.startswith("[") else self.host
        return f"{host}:{self.port}"

    def conflicts(self) -> Iterator[Problem]:
        """An address that strangers reach, unless that is wanted."""
        if not is_loopback(self.host) and not self.allow_anonymous:
            yield Problem(
                f"HOST: {self.host} can be reached by strangers and callers are not asked who they are; "
                "listen on 127.0.0.1 or a unix: socket, or set ALLOW_ANONYMOUS=true",
                ("HOST", "ALLOW_ANONYMOUS"),
            )


class RelaySettings(Section):
    """The relay: where it is, how to sign in, how long a connection lives."""

    model_config = SettingsConfigDict(env_prefix="EMAIL_")

    host: Annotated[str, Field(min_length=1)] = "smtp.gmail.com"
    port: Annotated[int, Field(ge=1, le=65535)] = 465
    security: Security = "tls"
    user: Annotated[str, Field(validation_alias="EMAIL")] = ""
    password: Annotated[SecretStr, Field(validation_alias="APP_PASSWORD")] = SecretStr("")
    auth: AuthMechanism | None = None
    token_file: Path | None = None
    ca_file: Path | None = None
    helo: str = Field(default_factory=_host_name)
    timeout: Positive = 30
    final_timeout: Positive = 300
    mode: Literal["auto", "data", "plain"] = "auto"
    window: Annotated[int, Field(ge=1, le=1000)] = 16
    rate: Positive | None = None
    max_messages: Count = 100
    max_age: Positive = 1800
    idle_seconds: Positive = 240
    retry_seconds: Positive = 1
    retry_max_seconds: Positive = 60

    @model_validator(mode="before")
    @classmethod
    def _security_by_port(cls, values: dict[str, object]) -> dict[str, object]:
        # Port 465 speaks TLS from the first byte (RFC 8314, 3.3); anywhere else STARTTLS is asked for. Never plain
        # text unless somebody says so.
        if "security" not in values and str(values.get("port", 465)) != "465":
            values["security"] = "starttls"
        return values

    _any_case = field_validator("auth", "mode", "security", mode="before")(_lower)

    @field_validator("helo")
    @classmethod
    def _helo_is_a_name(cls, value: str) -> str:
        if not _HELO.fullmatch(value):
            raise _wrong("is neither a host name nor an address literal")
        return value

    @field_validator("user", "host")
    @classmethod
    def _printable(cls, value: str) -> str:
        if not value.isprintable() or value != value.strip():
            raise _wrong("holds control characters or stands in spaces")
        return value

    @field_validator("ca_file", "token_file")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        if value is not None and not (value.is_file() and os.access(value, os.R_OK)):
            raise _wrong("is not a file that can be read")
        return value

    def conflicts(self) -> Iterator[Problem]:
        """Credentials that are not whole, or that others could read."""
        if self.auth == "xoauth2":
            if self.token_file is None:
                yield Problem("EMAIL_TOKEN_FILE: is needed with EMAIL_AUTH=xoauth2", ("EMAIL_TOKEN_FILE", "EMAIL_AUTH"))
        elif self.user and not self.password.get_secret_value():
            yield Problem(
                "APP_PASSWORD: is needed with EMAIL, the name to sign in with", ("APP_PASSWORD", "EMAIL", "EMAIL_AUTH")
            )
        if self.auth and not self.user:
            yield Problem(
                f"EMAIL: is needed with EMAIL_AUTH={self.auth}, as the name to sign in with", ("EMAIL", "EMAIL_AUTH")
            )
        if self.user and self.security == "plain" and not is_loopback(self.host):
            yield Problem(
                "EMAIL_SECURITY: plain would send the password unencrypted to another machine",
                ("EMAIL_SECURITY", "EMAIL_HOST", "EMAIL"),
            )


class MailSettings(Section):
    """What mails may be, how many may wait, and for how long."""

    email_from: str = ""
    email_from_allowed: Names = ()
    workers: Annotated[int, Field(ge=1, le=1000)] = 5
    queue_size: Count = 10_000
    stream_unsettled: Count = 1000
    mail_ttl: Positive = 86_400
    mail_wait_seconds: Positive = 60
    mail_max_bytes: Annotated[int, Field(ge=1024, le=150 << 20)] = 10 << 20
    mail_max_recipients: Count = 100
    mail_remember_seconds: Positive = 3600
    mail_remember_count: Count = 20_000
    email_on_uncertain: Literal["retry", "fail"] = "retry"
    email_relays: SecretStr = SecretStr("")  # their passwords are in it; each relay is read as one, see `reading`

    _any_case = field_validator("email_on_uncertain", mode="before")(_lower)

    @field_validator("email_from_allowed", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("email_from_allowed")
    @classmethod
    def _in_the_form_compared(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(_sender_key(entry) for entry in value)
        except InvalidArgument as error:
            raise _wrong(f"{error.field!r} is neither an address nor an @ with a domain") from None

    @field_validator("email_from")
    @classmethod
    def _mailbox(cls, value: str) -> str:
        try:
            if value:  # unset: EMAIL stands in, see Settings.load
                parse_mailbox(value, "EMAIL_FROM")
        except InvalidArgument as error:
            raise _wrong(error.description) from None
        return value


class OtpSettings(Section):
    """What codes are like, how long they live, how often they may be tried and sent."""

    model_config = SettingsConfigDict(env_prefix="OTP_")

    lifespan_seconds: Annotated[float, Field(gt=0, le=86_400)] = 120
    cleanup_seconds: Positive = 180
    digits: Annotated[int, Field(ge=4, le=10)] = 6
    attempts: Annotated[int, Field(ge=1, le=100)] = 5
    failures_per_hour: Annotated[int, Field(ge=1, le=10_000)] = 10
    resend_seconds: Annotated[float, Field(ge=0, le=86_400)] = 30
    keys: Annotated[SecretStr, Field(validate_default=False)] = SecretStr("")
    return_code: bool = False
    locale: str = "en"
    templates_dir: Path | None = None

    @field_validator("keys")
    @classmethod
    def _keys_can_be_read(cls, value: SecretStr) -> SecretStr:
        try:
            parse_keys(value.get_secret_value())
        except ValueError as error:
            raise _wrong(str(error)) from None
        return value

    @field_validator("templates_dir")
    @classmethod
    def _is_a_directory(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_dir():
            raise _wrong("is not a directory")
        return value

    @property
    def derivation_keys(self) -> dict[str, bytes]:
        """The keys by their ids, the issuing one first; empty when OTP_KEYS is not set."""
        return parse_keys(self.keys.get_secret_value())


def _sender_key(entry: str) -> str:
    """The key of an address, or `@` and a domain as it ends the keys of its addresses."""
    if entry.startswith("@"):
        return parse_address(f"x{entry}", entry).key.removeprefix("x")
    return parse_address(entry, entry).key


def parse_keys(text: str) -> dict[str, bytes]:
    """Read `id:base64,id:base64`. Raises ValueError, in words that do not repeat a key."""
    keys: dict[str, bytes] = {}
    for place, part in enumerate(filter(None, (p.strip() for p in text.split(","))), 1):
        key_id, colon, encoded = part.partition(":")
        if not colon or not re.fullmatch(r"[A-Za-z0-9_.-]{1,32}", key_id):
            raise ValueError(f"entry {place} is not id:base64")
        try:
            key = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            raise ValueError(f"the key {key_id!r} is not base64") from None
        if len(key) < 32:
            raise ValueError(f"the key {key_id!r} has fewer than 32 bytes")
        if key_id in keys:
            raise ValueError(f"the key id {key_id!r} stands twice")
        keys[key_id] = key
    return keys
