"""The subjects of the words in errors, from failed dials and from the ends of connections."""

import pytest

from otpmail.errors import ConnectFailed
from otpmail.relays.refusal import kind_of_end, kind_of_error
from otpmail.smtp.reply_kind import ReplyKind


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("421 4.7.0 mail.example Error: too many connections from 192.0.2.1", ReplyKind.TOO_MANY_CONNECTIONS),
        ("signing in failed for now: 432 4.3.2 Concurrent connections limit exceeded", ReplyKind.TOO_MANY_CONNECTIONS),
        ("454 4.7.0 Too many login attempts, please try again later.", ReplyKind.TOO_MANY_CONNECTIONS),
        ("554 5.7.1 no", ReplyKind.OTHER),
        ("cannot connect: Connection refused", ReplyKind.OTHER),
    ],
)
def test_a_failed_dial(words: str, kind: ReplyKind) -> None:
    """The reply in the error tells the number of connections from any other failure."""
    assert kind_of_error(ConnectFailed(words)) is kind


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        ("the relay said: 421 4.7.28 Our system has detected an unusual rate of mail", ReplyKind.TOO_FAST),
        ("the relay said unasked: 421 4.7.0 too many connections", ReplyKind.TOO_MANY_CONNECTIONS),
        ("the relay said: 421 4.4.2 timeout", ReplyKind.OTHER),
        ("connection lost", ReplyKind.OTHER),
        ("", ReplyKind.OTHER),
    ],
)
def test_the_end_of_a_connection(cause: str, kind: ReplyKind) -> None:
    """The goodbye in the cause tells whether too much came at once."""
    assert kind_of_end(cause) is kind
