"""The setting of the store: where codes, request ids and accepted mails live."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import field_validator
from pydantic_settings import SettingsConfigDict

from otpmail.settings.section import NOT_SHOWN, Section, broken_rule

MEMORY = "memory:"
_SQLITE = "sqlite:"
_SHAPES = "must be memory: or sqlite:PATH"


class StoreSettings(Section):
    """Which store keeps codes, request ids and guaranteed mails. No error shows the URL: others hold passwords."""

    model_config = SettingsConfigDict(env_prefix="STORE_")

    url: Annotated[str, NOT_SHOWN] = MEMORY

    @field_validator("url")
    @classmethod
    def _is_a_store(cls, value: str) -> str:
        if value == MEMORY:
            return value
        scheme, colon, path = value.partition(":")
        if f"{scheme}{colon}".lower() != _SQLITE:
            raise broken_rule(f"{_SHAPES}; no other store is known")
        if not path or path.endswith("/"):
            raise broken_rule(f"{_SHAPES}, where PATH is that of a file")
        if path.startswith(":"):  # SQLite's own name for a database in memory
            raise broken_rule(f"{_SHAPES}; for a store in memory write memory:")
        if path.startswith("//") and not path.startswith("///"):
            raise broken_rule(f"{_SHAPES}; write an absolute path as sqlite:/var/lib/otpmail/store.db")
        return f"{_SQLITE}{path}"

    @property
    def path(self) -> Path | None:
        """The file of a SQLite store, absolute; None for the store in memory."""
        return None if self.url == MEMORY else Path(os.path.normpath(Path(self.url.removeprefix(_SQLITE)).absolute()))

    @property
    def is_durable(self) -> bool:
        """Whether what the store accepts outlives the process."""
        return self.url != MEMORY
