"""The settings: a frozen section for each part of the service, and `loader`, which reads and checks them all."""

from otpmail.settings.client import ClientSettings
from otpmail.settings.hosts import is_loopback, is_present
from otpmail.settings.listen import LONGEST_PATH, grpc_target
from otpmail.settings.loader import (
    SECTIONS,
    Settings,
    load_section,
    misspelt,
    named_server,
    read_sources,
    unknown_settings,
)
from otpmail.settings.mail import FOR_REQUESTS, MailSettings
from otpmail.settings.otp import OtpSettings, parse_keys
from otpmail.settings.problems import quoted
from otpmail.settings.product import ProductSettings
from otpmail.settings.relay import AuthMechanism, RelaySettings, Security
from otpmail.settings.server import ServerSettings
from otpmail.settings.sources import Sources
from otpmail.settings.store import MEMORY, StoreSettings

__all__ = [
    "FOR_REQUESTS",
    "LONGEST_PATH",
    "MEMORY",
    "SECTIONS",
    "AuthMechanism",
    "ClientSettings",
    "MailSettings",
    "OtpSettings",
    "ProductSettings",
    "RelaySettings",
    "Security",
    "ServerSettings",
    "Settings",
    "Sources",
    "StoreSettings",
    "grpc_target",
    "is_loopback",
    "is_present",
    "load_section",
    "misspelt",
    "named_server",
    "parse_keys",
    "quoted",
    "read_sources",
    "unknown_settings",
]
