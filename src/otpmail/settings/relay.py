"""The settings of one relay: where it is, how to sign in, and how long a connection lives."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PrivateAttr, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from otpmail.address import Address
from otpmail.settings.duration import Seconds
from otpmail.settings.helo import host_name, is_helo, sender_domain
from otpmail.settings.hosts import bare_address, is_ip_address, is_loopback
from otpmail.settings.problems import Problem
from otpmail.settings.secret_file import SecretFile
from otpmail.settings.section import (
    NOT_SHOWN,
    Count,
    Positive,
    Section,
    broken_rule,
    lower_case,
    name_of_a_certificate,
    readable_file,
)
from otpmail.settings.spoilt import holds_control_character

Security = Literal["tls", "starttls", "plain"]
AuthMechanism = Literal["plain", "login", "cram-md5", "xoauth2", "oauthbearer", "external"]

_BY_TOKEN = frozenset({"xoauth2", "oauthbearer"})


def _read_secret(value: object) -> object:
    if value is None or isinstance(value, SecretFile):
        return value
    try:
        return SecretFile.read(Path(str(value)))
    except ValueError as error:
        raise broken_rule(str(error)) from None


PasswordFile = Annotated[SecretFile, BeforeValidator(_read_secret)]
"""A path, whose file is read when the setting is."""


def _from_file(settings: dict[str, Any]) -> SecretStr:
    """Return the password of APP_PASSWORD_FILE, which is declared and read before APP_PASSWORD."""
    file = settings.get("password_file")
    return SecretStr(file.text if file else "")


def _ten_times(settings: dict[str, Any]) -> float:
    """Return EMAIL_COMMAND_TIMEOUT by EMAIL_TIMEOUT: 5 minutes (RFC 5321, 4.5.3.2) for the default of the latter."""
    return float(10 * settings.get("timeout", 30))


class RelaySettings(Section):
    """One relay: where it is, how to sign in, how fast to send, how long a connection lives. Times are in seconds."""

    model_config = SettingsConfigDict(env_prefix="EMAIL_")

    host: Annotated[str, Field(min_length=1)] = "smtp.gmail.com"
    port: Annotated[int, Field(ge=1, le=65535)] = 465
    security: Security = "tls"
    user: Annotated[str, Field(validation_alias="EMAIL")] = ""
    password_file: Annotated[PasswordFile | None, NOT_SHOWN, Field(validation_alias="APP_PASSWORD_FILE")] = None
    password: Annotated[SecretStr, Field(validation_alias="APP_PASSWORD", default_factory=_from_file)]
    auth: AuthMechanism | None = None
    token_file: Annotated[Path | None, NOT_SHOWN] = None
    cert_file: Path | None = None
    key_file: Path | None = None
    ca_file: Path | None = None
    tls_name: str | None = None
    helo: str = Field(default_factory=host_name)
    timeout: Seconds = 30
    command_timeout: Annotated[Seconds, Field(default_factory=_ten_times)]
    final_timeout: Seconds = 600
    mode: Literal["auto", "data", "plain"] = "auto"
    window: Annotated[int, Field(ge=1, le=1000)] = 16
    rate: Positive | None = None
    max_messages: Count | None = None
    max_age: Seconds = 1800
    idle_seconds: Seconds = 240
    standby: Annotated[int, Field(ge=0, le=1000)] = 1
    retry_seconds: Seconds = 1
    retry_max_seconds: Seconds = 60

    _named_by_url: bool = PrivateAttr(default=False)
    _sender_domain: str = PrivateAttr(default="")

    _any_case = field_validator("auth", "mode", "security", mode="before")(lower_case)

    @model_validator(mode="before")
    @classmethod
    def _unset_password(cls, values: dict[str, object]) -> dict[str, object]:
        # A relay of EMAIL_RELAYS has an empty password in place of the common one; only an unset one has a file.
        return {name: value for name, value in values.items() if name != "APP_PASSWORD" or value not in ("", None)}

    @model_validator(mode="before")
    @classmethod
    def _security_by_port(cls, values: dict[str, object]) -> dict[str, object]:
        # Port 465 speaks TLS from the first byte (RFC 8314, 3.3); any other port gets STARTTLS. Plain text is never
        # the default.
        if "security" not in values and str(values.get("port", 465)) != "465":
            values["security"] = "starttls"
        return values

    @field_validator("host")
    @classmethod
    def _without_brackets(cls, value: str) -> str:
        host = bare_address(value)
        if ":" in host and not is_ip_address(host):
            raise broken_rule("is neither a name nor an IP address; the port goes into EMAIL_PORT")
        return host

    _name_of_a_certificate = field_validator("tls_name")(name_of_a_certificate)

    @field_validator("helo")
    @classmethod
    def _helo_is_a_name(cls, value: str) -> str:
        if value and not is_helo(value):
            raise broken_rule("is neither a host name nor an address literal")
        return value

    @field_validator("user", "host")
    @classmethod
    def _printable(cls, value: str) -> str:
        if not value.isprintable() or value != value.strip():
            raise broken_rule("holds control characters, or has spaces around it")
        return value

    _readable = field_validator("ca_file", "token_file", "cert_file", "key_file")(readable_file)

    @field_validator("password")
    @classmethod
    def _one_line(cls, value: SecretStr) -> SecretStr:
        if holds_control_character(value.get_secret_value()):
            raise broken_rule("holds a control character, such as a line end")
        return value

    @property
    def named_by_url(self) -> bool:
        """Whether EMAIL_RELAYS names the relay, so that advice speaks of the parts of its URL."""
        return self._named_by_url

    def from_url(self) -> Self:
        """Note that EMAIL_RELAYS names the relay."""
        self._named_by_url = True
        return self

    @property
    def name_in_ehlo(self) -> str:
        """EMAIL_HELO, or what stands for it; empty where that is the address of the connection."""
        return self.helo or self._sender_domain

    def from_sender(self, sender: Address) -> Self:
        """Note from which address mails are sent, whose domain may stand for EMAIL_HELO."""
        self._sender_domain = sender_domain(sender, self.host)
        return self

    @property
    def endpoint(self) -> str:
        """Host and port, as the log names the relay."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def server_name(self) -> str:
        """The name that the relay's certificate must be valid for, and that it is asked for (SNI)."""
        return self.tls_name or self.host.removesuffix(".")  # no certificate has the dot of a full name

    @property
    def signs_in(self) -> bool:
        """Whether to sign in: with a name, or by the client certificate alone."""
        return bool(self.user) or self.auth == "external"

    @property
    def has_token(self) -> bool:
        """Whether to sign in with the token in EMAIL_TOKEN_FILE: asked for, or given without a password."""
        if self.auth is None:
            return self.token_file is not None and not self.password.get_secret_value()
        return self.auth in _BY_TOKEN

    def conflicts(self) -> Iterator[Problem]:
        """Yield a problem for credentials that are incomplete, doubled, or that others could read on the way."""
        yield from self._conflicts_of_certificates()
        if self.password_file is not None and "password" in self.model_fields_set:
            yield Problem(
                "APP_PASSWORD_FILE: is set beside APP_PASSWORD; set one of the two",
                ("APP_PASSWORD_FILE", "APP_PASSWORD"),
            )
        if self.has_token or self.auth == "external":
            if self.has_token and self.token_file is None:
                yield Problem(
                    f"EMAIL_TOKEN_FILE: is needed with EMAIL_AUTH={self.auth}", ("EMAIL_TOKEN_FILE", "EMAIL_AUTH")
                )
        elif self.user and not self.password.get_secret_value():
            yield Problem(
                "APP_PASSWORD: is needed with EMAIL, the name to sign in with; or set APP_PASSWORD_FILE",
                ("APP_PASSWORD", "APP_PASSWORD_FILE", "EMAIL", "EMAIL_AUTH", "EMAIL_TOKEN_FILE"),
            )
        if self.auth not in (None, "external") and not self.user:
            yield Problem(
                f"EMAIL: is needed with EMAIL_AUTH={self.auth}, as the name to sign in with", ("EMAIL", "EMAIL_AUTH")
            )
        if self.user and self.security == "plain" and not is_loopback(self.host):
            yield Problem(
                "EMAIL_SECURITY: plain would send the password unencrypted to another machine",
                ("EMAIL_SECURITY", "EMAIL_HOST", "EMAIL"),
            )

    def _conflicts_of_certificates(self) -> Iterator[Problem]:
        if self.key_file is not None and self.cert_file is None:
            yield Problem("EMAIL_CERT_FILE: is needed with EMAIL_KEY_FILE", ("EMAIL_CERT_FILE", "EMAIL_KEY_FILE"))
        if self.auth != "external":
            return
        if self.cert_file is None:
            yield Problem("EMAIL_CERT_FILE: is needed with EMAIL_AUTH=external", ("EMAIL_CERT_FILE", "EMAIL_AUTH"))
        if self.security == "plain":
            yield Problem(
                "EMAIL_SECURITY: plain shows the relay no certificate, which EMAIL_AUTH=external signs in by",
                ("EMAIL_SECURITY", "EMAIL_AUTH"),
            )

    def without_user(self) -> Iterator[Problem]:
        """Yield a problem for a password or a token without a name to sign in with.

        It is no conflict of the section: beside EMAIL_RELAYS the credentials are in its URLs, and a password that
        stands elsewhere has no use.
        """
        if self.user or self.auth is not None:
            return
        if self.password.get_secret_value():
            name = "APP_PASSWORD_FILE" if self.password_file else "APP_PASSWORD"
        elif self.token_file is not None:
            name = "EMAIL_TOKEN_FILE"
        else:
            return
        yield Problem(
            f"EMAIL: is needed with {name}, as the name to sign in with",
            ("EMAIL", "APP_PASSWORD", "APP_PASSWORD_FILE", "EMAIL_TOKEN_FILE", "EMAIL_AUTH"),
        )
