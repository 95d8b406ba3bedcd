"""The options of tests/attacks, which name a foreign target and its limits. A mistake in one ends the run at once."""

from __future__ import annotations

import argparse
import os
import re
import ssl
from typing import TYPE_CHECKING

import pytest

from attacks.targets import CONTRACTS, Limits

if TYPE_CHECKING:
    from collections.abc import Callable

_OF_A_TARGET = ("--relay-listen", "--relay-login", "--code-pattern", *(f"--{name}" for name in Limits.names()))
_LARGEST_PORT = 65535
_CODE_PATTERN = r"(?<![\w#])\d{6}(?!\w)"


def add_options(parser: pytest.Parser) -> None:
    """Add the options; what is wrong with one is said beside its name."""
    group = parser.getgroup("attacks", "the server that tests/attacks attacks; ours without --target")

    def add(name: str, kind: Callable[[str], object], metavar: str, about: str, action: str = "store") -> None:
        group.addoption(name, type=kind, metavar=metavar, help=about, action=action)

    add("--target", _address, "HOST:PORT", "once for each replica of the server", "append")
    group.addoption("--contract", choices=CONTRACTS, help="which one the target speaks: v1, by default, or original")
    add("--relay-listen", _address, "HOST:PORT", "where to listen as the relay of the target")
    add("--relay-login", _login, "USER:PASSWORD", "how the target signs in there, if it does")
    add("--code-pattern", _pattern, "REGEX", "finds the code in the text of a mail; six digits by default")
    add("--attempts", _limit, "NUMBER", "wrong guesses that one code stands; 5 by default")
    add("--failures", _limit, "NUMBER", "wrong guesses that an address stands in an hour; 10 by default")
    add("--sends", _limit, "NUMBER", "mails with codes to an address in an hour; 10 by default")
    add("--block-sends", _limit, "NUMBER", "mails for one client_ip, or /64 of IPv6, in an hour; 30 by default")


def check_options(config: pytest.Config) -> None:
    """Raise pytest.UsageError for options that do nothing without another one: a typing error is reported at once."""
    if not config.getoption("--target"):
        for name in _OF_A_TARGET:
            if config.getoption(name) is not None:
                message = f"{name} is about a foreign server; give --target HOST:PORT too"
                raise pytest.UsageError(message)
    if config.getoption("--relay-login") and not config.getoption("--relay-listen"):
        message = "--relay-login is for the relay of --relay-listen; give that too"
        raise pytest.UsageError(message)
    if config.getoption("--target") and (file := os.environ.get("OTPMAIL_CA_FILE")):
        try:
            ssl.create_default_context(cafile=file)
        except OSError as error:
            message = f"OTPMAIL_CA_FILE={file} has no certificates in PEM: {error.strerror or error}"
            raise pytest.UsageError(message) from None


def limits_of(config: pytest.Config) -> Limits:
    """Return the limits that the options name, else the defaults of otpmail."""
    given = {name.replace("-", "_"): config.getoption(f"--{name}") for name in Limits.names()}
    return Limits(**{name: value for name, value in given.items() if value is not None})


def pattern_of(config: pytest.Config) -> re.Pattern[str]:
    """Return the pattern that finds a code in the text of a mail."""
    return config.getoption("--code-pattern") or re.compile(_CODE_PATTERN)


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) <= _LARGEST_PORT:
        message = f"{text!r} is not HOST:PORT, such as 127.0.0.1:40700"
        raise argparse.ArgumentTypeError(message)
    return text


def _login(text: str) -> tuple[str, str]:
    user, _, password = text.partition(":")
    if not user or not password:
        message = "is not USER:PASSWORD"
        raise argparse.ArgumentTypeError(message)
    return user, password


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        message = f"{text!r} is no regular expression: {error}"
        raise argparse.ArgumentTypeError(message) from None


def _limit(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        message = f"{text!r} is no number above 0"
        raise argparse.ArgumentTypeError(message)
    return int(text)
