"""From the model to the messages of otpmail.v1 and back."""

import pytest
from google.protobuf.duration_pb2 import Duration

from otpmail.errors import InvalidArgument
from otpmail.model import Mail, MailState, Priority, RecipientResult, WaitFor
from otpmail.rpc import convert
from otpmail.v1 import mail_pb2, otp_pb2

MAIL = Mail("m1", "shop", "<m1@example.org>", 1_700_000_000.25, "r1")


def test_a_mail() -> None:
    """Every field has its place; the caller is not told who it is."""
    results = (RecipientResult("ada@example.org", 550, "5.1.1", "no"), RecipientResult("bob@example.org"))
    settled = Mail("m1", "shop", "<m@x>", 1.5, "r1", MailState.FAILED, results, 2, settle_time=2.5)
    message = convert.mail_message(settled)
    assert (message.id, message.message_id, message.request_id, message.attempts) == ("m1", "<m@x>", "r1", 2)
    assert message.state == mail_pb2.Mail.FAILED
    assert [(r.address, r.code, r.enhanced_code, r.reply) for r in message.recipients] == [
        ("ada@example.org", 550, "5.1.1", "no"),
        ("bob@example.org", 0, "", ""),
    ]
    assert message.create_time.ToMilliseconds() == 1500
    assert message.settle_time.ToMilliseconds() == 2500
    assert "shop" not in str(message)


def test_an_open_mail_has_no_settle_time() -> None:
    """Not the epoch: none."""
    assert not convert.mail_message(MAIL).HasField("settle_time")
    assert convert.mail_message(MAIL).create_time.ToMicroseconds() == 1_700_000_000_250_000


def test_a_time_is_the_nearest_microsecond() -> None:
    """Not the one before it, where the product falls short by the last bit."""
    assert convert.timestamp(0.000249).nanos == 249_000
    assert convert.timestamp(1_700_000_000.000001).nanos == 1000


@pytest.mark.parametrize("state", MailState)
def test_every_state_has_its_number(state: MailState) -> None:
    """By its name, none unspecified."""
    number = convert.mail_message(Mail("m", "c", "", 0.0, state=state)).state
    assert mail_pb2.Mail.State.Name(number) == state.name


@pytest.mark.parametrize(
    ("value", "priority"),
    [
        (mail_pb2.PRIORITY_UNSPECIFIED, Priority.NORMAL),
        (mail_pb2.PRIORITY_NORMAL, Priority.NORMAL),
        (mail_pb2.PRIORITY_BULK, Priority.BULK),
        (mail_pb2.PRIORITY_URGENT, Priority.URGENT),
    ],
)
def test_priorities(value: int, priority: Priority) -> None:
    """Unset is normal."""
    assert convert.priority(value) is priority


@pytest.mark.parametrize(
    ("value", "wait_for"),
    [
        (mail_pb2.WAIT_FOR_UNSPECIFIED, WaitFor.RELAY),
        (mail_pb2.WAIT_FOR_RELAY, WaitFor.RELAY),
        (mail_pb2.WAIT_FOR_QUEUE, WaitFor.QUEUE),
    ],
)
def test_what_is_waited_for(value: int, wait_for: WaitFor) -> None:
    """Unset is the relay's word."""
    assert convert.wait_for(value) is wait_for


@pytest.mark.parametrize("value", [-1, 4, 99])
def test_numbers_that_the_contract_lacks_are_refused(value: int) -> None:
    """proto3 lets any number through: here it is InvalidArgument with the field's name."""
    with pytest.raises(InvalidArgument, match=r"^priority: "):
        convert.priority(value)
    with pytest.raises(InvalidArgument, match=r"^wait_for: "):
        convert.wait_for(value)


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        (Duration(), 0.0),
        (Duration(seconds=90), 90.0),
        (Duration(seconds=1, nanos=500_000_000), 1.5),
        (Duration(seconds=-1), -1.0),
    ],
)
def test_durations(duration: Duration, seconds: float) -> None:
    """In seconds; whether that is a good ttl is the mail service's to say."""
    assert convert.seconds(duration) == pytest.approx(seconds)


@pytest.mark.parametrize("duration", [Duration(seconds=315_576_000_001), Duration(nanos=1_000_000_000)])
def test_what_is_no_duration_is_refused(duration: Duration) -> None:
    """Out of duration.proto's own range."""
    with pytest.raises(InvalidArgument, match=r"^ttl: "):
        convert.seconds(duration)


def test_a_fingerprint_is_the_content() -> None:
    """Equal requests have equal ones, whatever order their maps were filled in; any difference shows, the kind too."""
    headers = {f"X-{number}": str(number) for number in range(20)}
    one = mail_pb2.SendMailRequest(to=["a@x.org"], headers=headers)
    other = mail_pb2.SendMailRequest(to=["a@x.org"], headers=dict(reversed(headers.items())))
    assert convert.fingerprint(one) == convert.fingerprint(other)
    other.text = "x"
    assert convert.fingerprint(one) != convert.fingerprint(other)
    empty = {convert.fingerprint(kind()) for kind in (mail_pb2.GetMailRequest, otp_pb2.SendCodeRequest)}
    assert len(empty) == 2
