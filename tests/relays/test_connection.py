"""A connection: what it learns from the client that dialled it."""

from dataclasses import dataclass, field
from typing import cast

import aiosmtplib

from otpmail.relays.connection import capabilities_of


@dataclass
class _Client:
    """As much of aiosmtplib.SMTP as is read."""

    esmtp_extensions: dict[str, str] = field(default_factory=dict)
    server_auth_methods: list[str] = field(default_factory=list)


def test_reading() -> None:
    """Keywords in upper case, whatever the relay wrote; AUTH with its mechanisms."""
    client = _Client({"pipelining": "", "size": "1000", "auth": "ignored"}, ["plain", "login"])
    announcement = capabilities_of(cast("aiosmtplib.SMTP", client))
    assert announcement.extensions == {"PIPELINING": "", "SIZE": "1000", "AUTH": "PLAIN LOGIN"}
    assert "PIPELINING" in announcement
    assert "CHUNKING" not in announcement
