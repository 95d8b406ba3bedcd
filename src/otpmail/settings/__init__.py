"""The settings: `sections` says what there is, `load` reads and checks it."""

from otpmail.settings.loader import Settings, load_section, named_server
from otpmail.settings.sections import (
    AuthMechanism,
    MailSettings,
    OtpSettings,
    RelaySettings,
    Security,
    ServerSettings,
    is_loopback,
    parse_keys,
)

__all__ = [
    "AuthMechanism",
    "MailSettings",
    "OtpSettings",
    "RelaySettings",
    "Security",
    "ServerSettings",
    "Settings",
    "is_loopback",
    "load_section",
    "named_server",
    "parse_keys",
]
