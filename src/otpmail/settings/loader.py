"""Loads all settings in one pass: reads each source once, makes every section, and reports every mistake."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Self

from otpmail.address import parse_mailbox
from otpmail.errors import InvalidArgument, SettingsError
from otpmail.settings.client import ClientSettings
from otpmail.settings.mail import MailSettings
from otpmail.settings.misspelt import near_misses
from otpmail.settings.otp import OtpSettings
from otpmail.settings.problems import Problem, Problems
from otpmail.settings.processes import conflicts_of_processes
from otpmail.settings.product import ProductSettings
from otpmail.settings.reader import SectionT, read_section
from otpmail.settings.relay import RelaySettings
from otpmail.settings.relays import read_relays
from otpmail.settings.server import ServerSettings
from otpmail.settings.sources import Sources
from otpmail.settings.store import StoreSettings
from otpmail.settings.usual_names import MEANT

SECTIONS = (ServerSettings, RelaySettings, MailSettings, OtpSettings, ProductSettings, StoreSettings)
_SETTINGS = frozenset(name for section in SECTIONS for name in section.variables())

# `.env` may also hold names that others read: our commands and scripts, the original's client, the libraries in the
# image. Docker and Compose read the same file.
_OTHER_NAMES = frozenset(
    {
        *("OTPMAIL_SERVER", "OTPMAIL_SERVERS", "SECRETS_DIR", "TARGET", "BASE", "CI"),
        *ClientSettings.variables(),
        *("ALL_PROXY", "FTP_PROXY", "GRPC_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_GRPC_PROXY", "NO_PROXY"),
        *("SSL_CERT_DIR", "SSL_CERT_FILE"),
        *("GRPC_TRACE", "GRPC_VERBOSITY", "HOME", "HOSTNAME", "LANG", "LC_ALL", "PATH", "TZ"),
    }
)
_LIKE_A_SETTING = re.compile(r"[A-Z]{1,24}[0-9]{0,3}(?:_[A-Z]{0,24}[0-9]{0,3}){0,8}")
_NOT_SHOWN = (
    "is no setting of otpmail; remove or correct the line (its name is not shown, since it may be part of a secret on "
    "two lines)"
)
_NO_KEYS = (
    "OTP_KEYS: is needed with STORE_URL, since a store outlives a random key; set it to the output of otpmail keys new"
)
_OTHER_PREFIXES = ("COMPOSE_", "DOCKER_", "PYTHON")


@dataclass(frozen=True, slots=True)
class Settings:
    """All sections; `relays` holds one for each relay, in the order of their use. Made by `load`."""

    server: ServerSettings
    relays: tuple[RelaySettings, ...]
    mail: MailSettings
    otp: OtpSettings
    store: StoreSettings
    product: ProductSettings

    @classmethod
    def load(cls, sources: Sources | None = None, /, **fixed: str | None) -> Self:
        """Read and check every setting; those in `fixed`, by name, are not looked up in the sources.

        Without `sources` they are read now. Raises SettingsError with a line for each mistake.
        """
        settings, problems = cls.read(read_sources() if sources is None else sources, fixed)
        problems.raise_if_any()
        return settings

    @classmethod
    def read(cls, sources: Sources, fixed: Mapping[str, str | None]) -> tuple[Self, Problems]:
        """Read every setting as `load` does, and return what is wrong too: a wrong setting has its default."""
        problems = Problems()
        problems.add_unreadable(sources.unreadable)
        for problem in _unknown_names(sources.env_file.lines):
            problems.add(problem)
        server = read_section(ServerSettings, sources, fixed, problems)
        relay = read_section(RelaySettings, sources, fixed, problems)
        mail = read_section(MailSettings, sources, fixed, problems)
        otp = read_section(OtpSettings, sources, fixed, problems)
        store = read_section(StoreSettings, sources, fixed, problems)
        product = read_section(ProductSettings, sources, fixed, problems)
        if store.is_durable and not otp.derivation_keys:
            problems.conclude(Problem(_NO_KEYS, ("OTP_KEYS", "STORE_URL")))
        for problem in conflicts_of_processes(server, mail, store):
            problems.conclude(problem)
        relays = read_relays(mail.email_relays.get_secret_value(), relay, sources, problems)
        mail = _with_sender(mail, relays, problems)
        if relay.standby > mail.workers:
            problems.conclude(
                Problem(
                    f"EMAIL_STANDBY: is {relay.standby}, and WORKERS is {mail.workers}; no more than that can be kept",
                    ("EMAIL_STANDBY", "WORKERS"),
                )
            )
        return cls(server, _with_sender_known(relays, mail), mail, otp, store, product), problems

    @property
    def relay(self) -> RelaySettings:
        """The relay that is used while it is up."""
        return self.relays[0]


def read_sources() -> Sources:
    """Read the environment, `.env` and SECRETS_DIR, for one load or several. `load` reports their faults."""
    return Sources.read(_SETTINGS)


def load_section(section: type[SectionT], sources: Sources | None = None, /, **fixed: str | None) -> SectionT:
    """Read and check one section alone, otherwise like `Settings.load`; names in `.env` are not checked.

    Raises SettingsError with a line for each mistake.
    """
    sources = read_sources() if sources is None else sources
    problems = Problems()
    problems.add_unreadable(sources.unreadable)
    loaded = read_section(section, sources, fixed, problems)
    problems.raise_if_any()
    return loaded


def named_server(sources: Sources) -> str:
    """OTPMAIL_SERVER, the service that the client's commands call; empty when it is not set.

    It belongs to no section, as the service itself does not read it. Raises SettingsError when it is not in the
    environment and `.env` can't be read.
    """
    if named := sources.environment.get("OTPMAIL_SERVER"):
        return named
    if sources.env_file.unreadable:
        raise SettingsError(*sources.env_file.unreadable)
    return sources.env_file.values.get("OTPMAIL_SERVER", "")


def _unknown_names(lines: Mapping[str, int]) -> Iterator[Problem]:
    """Yield a problem for each name in `.env` that is no setting, with the one that was probably meant.

    `lines` has the number of each name's line. Other programs' names stand in the environment (`misspelt`) and in
    SECRETS_DIR.
    """
    known = sorted(_SETTINGS)
    for name, line in lines.items():
        if _is_known(name):
            continue
        nearest = _nearest(name, known)
        # Otherwise it may be the rest of a secret that was broken over two lines.
        if not _LIKE_A_SETTING.fullmatch(name) or not (nearest or "_" in name):
            yield Problem(f".env: line {line}: {_NOT_SHOWN}")
            continue
        meant = f"; did you mean {nearest[0]}?" if nearest else ""
        yield Problem(f"{name}: is in .env, but there is no such setting{meant}", (name, *nearest))


def unknown_settings(names: Iterable[str]) -> Iterator[str]:
    """Yield a line for each name that is no setting, with the one that was probably meant."""
    known = sorted(_SETTINGS)
    for name in names:
        if name not in _SETTINGS:
            nearest = [] if name in _OTHER_NAMES else _nearest(name, known)
            meant = f"; did you mean {nearest[0]}?" if nearest else ""
            yield f"{name}: there is no such setting{meant}"


def _nearest(name: str, known: Sequence[str]) -> list[str]:
    """Return the setting that a name probably means, none where no setting resembles it."""
    usual = MEANT.get(name)
    return [usual] if usual else get_close_matches(name, known, n=1)


def misspelt(sources: Sources) -> Iterator[Problem]:
    """Yield a line for each name in the environment that is nearly a setting, and none: it has no effect."""
    unknown = {name: value for name, value in sources.environment.items() if not _is_known(name)}
    given = {name for layer in sources.layers for name in layer}
    for name, meant in near_misses(unknown, _SETTINGS | {"SECRETS_DIR"}, given):
        line = (
            f"{name}: is in the environment, but there is no such setting, so it has no effect; did you mean {meant}?"
        )
        yield Problem(line, (name, meant))


def _is_known(name: str) -> bool:
    return name in _SETTINGS or name in _OTHER_NAMES or name.startswith(_OTHER_PREFIXES)


def _with_sender(mail: MailSettings, relays: tuple[RelaySettings, ...], problems: Problems) -> MailSettings:
    """Use EMAIL as EMAIL_FROM where that is not set: with Gmail and its like, the name to sign in with is a mailbox."""
    if mail.email_from or not relays or not problems.are_good("EMAIL_FROM", "EMAIL", "EMAIL_RELAYS"):
        return mail
    if any(relays[0].without_user()):  # reported already
        return mail
    user = relays[0].user
    try:
        parse_mailbox(user, "EMAIL")
    except InvalidArgument:
        problems.conclude(_no_sender(relays[0]))
    return mail.model_copy(update={"email_from": user})


def _no_sender(relay: RelaySettings) -> Problem:
    """Say what to set where neither EMAIL_FROM nor the name to sign in with is an address to send from."""
    if not (relay.user or relay.named_by_url):
        return Problem(
            "EMAIL: is not set, and no EMAIL_FROM either; set EMAIL and APP_PASSWORD to sign in to "
            f"{relay.host}, or EMAIL_HOST and EMAIL_FROM for a relay without sign-in"
        )
    whose = "the user of relay 1 in EMAIL_RELAYS" if relay.named_by_url else "EMAIL"
    why = "is not a mailbox address to send from" if relay.user else "is not set either"
    return Problem(f"EMAIL_FROM: is needed, since {whose} {why}")


def _with_sender_known(relays: tuple[RelaySettings, ...], mail: MailSettings) -> tuple[RelaySettings, ...]:
    """Let the domain of EMAIL_FROM stand for EMAIL_HELO where neither that nor this machine's name can be said."""
    try:
        sender = parse_mailbox(mail.email_from, "EMAIL_FROM")
    except InvalidArgument:  # reported already
        return relays
    return tuple(relay.from_sender(sender) for relay in relays)
