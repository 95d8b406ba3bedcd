"""Reads all settings again while the service runs, and says which of the new values can be used before a restart."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from otpmail.settings.loader import Settings
from otpmail.settings.portions import WHOLE, Portion
from otpmail.settings.reader import SectionT
from otpmail.settings.relay import RelaySettings
from otpmail.settings.section import Section
from otpmail.settings.sources import Sources

_SERVER = frozenset({"LOG_LEVEL"})
_OTP = frozenset({"OTP_TEMPLATES_DIR", "OTP_LOCALE"})
_PASSWORD = frozenset({"APP_PASSWORD", "APP_PASSWORD_FILE"})
"""Two ways to give one value, so that both are kept if one is wrong. So are a certificate and its key."""
_CERTIFICATE = frozenset({"EMAIL_CERT_FILE", "EMAIL_KEY_FILE"})
_RELAY = _PASSWORD | _CERTIFICATE | {"EMAIL_CA_FILE", "EMAIL_TOKEN_FILE"}
_BY_URL = frozenset(
    {"APP_PASSWORD", "EMAIL", "EMAIL_AUTH", "EMAIL_HOST", "EMAIL_PORT", "EMAIL_SECURITY", "EMAIL_TLS_NAME"}
)
"""The settings that EMAIL_RELAYS gives for each relay."""


class Reloaded(NamedTuple):
    """The settings to go on with, and a line for each new value that is wrong.

    `changed` are the names of those that were taken, `need_restart` of other good values.
    """

    settings: Settings
    problems: tuple[str, ...]
    changed: tuple[str, ...] = ()
    need_restart: tuple[str, ...] = ()


def reload(current: Settings, sources: Sources, fixed: Mapping[str, str | None], portion: Portion = WHOLE) -> Reloaded:
    """Take from `sources` what can change while the service runs. A wrong value leaves the current one.

    Those in `fixed` are not looked up, as in `Settings.load`. The environment of a process does not change; `.env`,
    SECRETS_DIR and the files that settings name may.
    """
    fresh, problems = Settings.read(sources, fixed)
    fresh = portion.of_settings(fresh)  # as `current` is
    lines = tuple(problem.line for problem in problems)
    if sources.unreadable:  # any setting may be in the part that can't be read
        return Reloaded(current, lines)
    wrong = frozenset(name for problem in problems for name in problem.names)
    for together in (_PASSWORD, _CERTIFICATE):
        if wrong & together:
            wrong |= together
    renewed = Settings(
        _renewed(current.server, fresh.server, _SERVER - wrong),
        _renewed_relays(current, fresh, wrong),
        current.mail,
        _renewed(current.otp, fresh.otp, _OTP - wrong),
        current.store,
        current.product,
    )
    changed = dict.fromkeys(_changes(current, renewed))
    others = dict.fromkeys(name for name in _changes(renewed, fresh) if name not in wrong | changed.keys())
    return Reloaded(renewed, lines, tuple(changed), tuple(others))


def _renewed_relays(current: Settings, fresh: Settings, wrong: frozenset[str]) -> tuple[RelaySettings, ...]:
    """Give each relay its new credentials, if they are still those of the same user there."""
    if [_account(relay) for relay in current.relays] != [_account(relay) for relay in fresh.relays]:
        return current.relays
    names = frozenset[str]() if "EMAIL_RELAYS" in wrong else _RELAY - wrong
    return tuple(_renewed(old, new, names) for old, new in zip(current.relays, fresh.relays, strict=True))


def _account(relay: RelaySettings) -> tuple[str, int, str]:
    return relay.host, relay.port, relay.user


def _renewed(current: SectionT, fresh: SectionT, names: frozenset[str]) -> SectionT:
    fields = _fields(type(current))
    return current.model_copy(
        update={fields[name]: getattr(fresh, fields[name]) for name in fields.keys() & names},
    )


def _changes(old: Settings, new: Settings) -> Iterator[str]:
    """Yield the name of each setting that differs; those that a URL gives are parts of EMAIL_RELAYS."""
    by_url = bool(old.mail.email_relays.get_secret_value() or new.mail.email_relays.get_secret_value())
    if by_url and len(old.relays) != len(new.relays):
        yield "EMAIL_RELAYS"
    sections: list[tuple[Section, Section]] = [(old.server, new.server), (old.mail, new.mail), (old.otp, new.otp)]
    sections += [(old.store, new.store), (old.product, new.product)]
    for before, after in (*sections, *zip(old.relays, new.relays, strict=False)):
        for name, field in _fields(type(before)).items():
            if name != "EMAIL_RELAYS" and getattr(before, field) != getattr(after, field):
                if name == "APP_PASSWORD" and getattr(after, "password_file", None):
                    yield "APP_PASSWORD_FILE"
                else:
                    yield "EMAIL_RELAYS" if by_url and name in _BY_URL else name


def _fields(section: type[Section]) -> dict[str, str]:
    """The fields of a section, by the settings' names in the environment."""
    return dict(zip(section.variables(), section.model_fields, strict=True))
