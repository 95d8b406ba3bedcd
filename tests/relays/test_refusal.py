"""The subjects of the replies that make dials fail and end connections."""

import asyncio
from collections.abc import Callable

import pytest

from otpmail.errors import ConnectFailed, SignInRefused
from otpmail.relays.refusal import failed_by, kind_of_error, read_reply
from otpmail.settings import RelaySettings
from otpmail.smtp.reply_kind import ReplyKind
from relay import HOST, Faults, Relay
from relays.dials import open_connection


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (421, "4.7.0 mail.example Error: too many connections from 192.0.2.1", ReplyKind.TOO_MANY_CONNECTIONS),
        (432, "4.3.2 Concurrent connections limit exceeded", ReplyKind.TOO_MANY_CONNECTIONS),
        (454, "4.7.0 Too many login attempts,\n4.7.0 please try again later.", ReplyKind.TOO_MANY_CONNECTIONS),
        (554, "5.7.1 no", ReplyKind.OTHER),
    ],
)
def test_a_failed_dial(code: int, message: str, kind: ReplyKind) -> None:
    """The reply that made a dial fail tells the number of connections from any other failure."""
    error = failed_by(read_reply(code, message), SignInRefused, "refused").reworded("192.0.2.1: refused")
    assert (type(error), str(error), error.code) == (SignInRefused, "192.0.2.1: refused", code)
    assert kind_of_error(error) is kind


def test_our_own_words_are_no_reply() -> None:
    """The text of an error without a reply says nothing, whatever numbers and words it holds."""
    assert kind_of_error(ConnectFailed("no greeting after 421 too many connections")) is ReplyKind.OTHER


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ("421 4.7.28 Our system has detected an unusual rate of mail", ReplyKind.TOO_FAST),
        ("421 4.7.0 too many connections", ReplyKind.TOO_MANY_CONNECTIONS),
        ("450 4.7.0 too many connections", ReplyKind.TOO_MANY_CONNECTIONS),  # unasked, and so the end as well
        ("421 4.4.2 timeout", ReplyKind.OTHER),
        (None, ReplyKind.OTHER),
    ],
)
async def test_the_end_of_a_connection(reply: str | None, kind: ReplyKind) -> None:
    """The reply with which a relay ends a connection tells whether too much came at once."""
    async with Relay(Faults(auth=())) as relay:
        make: Callable[..., RelaySettings] = RelaySettings
        settings = make(host=HOST, port=relay.port, security="plain", helo="test")
        connection = await open_connection(settings)
        lost = asyncio.Event()
        connection.watch(on_lost=lost.set, on_available=lambda: None)
        await relay.wait_for_idle(1)
        assert relay.drop_connections(reply) == 1
        await lost.wait()
        assert connection.parting_kind is kind
        await connection.close()
