"""Reads the settings, and says in words what is wrong with them. The only reader of the environment.

From, in this order, the environment, a `.env` file, and files named like the settings in SECRETS_DIR, which itself
stands in one of the first two.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Self, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from otpmail.address import parse_mailbox
from otpmail.errors import InvalidArgument, SettingsError
from otpmail.settings import env_file
from otpmail.settings.relays import parse_relays
from otpmail.settings.sections import SECRETS, MailSettings, OtpSettings, RelaySettings, Section, ServerSettings

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
        secrets_dir = _secrets_dir(in_file)
        problems = _unknown(in_file)
        server = _read(ServerSettings, fixed, secrets_dir, problems)
        relay = _read(RelaySettings, fixed, secrets_dir, problems)
        mail = _read(MailSettings, fixed, secrets_dir, problems)
        otp = _read(OtpSettings, fixed, secrets_dir, problems)
        if server is None or relay is None or mail is None or otp is None:
            raise SettingsError(*problems)
        relays = _relays(mail, relay, secrets_dir, problems)
        if problems:
            raise SettingsError(*problems)
        return cls(server, relays, _with_sender(mail, relays[0]), otp)

    @property
    def relay(self) -> RelaySettings:
        """The relay that is used while it is there."""
        return self.relays[0]


SectionT = TypeVar("SectionT", bound=Section)


def load_section(section: type[SectionT], **fixed: str | None) -> SectionT:
    """Read and check one section's settings alone. Raises SettingsError with a line for each wrong one."""
    problems: list[str] = []
    loaded = _read(section, fixed, _secrets_dir(env_file.read()), problems)
    if loaded is None:
        raise SettingsError(*problems)
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


def _unknown(names: Iterable[str]) -> list[str]:
    """A line for each name that is no setting.

    Only for those in `.env`: the environment holds the variables of strangers, and SECRETS_DIR their files.
    """
    known = sorted(variable for section in _SECTIONS for variable in section.variables())
    problems = []
    for name in names:
        if name in known or name in _NO_SETTINGS or name.startswith(_OTHERS_PREFIXES):
            continue
        nearest = get_close_matches(name, known, n=1)
        meant = f"; is {nearest[0]} meant?" if nearest else ""
        problems.append(f"{name}: there is no such setting, yet .env has it{meant}")
    return problems


def _read(
    section: type[SectionT], fixed: dict[str, str | None], secrets_dir: Path | None, problems: list[str]
) -> SectionT | None:
    keys = section.variables()
    given = {keys[variable]: value for variable, value in fixed.items() if variable in keys}
    # pydantic-settings takes the directory as a keyword that its signature leaves to **values.
    make: Callable[..., SectionT] = section
    try:
        return make(**given, _secrets_dir=secrets_dir)
    except ValidationError as error:
        problems.extend(_problem(section, details) for details in error.errors(include_url=False))
        return None


def _relays(
    mail: MailSettings, relay: RelaySettings, secrets_dir: Path | None, problems: list[str]
) -> tuple[RelaySettings, ...]:
    """The relays of EMAIL_RELAYS, or the one of the EMAIL_ settings.

    What a URL does not say, a timeout or a limit, they have from those settings alike.
    """
    entries = parse_relays(mail.email_relays.get_secret_value())
    if not entries:
        return (relay,)
    if "host" in relay.model_fields_set:
        problems.append("EMAIL_HOST: EMAIL_RELAYS names all relays, and takes its place; set one of the two")
    relays = []
    for place, entry in enumerate(entries, 1):
        wrong: list[str] = []
        read = _read(RelaySettings, entry, secrets_dir, wrong)
        problems.extend(f"EMAIL_RELAYS: entry {place}: {problem}" for problem in wrong)
        if read is not None:
            relays.append(read)
    names = [(read.host, read.port) for read in relays]
    if len(set(names)) < len(names):
        problems.append("EMAIL_RELAYS: a host with its port stands in it twice")
    return tuple(relays)


def _problem(section: type[Section], details: ErrorDetails) -> str:
    """One line: the setting, what it may be, and what it was unless that is a secret."""
    message = details["msg"].removeprefix("Input should be ")
    if not details["loc"]:
        return message  # a rule about several settings; its text opens with the name of the one to change
    key = details["loc"][0]
    variable = next(variable for variable, known in section.variables().items() if key in (known, variable))
    if variable in SECRETS:
        return f"{variable}: {message}"
    return f"{variable}: {details['input']!r} is wrong: {_must_be(details['type'], message)}"


def _must_be(kind: str, message: str) -> str:
    return message if kind == "setting" else f"must be {message}"


def _with_sender(mail: MailSettings, relay: RelaySettings) -> MailSettings:
    """EMAIL_FROM is EMAIL where it is not set: with Gmail and its like, the name to sign in with is the mailbox."""
    if mail.email_from:
        return mail
    try:
        parse_mailbox(relay.user, "EMAIL")
    except InvalidArgument:
        why = "is not a mailbox address to send from" if relay.user else "is not set either"
        raise SettingsError(f"EMAIL_FROM: is needed, since EMAIL {why}") from None
    return mail.model_copy(update={"email_from": relay.user})
