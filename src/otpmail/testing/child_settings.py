"""The settings of the service of the tests: those that it has by itself, and which of them a test may replace."""

import base64
import secrets
from pathlib import Path

from otpmail.errors import SettingsError
from otpmail.settings import unknown_settings

CALLERS = Path("callers.toml")

_OWN = (
    *("EMAIL_HOST", "EMAIL_PORT", "EMAIL_SECURITY", "EMAIL_RELAYS", "EMAIL", "APP_PASSWORD", "APP_PASSWORD_FILE"),
    *("EMAIL_AUTH", "EMAIL_TOKEN_FILE", "EMAIL_CERT_FILE", "EMAIL_KEY_FILE", "EMAIL_CA_FILE", "EMAIL_TLS_NAME"),
    "CALLERS_FILE",
)
"""Settings that lead to the relay of the tests and to their callers: with others no mail would be caught."""

_WITHOUT_EFFECT = {
    "PROCESSES": "is one process",
    "PROCESS_HANG_SECONDS": "is one process",
    "DRAIN_SECONDS": "ends at once with the tests",
    "LAMEDUCK_SECONDS": "ends at once with the tests",
}
"""Settings of a service in production, and what that of the tests does instead."""


def checked(given: dict[str, str]) -> dict[str, str]:
    """Return the settings of a test, by their names in capitals as in `.env`. Raises SettingsError for a wrong name."""
    given = {name.upper(): value for name, value in given.items()}
    fixed = [f"{name}: is fixed in the service of the tests; remove it" for name in given if name in _OWN]
    useless = [
        f"{name}: has no effect, since the service of the tests {does}; remove it"
        for name, does in _WITHOUT_EFFECT.items()
        if name in given
    ]
    if problems := [*unknown_settings(given), *fixed, *useless]:
        raise SettingsError(*problems)
    return given


def usual(relay_port: int) -> dict[str, str]:
    """Return the defaults of the service of the tests. A test may replace each that `checked` does not refuse.

    `relay_port` is where the relay of the tests listens.
    """
    return {
        "HOST": "127.0.0.1",
        "PORT": "0",
        "CALLERS_FILE": str(CALLERS),
        "EMAIL_HOST": "127.0.0.1",
        "EMAIL_PORT": str(relay_port),
        "EMAIL_SECURITY": "plain",
        "EMAIL_FROM": "otpmail <codes@otpmail.example>",
        "OTP_KEYS": "1:" + base64.b64encode(secrets.token_bytes(32)).decode(),
        "GRPC_REFLECTION": "true",
        "DRAIN_SECONDS": "0",
        "WORKERS": "1",
    }
