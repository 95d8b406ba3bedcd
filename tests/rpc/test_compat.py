"""The original contract's services, where a use case's end has to be said in its words."""

import grpc
import pytest

from otpmail.model import Mail, MailState, RecipientResult
from otpmail.rpc.compat import _failure
from otpmail.rpc.status import status_of

REFUSED = RecipientResult("ada@example.org", 550, "5.1.1", "no such user")
DEFERRED = RecipientResult("ada@example.org", 451, "", "later")


@pytest.mark.parametrize(
    ("state", "result", "code", "words"),
    [
        (MailState.FAILED, REFUSED, grpc.StatusCode.FAILED_PRECONDITION, "refused the mail: 550 5.1.1 no such user"),
        (MailState.FAILED, DEFERRED, grpc.StatusCode.UNAVAILABLE, "(failed): 451 later"),
        (MailState.EXPIRED, RecipientResult("ada@example.org"), grpc.StatusCode.UNAVAILABLE, "gave no answer"),
        (MailState.UNCERTAIN, REFUSED, grpc.StatusCode.UNAVAILABLE, "(uncertain): 550 5.1.1 no such user"),
    ],
)
def test_why_a_mail_did_not_leave(state: MailState, result: RecipientResult, code: grpc.StatusCode, words: str) -> None:
    """Only a refusal for good is FAILED_PRECONDITION; where an earlier copy may have arrived it is none."""
    status = status_of(_failure(Mail("m", "c", "<m@x>", 1.0, state=state, recipients=(result,))))
    assert status.code is code
    assert words in status.message
