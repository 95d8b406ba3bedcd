"""The settings of the store: where codes, request ids and accepted mails live."""

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from otpmail.settings.duration import SecondToFiveMinutes
from otpmail.settings.problems import Problem
from otpmail.settings.redis_url import RedisUrl, is_redis, parse_redis_url
from otpmail.settings.relay import PasswordFile
from otpmail.settings.secret_file import SecretFile
from otpmail.settings.section import NOT_SHOWN, Section, broken_rule, name_of_a_certificate, readable_file
from otpmail.settings.spoilt import holds_control_character

MEMORY = "memory:"
_SQLITE = "sqlite:"
_SHAPES = "must be memory:, sqlite:PATH or redis://host:6379"
_NAMESPACE = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class StoreSettings(Section):
    """Which store keeps codes, request ids and guaranteed mails. No error shows the URL: it may hold a password."""

    model_config = SettingsConfigDict(env_prefix="STORE_")

    url: Annotated[str, NOT_SHOWN] = MEMORY
    password_file: Annotated[PasswordFile | None, NOT_SHOWN] = None
    password: SecretStr = SecretStr("")
    sentinel_password_file: Annotated[PasswordFile | None, NOT_SHOWN] = None
    sentinel_password: SecretStr = SecretStr("")
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    tls_name: str | None = None
    namespace: str = "otpmail"
    allow_volatile: bool = False
    wait_replicas: Annotated[int, Field(ge=0, le=10)] | None = None
    lease_seconds: SecondToFiveMinutes = 10

    @field_validator("url")
    @classmethod
    def _is_a_store(cls, value: str) -> str:
        if holds_control_character(value):
            raise broken_rule("holds a control character, such as a line end")
        if value == MEMORY:
            return value
        if is_redis(value):
            try:
                parse_redis_url(value)
            except ValueError as error:
                raise broken_rule(str(error)) from None
            return value
        scheme, colon, path = value.partition(":")
        if scheme.lower() in {"valkey", "valkeys"}:
            raise broken_rule(f"{_SHAPES}; for Valkey write redis:// or rediss:// too")
        if f"{scheme}{colon}".lower() != _SQLITE:
            raise broken_rule(f"{_SHAPES}; no other store is known")
        if problem := _problem_of_path(path):
            raise broken_rule(f"{_SHAPES}{problem}")
        return f"{_SQLITE}{path}"

    _readable = field_validator("ca_file", "cert_file", "key_file")(readable_file)

    _name_of_a_certificate = field_validator("tls_name")(name_of_a_certificate)

    @field_validator("namespace")
    @classmethod
    def _part_of_a_key(cls, value: str) -> str:
        if not _NAMESPACE.fullmatch(value):
            raise broken_rule("must be 1 to 64 of A-Z a-z 0-9 . _ -")
        return value

    @field_validator("password", "sentinel_password")
    @classmethod
    def _one_line(cls, value: SecretStr) -> SecretStr:
        if holds_control_character(value.get_secret_value()):
            raise broken_rule("holds a control character, such as a line end")
        return value

    @property
    def path(self) -> Path | None:
        """The file of a SQLite store, absolute; None for the other stores."""
        if not self.url.startswith(_SQLITE):
            return None
        return Path(os.path.normpath(Path(self.url.removeprefix(_SQLITE)).absolute()))

    @property
    def redis(self) -> RedisUrl | None:
        """The servers of a Redis store, with the password that is to be used; None for the other stores."""
        if not is_redis(self.url):
            return None
        url = parse_redis_url(self.url)
        return replace(url, password=_secret(self.password_file, self.password) or url.password)

    @property
    def password_of_sentinels(self) -> str:
        """The password of the Sentinels themselves, empty if they have none."""
        return _secret(self.sentinel_password_file, self.sentinel_password)

    @property
    def replicas_to_wait_for(self) -> int:
        """How many replicas must have a change of a code: one where a replica may take over, unless set."""
        if self.wait_replicas is not None:
            return self.wait_replicas
        redis = self.redis
        return 0 if redis is None or redis.layout == "single" else 1

    @property
    def is_durable(self) -> bool:
        """Whether what the store accepts outlives the process."""
        return self.url != MEMORY

    @property
    def is_shared(self) -> bool:
        """Whether several processes can have the store at once."""
        return is_redis(self.url)

    def conflicts(self) -> Iterator[Problem]:
        """Yield a problem for a password that is there twice, and for TLS settings without TLS."""
        url = self.redis
        given = [
            name
            for name, is_set in (
                ("STORE_URL", url is not None and bool(parse_redis_url(self.url).password)),
                ("STORE_PASSWORD_FILE", self.password_file is not None),
                ("STORE_PASSWORD", bool(self.password.get_secret_value())),
            )
            if is_set
        ]
        if len(given) > 1:
            yield Problem(f"{given[1]}: is set beside a password in {given[0]}; set one of the two", tuple(given))
        if self.sentinel_password_file is not None and self.sentinel_password.get_secret_value():
            yield Problem(
                "STORE_SENTINEL_PASSWORD_FILE: is set beside STORE_SENTINEL_PASSWORD; set one of the two",
                ("STORE_SENTINEL_PASSWORD_FILE", "STORE_SENTINEL_PASSWORD"),
            )
        if self.key_file is not None and self.cert_file is None:
            yield Problem("STORE_CERT_FILE: is needed with STORE_KEY_FILE", ("STORE_CERT_FILE", "STORE_KEY_FILE"))
        if url is not None and not url.tls:
            yield from self._without_tls()

    def _without_tls(self) -> Iterator[Problem]:
        named = {
            "STORE_CA_FILE": self.ca_file,
            "STORE_CERT_FILE": self.cert_file,
            "STORE_KEY_FILE": self.key_file,
            "STORE_TLS_NAME": self.tls_name,
        }
        for name, value in named.items():
            if value is not None:
                scheme = self.url.partition(":")[0].lower().replace("redis", "rediss", 1)
                yield Problem(
                    f"{name}: has no effect without TLS; begin STORE_URL with {scheme}://", (name, "STORE_URL")
                )
                return


def _secret(file: SecretFile | None, value: SecretStr) -> str:
    return file.text if file is not None else value.get_secret_value()


def _problem_of_path(path: str) -> str:
    """Return what to change in the path of a file, as the end of a rule; empty for a good one."""
    if not path or path.endswith("/"):
        return ", where PATH is that of a file"
    if "?" in path:  # as in the URLs of other programs
        return "; a file has no options, so leave out what begins with ?"
    if path.startswith(":"):  # SQLite's own name for a database in memory
        return "; for a store in memory write memory:"
    if path.startswith("//") and not path.startswith("///"):
        return "; write an absolute path as sqlite:/var/lib/otpmail/store.db"
    return ""
