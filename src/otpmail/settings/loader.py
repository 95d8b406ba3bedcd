"""Where the settings come from: the only reader of the environment. How each is read is `reading`'s to know.

From, in this order, the environment, a `.env` file, and files named like the settings in SECRETS_DIR, which itself
stands in one of the first two.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Self

from otpmail.errors import SettingsError
from otpmail.settings import env_file
from otpmail.settings.reading import Reading, SectionT
from otpmail.settings.sections import (
    MailSettings,
    OtpSettings,
    Problem,
    RelaySettings,
    ServerSettings,
)

_SECRETS_DIR = Path("/run/secrets")
_SECTIONS = (ServerSettings, RelaySettings, MailSettings, OtpSettings)

# What else a .env may hold: names that our commands and scripts read, the one of the original's client, and, since
# Docker and Compose read the same file, what they and the libraries in the image look for.
_NO_SETTINGS = frozenset(
    {
        *("OTPMAIL_SERVER", "OTPMAIL_SERVERS", "SECRETS_DIR", "TARGET", "BASE", "CI"),
        *("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "SSL_CERT_DIR", "SSL_CERT_FILE"),
        *("GRPC_TRACE", "GRPC_VERBOSITY", "HOME", "HOSTNAME", "LANG", "LC_ALL", "PATH", "TZ"),
    }
)
_OTHERS_PREFIXES = ("COMPOSE_", "DOCKER_", "PYTHON")


@dataclass(frozen=True, slots=True)
class Settings:
    """All sections; `relays` holds one for each relay, in their order. `load` is how they come about."""

    server: ServerSettings
    relays: tuple[RelaySettings, ...]
    mail: MailSettings
    otp: OtpSettings

    @classmethod
    def load(cls, **fixed: str | None) -> Self:
        """Read and check every setting; those in `fixed`, by name, are not asked for.

        Raises SettingsError with a line for each wrong one.
        """
        in_file = env_file.read()
        reading = Reading(_secrets_dir(in_file), _unknown(in_file))
        server = reading.section(ServerSettings, fixed)
        relay = reading.section(RelaySettings, fixed)
        mail = reading.section(MailSettings, fixed)
        otp = reading.section(OtpSettings, fixed)
        relays = reading.relays(mail, relay)
        mail = reading.with_sender(mail, relays)
        reading.end()
        return cls(server, relays, mail, otp)

    @property
    def relay(self) -> RelaySettings:
        """The relay that is used while it is there."""
        return self.relays[0]


def load_section(section: type[SectionT], **fixed: str | None) -> SectionT:
    """Read and check one section's settings alone. Raises SettingsError with a line for each wrong one."""
    reading = Reading(_secrets_dir(env_file.read()))
    loaded = reading.section(section, fixed)
    reading.end()
    return loaded


def named_server() -> str:
    """OTPMAIL_SERVER, the service that the client's commands are to call; empty when it is not set.

    It is no setting of the service, and so in no section. Raises SettingsError when `.env` can't be read.
    """
    return os.environ.get("OTPMAIL_SERVER") or env_file.read().get("OTPMAIL_SERVER", "")


def _secrets_dir(in_file: Mapping[str, str]) -> Path | None:
    """Where the files with settings are; None for nowhere.

    Raises SettingsError, alone: what is missing because it stands in one of these files is not to be told as missing.
    """
    named = os.environ.get("SECRETS_DIR") or in_file.get("SECRETS_DIR")
    secrets = Path(named or _SECRETS_DIR)
    if secrets.is_dir():
        return secrets
    if named:
        raise SettingsError(f"SECRETS_DIR: {named!r} is wrong: is not a directory")
    return None


def _unknown(names: Iterable[str]) -> Iterator[Problem]:
    """A problem for each name that is no setting; it lies in the one that was probably meant, too.

    Only for those in `.env`: the environment holds the variables of strangers, and SECRETS_DIR their files.
    """
    known = sorted(variable for section in _SECTIONS for variable in section.variables())
    for name in names:
        if name in known or name in _NO_SETTINGS or name.startswith(_OTHERS_PREFIXES):
            continue
        nearest = get_close_matches(name, known, n=1)
        meant = f"; is {nearest[0]} meant?" if nearest else ""
        yield Problem(f"{name}: there is no such setting, yet .env has it{meant}", (name, *nearest))
