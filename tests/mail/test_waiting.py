"""How long a caller waits, and what it is answered where its deadline comes first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpmail.mail.waiting import deadline_exceeded, wait_until_deadline
from otpmail.model import Mail, MailState, RecipientResult

DEFERRED = RecipientResult("ada@example.org", 451, "4.3.0", "later")
TAKEN = RecipientResult("bob@example.org", 250, "2.0.0", "ok")


@given(st.floats(0, 1e6))
def test_the_answer_comes_before_the_deadline(left: float) -> None:
    """A call is answered at half of a short time, 0.05 s and a tenth before the end of a longer one, or less early."""
    wait = wait_until_deadline(left)
    assert 0 <= wait <= left
    assert left - wait == pytest.approx(min(left / 2, 0.05 + left / 10, 0.2 + left / 100), abs=1e-6)


def test_a_deadline_that_has_passed_leaves_nothing_to_wait() -> None:
    """No call waits a negative time."""
    assert wait_until_deadline(-1.0) == 0.0


@pytest.mark.parametrize(
    ("state", "recipients", "words"),
    [
        (MailState.QUEUED, (), "mail m1 was relayed: it is still queued; the relay has not replied"),
        (MailState.SENDING, (), "it is with the relay, and GetMail returns how it ends; the relay has not replied"),
        (MailState.CANCELLED, (DEFERRED,), "it is cancelled; the relay's last reply was: 451 4.3.0 later"),
        (MailState.PARTIAL, (TAKEN, DEFERRED), "it is partial; the relay's last reply was: 451 4.3.0 later"),
        (MailState.QUEUED, (RecipientResult("x@y.z"), TAKEN), "the relay's last reply was: 250 2.0.0 ok"),
    ],
)
def test_the_error_names_the_mail_its_state_and_the_last_reply(
    state: MailState, recipients: tuple[RecipientResult, ...], words: str
) -> None:
    """The error has the mail's id, its state, and the relay's reply for a recipient that it has not accepted."""
    error = deadline_exceeded(Mail("m1", "c", "<m1@x>", 1.0, state=state, recipients=recipients))
    assert error.mail_id == "m1"
    assert str(error).endswith(words)
