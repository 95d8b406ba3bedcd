"""What the commands of codes print about an answer."""

from datetime import UTC, datetime, timedelta

import pytest

from otpmail.cli.code import _describe
from otpmail.v1 import otp_pb2


@pytest.mark.parametrize("seconds", [0.5, 0, -1, -86_400])
def test_a_new_code_that_may_be_sent_by_now(seconds: float) -> None:
    """A time that is over is not named: the person can have a new code at once."""
    assert _describe(_spent(seconds)) == "too many attempts, ask for a new code"


def test_a_new_code_that_may_be_sent_later() -> None:
    """A time to come is named, since a new code before it would be refused."""
    words = _describe(_spent(3600))
    assert words.startswith("too many attempts, a new code may be sent from 20")
    assert words.endswith(" UTC on")


def _spent(seconds: float) -> otp_pb2.ValidateCodeResponse:
    answer = otp_pb2.ValidateCodeResponse(result=otp_pb2.ValidateCodeResponse.RESULT_TOO_MANY_ATTEMPTS)
    answer.retry_time.FromDatetime(datetime.now(UTC) + timedelta(seconds=seconds))
    return answer
