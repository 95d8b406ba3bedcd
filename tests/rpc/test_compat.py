"""The original contract's services, where a use case's end has to be said in its words."""

from types import SimpleNamespace
from typing import Any

import pytest

from counting import CountingCooperator
from drafts import LIMITS, read_draft
from otpmail.api.status import Code, status_of
from otpmail.callers import Call
from otpmail.compose.draft import LARGE
from otpmail.mail.submission import Submission
from otpmail.model import Mail, MailState, RecipientResult
from otpmail.original import mail_pb2
from otpmail.rpc.compat import CompatMailServicer, _failure

REFUSED = RecipientResult("ada@example.org", 550, "5.1.1", "no such user")
DEFERRED = RecipientResult("ada@example.org", 451, "", "later")


@pytest.mark.parametrize(
    ("state", "result", "code", "words"),
    [
        (MailState.FAILED, REFUSED, Code.FAILED_PRECONDITION, "refused the mail: 550 5.1.1 no such user"),
        (MailState.FAILED, DEFERRED, Code.UNAVAILABLE, "could not be sent; try again later: 451 later"),
        (
            MailState.EXPIRED,
            RecipientResult("ada@example.org"),
            Code.UNAVAILABLE,
            "in time; try again later: the relay gave no",
        ),
        (MailState.CANCELLED, None, Code.UNAVAILABLE, "was cancelled before it was sent"),
        (
            MailState.UNCERTAIN,
            REFUSED,
            Code.UNAVAILABLE,
            "may send it twice: 550 5.1.1 no such user",
        ),
    ],
)
def test_the_error_for_a_mail_that_was_not_sent(
    state: MailState, result: RecipientResult | None, code: Code, words: str
) -> None:
    """Only a permanent rejection is FAILED_PRECONDITION, and only if no earlier copy may have arrived."""
    status = status_of(_failure(Mail("m", "c", "<m@x>", 1.0, state=state, recipients=(result,) if result else ())))
    assert status.code is code
    assert words in status.message


@pytest.mark.parametrize(("length", "pieces"), [(LARGE, 0), (LARGE + 1, 1)])
async def test_a_large_mail_is_checked_in_steps(length: int, pieces: int) -> None:
    """A large mail of the original contract is checked in steps too, and the mail is sent as any other."""
    sent: list[Submission] = []

    async def send(_call: Call, submission: Submission) -> Mail:
        sent.append(submission)
        return Mail("m", "c", "<m@x>", 1.0, state=MailState.RELAYED)

    cooperator = CountingCooperator()
    mails: Any = SimpleNamespace(limits=LIMITS, send=send, cooperator=cooperator)
    context: Any = SimpleNamespace(peer=lambda: "unix:", time_remaining=lambda: None)
    request = mail_pb2.SendEmailRequest(to="Ada <ada@example.org>", subject="s", body="x" * length)
    answer = await CompatMailServicer(mails).SendMail(request, context)
    assert answer.status == mail_pb2.SUCCESS
    assert len(cooperator.steps) == pieces
    assert sent == [Submission(draft=read_draft(to=("Ada <ada@example.org>",), subject="s", text="x" * length))]
