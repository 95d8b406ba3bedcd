"""Where settings come from: the environment, `.env`, and the files in SECRETS_DIR. Each is read once for a load."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Self

from otpmail.settings import env_file, secrets_dir, spoilt
from otpmail.settings.env_file import EnvFile
from otpmail.settings.secrets_dir import SecretsDir


@dataclass(frozen=True, slots=True, repr=False)  # a repr would show secrets
class Sources:
    """The content of the three places, by the settings' names in capitals."""

    environment: Mapping[str, str]
    env_file: EnvFile
    secrets_dir: SecretsDir

    @classmethod
    def read(cls, settings: Collection[str]) -> Self:
        """Read all three; of SECRETS_DIR only the files named like one of `settings`."""
        environment = _without_empty({name.upper(): value for name, value in os.environ.items()})
        in_file = env_file.read(os.environ)
        named = environment.get("SECRETS_DIR") or in_file.values.get("SECRETS_DIR", "")
        return cls(environment, in_file, secrets_dir.read(named, settings))

    @property
    def unreadable(self) -> tuple[str, ...]:
        """A line for each part that can't be read, and may set anything."""
        return self.env_file.unreadable + self.secrets_dir.unreadable

    @property
    def layers(self) -> tuple[Mapping[str, str], ...]:
        """The values of each place, the one that wins first. An empty value counts as not set."""
        # A line of `.env` that can't be read may set what a file in SECRETS_DIR sets too, and would win.
        secrets = {} if self.env_file.unreadable else self.secrets_dir.values
        return self.environment, _without_empty(self.env_file.values), _without_empty(secrets)

    def fault(self, name: str, *, is_secret: bool) -> str | None:
        """Return what is wrong with the value of a setting by its form alone, None if nothing is.

        Of an empty file or value nothing is wrong, since it counts as not set.
        """
        if value := self.environment.get(name):
            return spoilt.fault_of_quotes(value) or spoilt.fault_at_ends(value)
        if fault := self.env_file.faults.get(name):
            return fault
        if is_secret and (line := self.env_file.comments.get(name)):
            return (
                f"a comment begins at the # in line {line} of {env_file.NAME}; put a value that holds a # into single "
                "quotes, or remove the comment"
            )
        if value := self.env_file.values.get(name):
            return spoilt.fault_at_ends(value)
        return None if name in self.secrets_dir.values else self.secrets_dir.faults.get(name)


def _without_empty(values: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}
