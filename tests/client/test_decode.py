"""Answers of services that are newer or older than the client: values it does not know, and fields that are missing."""

import pickle
from datetime import UTC, datetime, timedelta
from math import ceil

import pytest

from otpmail import client as errors
from otpmail.client import Result, State, decode
from otpmail.v1 import address_pb2, mail_pb2, otp_pb2

_NEW = 77
"""A number that no enum of this version has."""


def _suppression(*octets: int) -> mail_pb2.Suppression:
    """Return a suppression with a reason and a scope of a newer contract: an assignment of its number may raise."""
    return mail_pb2.Suppression.FromString(b"\x0a\x03550" + bytes(octets))


_NEW_SCOPE = _suppression(mail_pb2.Suppression.SCOPE_FIELD_NUMBER << 3, _NEW)
_NEW_STATE = mail_pb2.Mail.FromString(bytes((mail_pb2.Mail.STATE_FIELD_NUMBER << 3, _NEW)))


def test_an_unknown_scope_is_unspecified() -> None:
    """A suppression of a scope that only a newer service knows can be read, of an address and in a mail."""
    assert decode.suppression(_NEW_SCOPE).scope == "UNSPECIFIED"
    kept = decode.address(address_pb2.GetAddressResponse(suppression=_NEW_SCOPE)).suppression
    assert kept is not None
    assert (kept.reason, kept.scope) == ("550", "UNSPECIFIED")
    recipient = mail_pb2.RecipientResult(address="ada@example.org", suppression=_NEW_SCOPE)
    assert decode.mail(mail_pb2.Mail(recipients=[recipient])).recipients[0].suppression == kept


def test_a_suppression_without_an_end() -> None:
    """A suppression that says no time for its end is raised all the same, with words that name no time."""
    recipient = mail_pb2.RecipientResult(address="ada@example.org", suppression=_suppression())
    error = decode.outcome(decode.mail(mail_pb2.Mail(state=mail_pb2.Mail.STATE_FAILED, recipients=[recipient])))
    assert isinstance(error, errors.Suppressed)
    assert (str(error), error.until) == ("nothing is sent to ada@example.org: 550", None)


def test_an_unknown_state_is_unspecified() -> None:
    """A mail of a state that only a newer service knows can be read, alone and in a stream, and is no error."""
    assert decode.mail(_NEW_STATE).state is State.UNSPECIFIED
    result = decode.result(mail_pb2.SendMailsResponse.Result(request_id="a", mail=_NEW_STATE))
    assert (result.request_id, result.error) == ("a", None)
    assert decode.sent_code(otp_pb2.SendCodeResponse(mail=_NEW_STATE)).mail.state is State.UNSPECIFIED


def test_an_unknown_result_is_not_valid() -> None:
    """The outcome of a check that only a newer service knows is no valid code."""
    octets = bytes((otp_pb2.ValidateCodeResponse.RESULT_FIELD_NUMBER << 3, _NEW))
    found = decode.checked(otp_pb2.ValidateCodeResponse.FromString(octets))
    assert found.result is Result.UNSPECIFIED
    assert not found
    assert isinstance(decode.not_valid(found), errors.NotValid)


def test_an_unknown_code_is_a_fault_of_the_service() -> None:
    """A mail of a stream that was refused with a code that gRPC does not know has an error."""
    result = decode.result(mail_pb2.SendMailsResponse.Result(request_id="a", code=_NEW, message="new"))
    assert isinstance(result.error, errors.ServiceError)


@pytest.mark.parametrize("kind", [errors.TooSoon, errors.Unavailable, errors.RelayDown, errors.Busy])
@pytest.mark.parametrize(
    ("text", "seconds", "words"),
    [
        ("full", 0.2, "full; try again in 1 s"),
        ("full", 41.5, "full; try again in 42 s"),
        ("full; try again in 5 s", 7, "full; try again in 5 s"),
        ("full", None, "full"),
    ],
)
def test_when_to_try_again(
    kind: type[errors.TooSoon | errors.Unavailable], text: str, seconds: float | None, words: str
) -> None:
    """The text of an error has the time to wait where it is known, once, and so has a copy of the error."""
    error = kind(text, retry_after=seconds)
    copied = pickle.loads(pickle.dumps(error))
    assert (str(error), error.retry_after) == (str(copied), copied.retry_after) == (words, seconds)


def test_when_to_try_again_after_too_many_attempts() -> None:
    """A check without attempts left says when a new code may be requested."""
    again = datetime.now(UTC) + timedelta(seconds=900)
    error = errors.TooManyAttempts("none left", retry_time=again)
    assert error.retry_after is not None
    assert str(error) == f"none left; try again in {ceil(error.retry_after)} s"
    assert 840 < error.retry_after <= 900
    assert str(errors.TooManyAttempts("none left", retry_time=None)) == "none left"
