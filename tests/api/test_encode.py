"""The encoder: the model as messages of otpmail.v1."""

from dataclasses import replace

import pytest

from otpmail.api import encode
from otpmail.model import Mail, MailState, RecipientResult
from otpmail.v1 import mail_pb2

MAIL = Mail("m1", "shop", "<m1@example.org>", 1_700_000_000.25, "r1")


def test_a_mail() -> None:
    """Every field has its place, except the caller: its name is for the service alone."""
    results = (RecipientResult("ada@example.org", 550, "5.1.1", "no"), RecipientResult("bob@example.org"))
    settled = Mail("m1", "shop", "<m@x>", 1.5, "r1", MailState.FAILED, results, 2, 2.5, labels=(("a", "1"), ("b", "")))
    message = encode.mail_message(settled)
    assert (message.id, message.message_id, message.request_id, message.attempts) == ("m1", "<m@x>", "r1", 2)
    assert message.state == mail_pb2.Mail.STATE_FAILED
    assert [(r.address, r.code, r.enhanced_code, r.reply) for r in message.recipients] == [
        ("ada@example.org", 550, "5.1.1", "no"),
        ("bob@example.org", 0, "", ""),
    ]
    assert message.create_time.ToMilliseconds() == 1500
    assert message.settle_time.ToMilliseconds() == 2500
    assert dict(message.labels) == {"a": "1", "b": ""}
    assert "shop" not in str(message)


def test_an_open_mail_has_no_settle_time() -> None:
    """The settle time of a mail that has not settled is unset, not the epoch."""
    assert not encode.mail_message(MAIL).HasField("settle_time")
    assert encode.mail_message(MAIL).create_time.ToMicroseconds() == 1_700_000_000_250_000


def test_only_a_deferred_mail_has_a_next_attempt() -> None:
    """The time of the next attempt is unset unless the mail is deferred."""
    assert not encode.mail_message(MAIL).HasField("next_attempt_time")
    deferred = encode.mail_message(replace(MAIL, next_attempt_time=1_700_000_002.5))
    assert deferred.next_attempt_time.ToMilliseconds() == 1_700_000_002_500


def test_a_time_is_the_nearest_microsecond() -> None:
    """Seconds are rounded to the nearest microsecond, not cut to the one before."""
    assert encode.timestamp(0.000249).nanos == 249_000
    assert encode.timestamp(1_700_000_000.000001).nanos == 1000


@pytest.mark.parametrize("state", MailState)
def test_every_state_has_its_number(state: MailState) -> None:
    """Each state has the number of its name, and none is unspecified."""
    number = encode.mail_message(Mail("m", "c", "", 0.0, state=state)).state
    assert mail_pb2.Mail.State.Name(number) == f"STATE_{state.name}"
