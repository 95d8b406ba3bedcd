"""Dials that are cancelled, or answered in plain text, or not at all."""

import asyncio
import socket

import pytest
from aiosmtplib.protocol import SMTPProtocol

from otpmail.errors import ConnectFailed
from relay import HOST, Faults, Relay
from relays.dials import dial_port


@pytest.mark.parametrize("reply", [b"220", b"250"])
async def test_a_dial_that_is_cancelled_as_a_reply_arrives_ends(monkeypatch: pytest.MonkeyPatch, reply: bytes) -> None:
    """A dial that is cancelled in the very turn of the loop in which a reply is read ends all the same, and closes.

    In Python 3.11 asyncio.wait_for, which aiosmtplib waits with, forgets such a cancellation.
    """
    received = SMTPProtocol.data_received

    def cancel_and_receive(self: SMTPProtocol, data: bytes) -> None:
        if data.startswith(reply):
            dialling.cancel()
        received(self, data)

    monkeypatch.setattr(SMTPProtocol, "data_received", cancel_and_receive)
    async with Relay(Faults(auth=())) as server:
        dialling = asyncio.create_task(dial_port(server.port))
        async with asyncio.timeout(10):
            with pytest.raises(asyncio.CancelledError):
                await dialling
            await server.wait_for_idle(0)


async def test_plain_text_in_place_of_tls_is_named_in_the_error() -> None:
    """The dial error says that the relay speaks plain text, since OpenSSL's message only names a version."""
    async with Relay(Faults(auth=())) as server:
        with pytest.raises(ConnectFailed, match=r"^does not speak TLS on this port.* set EMAIL_SECURITY=starttls"):
            await dial_port(server.port, EMAIL_SECURITY="tls")


@pytest.mark.parametrize(
    ("security", "words"),
    [
        (
            "plain",
            (
                "connected, but no greeting after 0.2 s; is this an SMTP server? if this port speaks TLS from the "
                "first byte, as 465 does, set EMAIL_SECURITY=tls"
            ),
        ),
        ("tls", "no connection with TLS after 0.2 s; does it speak TLS here?"),
    ],
)
async def test_a_server_that_says_nothing(security: str, words: str) -> None:
    """The error says how far the dial came: a server that takes connections and is silent was connected to."""
    # The kernel takes the connection.
    with socket.create_server((HOST, 0)) as server, pytest.raises(ConnectFailed) as caught:
        await dial_port(server.getsockname()[1], EMAIL_SECURITY=security, EMAIL_TIMEOUT="0.2")
    assert str(caught.value) == words


async def test_a_relay_that_is_silent_later() -> None:
    """A relay that greets and does not answer EHLO was connected to, and the error says so."""
    async with Relay(Faults(auth=(), silent_at="EHLO")) as server:
        with pytest.raises(ConnectFailed, match=r"^connected, but no reply to a command after 0\.2 s$"):
            await dial_port(server.port, EMAIL_TIMEOUT="0.2")


async def test_a_relay_without_sign_in() -> None:
    """Where a relay offers no sign-in, the error speaks of no list of mechanisms."""
    async with Relay(Faults(auth=())) as server:
        with pytest.raises(ConnectFailed, match=r"^the relay offers no sign-in on this connection; if it needs none, "):
            await dial_port(server.port, EMAIL="user", APP_PASSWORD="secret")
