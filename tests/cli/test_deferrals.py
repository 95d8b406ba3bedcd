"""The words of a command about a mail that the relay has deferred."""

import pytest

from otpmail.cli.deferrals import deferral
from otpmail.cli.output import spoken
from otpmail.v1 import mail_pb2

_NOW = 1_700_000_000.0


def _mail(state: mail_pb2.Mail.State.ValueType, *, seconds: int = 0, reply: str = "") -> mail_pb2.Mail:
    mail = mail_pb2.Mail(state=state)
    if seconds:
        mail.next_attempt_time.seconds = int(_NOW) + seconds
    if reply:
        mail.recipients.append(mail_pb2.RecipientResult(address="ada@example.org", code=451, reply=reply))
    return mail


def test_a_deferral_has_the_reply_and_the_time() -> None:
    """A deferred mail has the relay's words and the time until the next attempt, at least a second."""
    mail = _mail(mail_pb2.Mail.STATE_QUEUED, seconds=300, reply="later")
    assert deferral(mail, lambda: _NOW) == "deferred by the relay: 451 later; the next attempt is in 5 minutes"
    lost = _mail(mail_pb2.Mail.STATE_QUEUED, seconds=1)
    told = "deferred by the relay: the connection was lost; the next attempt is in 1 second"
    assert deferral(lost, lambda: _NOW + 5) == told


@pytest.mark.parametrize(
    ("seconds", "words"), [(7199, "2 hours"), (7200, "2 hours"), (7201, "3 hours"), (10_790, "3 hours")]
)
def test_no_attempt_comes_later_than_is_said(seconds: int, words: str) -> None:
    """A wait of hours is rounded up, and the life of a code down."""
    mail = _mail(mail_pb2.Mail.STATE_QUEUED, seconds=seconds, reply="later")
    assert deferral(mail, lambda: _NOW).endswith(f" in {words}")


@pytest.mark.parametrize(
    "state", [mail_pb2.Mail.STATE_QUEUED, mail_pb2.Mail.STATE_SENDING, mail_pb2.Mail.STATE_RELAYED]
)
def test_no_other_state_is_a_deferral(state: mail_pb2.Mail.State.ValueType) -> None:
    """A mail that waits for its first attempt, is under way, or has settled is no deferral."""
    assert deferral(_mail(state, reply="said"), lambda: _NOW) == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 seconds"),
        (1, "1 second"),
        (59.6, "1 minute"),
        (90, "90 seconds"),
        (119.9999, "2 minutes"),
        (599.99, "10 minutes"),
        (7200, "2 hours"),
    ],
)
def test_a_time_in_words(seconds: float, words: str) -> None:
    """A time is seconds, minutes or hours, as a person would say it."""
    assert spoken(seconds) == words
