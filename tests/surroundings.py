"""Takes out of the environment of a run of tests all that otpmail and its client read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otpmail.settings import ClientSettings
from otpmail.settings.loader import SECTIONS

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_SETTINGS = {name for section in SECTIONS for name in section.variables()} | {"OTPMAIL_SERVER", "SECRETS_DIR"}
_PREFIXES = ("EMAIL_", "OTP_")  # those of further relays, and old names
_OF_TERMINALS = {"COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"}
_PLAIN_TERMINALS = {("TERM", "dumb"), ("TERM", "unknown")}  # of 80 columns for rich, however wide they are
_PROXIES = {"all_proxy", "grpc_proxy", "http_proxy", "https_proxy"}
_LOOPBACK = "localhost,127.0.0.1,::1"


def forget_settings(environment: MutableMapping[str, str], *, of_client: bool = True) -> None:
    """Remove each setting, and what the commands take for a terminal; no proxy is asked for loopback addresses.

    With `of_client=False` the settings of the client stay, which are those of a foreign target of tests/attacks.
    """
    forgotten = _SETTINGS | _OF_TERMINALS | (set(ClientSettings.variables()) if of_client else set())
    for name in list(environment):
        if name in forgotten or name.startswith(_PREFIXES) or (name, environment[name]) in _PLAIN_TERMINALS:
            del environment[name]
    if _PROXIES.intersection(name.lower() for name in environment):
        for name in ("no_proxy", "NO_PROXY"):
            environment[name] = ",".join(filter(None, (environment.get(name), _LOOPBACK)))
