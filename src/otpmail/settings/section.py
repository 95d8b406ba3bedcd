"""The base of all sections: how a setting is named, what it is when unset, and how a section is made from texts."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from otpmail.settings.helo import is_host_name
from otpmail.settings.hosts import bare_address, is_ip_address
from otpmail.settings.problems import Problem
from otpmail.settings.secret_file import is_readable

RULE = "setting"
"""The type of those errors whose message is ours (`broken_rule`)."""

NOT_SHOWN = "not shown"
"""Marks, in `Annotated`, a setting whose value no error repeats: people put the secret there that it leads to."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


def broken_rule(message: str) -> PydanticCustomError:
    """The error for a validator to raise; the message follows the value and shows no secret."""
    return PydanticCustomError(RULE, "{message}", {"message": message})


def readable_file(value: Path | None) -> Path | None:
    """Return a path that is unset or names a file that can be read. For validators; raises a broken rule."""
    if value is not None and not is_readable(value):
        raise broken_rule("is not a file that can be read")
    return value


def name_of_a_certificate(value: str | None) -> str | None:
    """Return the host name or IP address that a server shows, an address without brackets. For validators."""
    name = value and bare_address(value)
    if name and not (is_host_name(name) or is_ip_address(name)):
        raise broken_rule("is neither a host name nor an IP address")
    return name


def lower_case(value: object) -> object:
    """Make a word count in any case. For validators that run before the type is checked."""
    return value.lower() if isinstance(value, str) else value


class Section(BaseSettings):
    """One part's settings, frozen; constructors take their section, never the whole.

    A setting's name in the environment is the section's prefix and the field's own name, in capitals. A section made
    by hand holds what it is given and defaults: only `loader` reads the environment, `.env` and the secrets directory.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Drop the library's own sources: each section would open `.env` again."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @classmethod
    def from_layers(cls, *layers: Mapping[str, object]) -> Self:
        """Make the section of values by the settings' names; an earlier layer wins over a later one.

        Raises pydantic's ValidationError.
        """
        # `settings_customise_sources` is a class method, which can't see what was read for this one load. The keyword
        # is the library's too, but hidden in the signature that it shows to type checkers.
        make: Callable[..., Self] = cls
        return make(_build_sources=(tuple(_Layer(cls, values) for values in layers), {}))

    @classmethod
    def variables(cls) -> dict[str, str]:
        """The key under which pydantic knows a field, by the setting's name in the environment."""
        prefix = cls.model_config.get("env_prefix", "")
        return {
            str(field.validation_alias or f"{prefix}{name}").upper(): str(field.validation_alias or name)
            for name, field in cls.model_fields.items()
        }

    @classmethod
    def defaults(cls) -> dict[str, object]:
        """Each setting's value when it is not set, by its name in the environment."""
        fields = cls.model_fields.values()
        return {
            name: field.get_default(call_default_factory=True, validated_data={})
            for name, field in zip(cls.variables(), fields, strict=True)
        }

    @classmethod
    def secrets(cls) -> frozenset[str]:
        """The names of those settings whose values are never shown."""
        fields = zip(cls.variables(), cls.model_fields.values(), strict=True)
        return frozenset(name for name, field in fields if field.annotation is SecretStr or NOT_SHOWN in field.metadata)

    def conflicts(self) -> Iterator[Problem]:
        """Yield a problem for each group of settings that do not go together.

        It is no validator: pydantic would stop at the first conflict, and skip all of them after a wrong value.
        """
        yield from ()


class _Layer(PydanticBaseSettingsSource):
    """One of the places that settings come from, already read."""

    def __init__(self, section: type[Section], values: Mapping[str, object]) -> None:
        super().__init__(section)
        self._keys = section.variables()
        self._values = values

    def __call__(self) -> dict[str, Any]:
        """Return the section's part, by pydantic's keys."""
        return {key: self._values[name] for name, key in self._keys.items() if name in self._values}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Unused, since `__call__` asks for all fields at once; the base class wants it."""
        del field
        return None, field_name, False
