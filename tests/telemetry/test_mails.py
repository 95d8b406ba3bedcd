"""The line of the log about each settled mail."""

import pytest

from otpmail.events import MailSettled
from otpmail.model import Challenge, IssuedCode, Mail, MailState, RecipientResult
from otpmail.telemetry.logs import LogObserver
from otpmail.telemetry.mails import LoggedMails, MailLines

_CODE = IssuedCode(Challenge(bytes(16), "k1", 9.0), 9.0)
_FAILED = [state for state in MailState if state.final and state is not MailState.RELAYED]


def _mail(state: MailState, *results: RecipientResult, issued: IssuedCode | None = None, request_id: str = "") -> Mail:
    return Mail(
        *("m1", "shop", "<m1@example.org>", 1.0, request_id),
        state=state,
        recipients=results,
        attempts=2,
        settle_time=1.25,
        issued=issued,
    )


def _accepted(address: str, reply: str = "Ok: queued as 4AB12") -> RecipientResult:
    return RecipientResult(address, 250, "2.0.0", reply)


@pytest.mark.parametrize(
    ("logged", "code", "other", "failed"),
    [("all", True, True, True), ("codes", True, False, True), ("failed", False, False, True), ("off", *[False] * 3)],
)
def test_log_mails_says_which_mails_have_a_line(
    caplog: pytest.LogCaptureFixture, logged: LoggedMails, *, code: bool, other: bool, failed: bool
) -> None:
    """Each value of LOG_MAILS names mails: all, codes and what failed, what failed, or none."""
    caplog.set_level("INFO", "otpmail")
    observer = LogObserver(mails=logged)

    def has_line(state: MailState, issued: IssuedCode | None) -> bool:
        caplog.clear()
        observer.notify(MailSettled(_mail(state, issued=issued)))
        return bool(caplog.records)

    assert has_line(MailState.RELAYED, _CODE) is code
    assert has_line(MailState.RELAYED, None) is other
    assert {has_line(state, issued) for state in _FAILED for issued in (None, _CODE)} == {failed}


def test_the_line_of_a_code_says_where_it_went() -> None:
    """A line names mail, address, relay, the relay's id, attempts, time and request id, as text and as fields."""
    mail = _mail(MailState.RELAYED, _accepted("ada@example.org"), issued=_CODE, request_id="r 1")
    _, text, fields = MailLines().line(MailSettled(mail, relay="relay:465"))
    assert text == (
        'mail m1: code relayed to=a***@example.org relay=relay:465 queue_id=4AB12 attempts=2 ms=250 request_id="r 1"'
    )
    assert fields == {
        "mail": "m1",
        "state": "RELAYED",
        "code": True,
        "to": "a***@example.org",
        "relay": "relay:465",
        "queue_id": "4AB12",
        "attempts": 2,
        "ms": 250,
        "request_id": "r 1",
    }


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ([RecipientResult("a", 550, "5.1.1", "no such user")], ": 550 5.1.1 no such user"),
        ([RecipientResult("a", reply="the service stopped")], ": the service stopped"),
        ([RecipientResult("a")], "ms=250"),
        ([RecipientResult("a", reply="closed"), RecipientResult("b", reply="closed")], ": closed"),
        ([RecipientResult("a", 550, reply="no"), _accepted("b")], "queue_id=4AB12 attempts=2 ms=250: 550 no"),
        ([RecipientResult("ada@b.org", 550, reply="<Ada@b.org>: unknown")], ": 550 <A***@b.org>: unknown"),
        ([RecipientResult("a", 550, reply="see ada@b.org.")], ": 550 see a***@b.org."),
        ([RecipientResult("a", 550, reply='"ada b"@b.org is unknown')], "b***@b.org is unknown"),
    ],
)
def test_the_line_of_a_failed_mail_has_the_replies(results: list[RecipientResult], said: str) -> None:
    """A failed mail's line repeats the last replies, with addresses as LOG_ADDRESSES says."""
    _, text, _ = MailLines().line(MailSettled(_mail(MailState.FAILED, *results)))
    assert text.endswith(said)


def test_a_mail_for_many_names_a_few() -> None:
    """A mail for many has the first addresses, the number of others, and the id of each transaction once."""
    results = [_accepted(f"{name}@example.org", f"OK id=1abc-{name in 'abc'}") for name in "abcdefgh"]
    _, text, _ = MailLines().line(MailSettled(_mail(MailState.RELAYED, *results)))
    assert "to=a***@example.org,b***@example.org,c***@example.org,d***@example.org,e***@example.org,+3 " in text
    assert "queue_id=1abc-True,1abc-False " in text


def test_no_value_can_look_like_another() -> None:
    """A request id with blanks or quotes stands in quotes, so that it forges no part of the line."""
    mail = _mail(MailState.RELAYED, _accepted("ada@example.org"), request_id='x ms=1 "y"')
    assert MailLines().line(MailSettled(mail)).sentence.endswith(r'request_id="x ms=1 \"y\""')
