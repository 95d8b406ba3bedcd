"""The log: which line an event makes, and in which form."""

import json
import logging
import re
import subprocess
import sys

import pytest

from otpmail.events import (
    AddressForgotten,
    AddressReleased,
    AddressSuppressed,
    CallRefused,
    CallsRefused,
    ChunkingDisabled,
    CodeChecked,
    CodesEvicted,
    ConnectionClosed,
    ConnectionLimitDropped,
    ConnectionLimitLearned,
    ConnectionOpened,
    DialFailed,
    Event,
    FixedCodeUsed,
    HeloRefused,
    IdleTimeDropped,
    IdleTimeLearned,
    LimitReached,
    MailAccepted,
    MailDeferred,
    MailSettled,
    MessageLimitDropped,
    MessageLimitLearned,
    RateLowered,
    RateRestored,
    RecipientLimitDropped,
    RecipientLimitLearned,
    RecipientSuppressed,
    RelayDown,
    RelayIdle,
    RelayUp,
    ResetRefused,
    SignInWanted,
    SuppressionLifted,
    SuppressionsEvicted,
    SuppressionsFull,
)
from otpmail.model import Mail, MailState, RecipientResult
from otpmail.suppression import Suppression, SuppressionScope
from otpmail.telemetry.formats import JsonFormatter
from otpmail.telemetry.logs import LogObserver, log_event


def _mail(state: MailState = MailState.QUEUED, code: int = 0) -> Mail:
    results = (RecipientResult("ada@example.org", code, "5.1.1" if code >= 500 else "", "said" if code else ""),)
    return Mail("m1", "shop", "<m1@example.org>", 1.0, state=state, recipients=results)


_SUPPRESSION = Suppression("550 5.1.1 <ada@example.org>", 1.0, 1_800_000_000.0)
_COMPLAINT = Suppression("spam", 1.0, 2.0, SuppressionScope.BULK)

_EVENTS: list[tuple[Event, str, int, str]] = [
    (RelayUp("r:465", "bdat", 16), "relay-up", logging.INFO, "r:465 is up: bdat mode, at most 16 mails in"),
    (DialFailed("r", "refused", 1.5), "dial-failed", logging.INFO, "relay r: dial failed, next dial in 1.5 s: refused"),
    (DialFailed("r", "refused", 1.5, repeated=True), "dial-failed", logging.DEBUG, "next dial in 1.5 s: refused"),
    (ChunkingDisabled("r:465"), "chunks-unsafe", logging.WARNING, "mails go by DATA"),
    (HeloRefused("504 5.5.2 <x>: no"), "helo-refused", logging.ERROR, "set EMAIL_HELO"),
    (SignInWanted("530 5.7.0 no"), "sign-in-wanted", logging.ERROR, "EMAIL, APP_PASSWORD and EMAIL_SECURITY"),
    (RecipientLimitLearned("r", 10), "recipient-limit-learned", logging.INFO, "r takes 10 recipients at once"),
    (RecipientLimitDropped("r"), "recipient-limit-dropped", logging.INFO, "r takes more recipients"),
    (ResetRefused("r"), "reset-refused", logging.WARNING, "r refuses RSET"),
    (MessageLimitLearned("r", 100), "message-limit-learned", logging.INFO, "r closes a connection after 100 mails"),
    (MessageLimitDropped("r", 1), "message-limit-dropped", logging.INFO, "r took more than 1 mail on a connection"),
    (ConnectionLimitLearned("r", 3, 5), "connection-limit-learned", logging.WARNING, "r takes 3 of 5 connections"),
    (ConnectionLimitLearned("r", 6, 5), "connection-limit-learned", logging.INFO, "r takes 6 of 5 connections"),
    (ConnectionLimitDropped("r", 3), "connection-limit-dropped", logging.INFO, "r takes more than 3 connections"),
    (RateLowered("r", 12.5, again=False), "rate-lowered", logging.WARNING, "it is sent 12.5 a second now"),
    (RateLowered("r", 6.25, again=True), "rate-lowered", logging.INFO, "it is sent 6.25 a second now"),
    (RateRestored("r"), "rate-restored", logging.INFO, "r takes mails as fast as before"),
    (IdleTimeLearned("r", 10.0), "idle-time-learned", logging.INFO, "r closes a connection after 10 s without a mail"),
    (IdleTimeDropped("r", 10.0), "idle-time-dropped", logging.INFO, "r let a connection be idle for longer than 10 s"),
    (RelayDown("r", "refused", 1.5), "relay-down", logging.ERROR, "r is down, no mail can be sent, next dial in"),
    (RelayIdle("r:465"), "relay-left", logging.INFO, "r:465 is not needed now"),
    (ConnectionOpened("r:465", "plain", 1), "connection-opened", logging.DEBUG, "plain mode"),
    (ConnectionClosed("r:465", "idle", 3, recycled=True), "connection-closed", logging.DEBUG, "after 3 mails: idle"),
    (ConnectionClosed("r:465", "lost", 1, recycled=False), "connection-closed", logging.DEBUG, "after 1 mail: lost"),
    (MailAccepted(_mail()), "mail-accepted", logging.DEBUG, "m1"),
    (
        MailDeferred(_mail(), 2.0, "451 4.7.1 greylisted"),
        "mail-deferred",
        logging.INFO,
        "next attempt in 2 s: 451 4.7.1 greylisted",
    ),
    (MailSettled(_mail(MailState.RELAYED, 250)), "mail-settled", logging.DEBUG, "relayed"),
    (MailSettled(_mail(MailState.FAILED, 550)), "mail-settled", logging.WARNING, ": 550 5.1.1 said"),
    (MailSettled(_mail(MailState.EXPIRED)), "mail-settled", logging.WARNING, "expired"),
    (MailSettled(_mail(MailState.CANCELLED)), "mail-settled", logging.INFO, "cancelled"),
    (
        CallRefused(
            "/s/M", "ipv4:127.0.0.1:9", "NOT_FOUND", "NOT_FOUND", "no mail for ada@example.org", "ada@example.org"
        ),
        "call-refused",
        logging.INFO,
        "call refused: /s/M from ipv4:127.0.0.1:9: NOT_FOUND address=a***@example.org: no mail for a***@example.org",
    ),
    (CallsRefused("/s/M", "A", "B", 12), "calls-refused", logging.INFO, "12 more calls were refused: /s/M: A B"),
    (CallsRefused("/s/M", "A", "A", 1), "calls-refused", logging.INFO, "1 more call was refused: /s/M: A"),
    (CallRefused("/s/M", "p", "A", "B", "said"), "call-refused", logging.INFO, "call refused: /s/M from p: A B: said"),
    (
        CallRefused("/s/M", "p", "A", "B", "said", caller="anonymous"),
        "call-refused",
        logging.INFO,
        "call refused: /s/M from p: A B: said",
    ),
    (
        CallRefused("/s/M", "p", "A", "B", "said", caller="shop"),
        "call-refused",
        logging.INFO,
        "call refused: /s/M by shop from p: A B: said",
    ),
    (CodeChecked("VALID"), "code-checked", logging.DEBUG, "VALID"),
    (
        RecipientSuppressed("m1", "shop", "ada@example.org", _SUPPRESSION),
        "recipient-suppressed",
        logging.WARNING,
        "mail m1: nothing sent to a***@example.org, suppressed until 2027-01-15T08:00:00Z: 550 5.1.1 <a***",
    ),
    (
        AddressSuppressed("shop", "ada@example.org", _SUPPRESSION, "m1"),
        "address-suppressed",
        logging.WARNING,
        "address a***@example.org is suppressed until 2027-01-15T08:00:00Z: 550 5.1.1",
    ),
    (
        SuppressionLifted("shop", "ada@example.org", _COMPLAINT),
        "suppression-lifted",
        logging.INFO,
        "address a***@example.org is no longer suppressed for bulk",
    ),
    (SuppressionsFull("shop", 9, repeated=False), "suppressions-full", logging.WARNING, "shop: 9 are known"),
    (
        SuppressionsEvicted("shop", "bank", 2, repeated=False),
        "suppressions-evicted",
        logging.WARNING,
        "no room: 2 suppressions of bank, which has most, gave way to one of shop",
    ),
    (SuppressionsEvicted("shop", "", 1, repeated=True), "suppressions-evicted", logging.DEBUG, "of another caller"),
    (SuppressionsFull("shop", 9, repeated=True), "suppressions-full", logging.DEBUG, "(SUPPRESSIONS_MAX)"),
    (
        CodesEvicted("shop", "bank", 2, repeated=False),
        "codes-evicted",
        logging.WARNING,
        "2 records of bank, which has",
    ),
    (CodesEvicted("shop", "", 1, repeated=True), "codes-evicted", logging.DEBUG, "1 record of another caller"),
    (LimitReached("block", "shop"), "limit-reached", logging.DEBUG, "limit block: refuses the caller shop"),
    (LimitReached("caller", "shop", 100), "limit-in-shadow", logging.INFO, "would refuse the caller shop"),
    (
        FixedCodeUsed("shop", "login", "ada@example.org", "WRONG_CODE"),
        "test-address-used",
        logging.INFO,
        "test address a***@example.org of the caller shop, purpose login: wrong_code",
    ),
    (LimitReached("caller", "shop", 80), "limit-near", logging.WARNING, "80 % of it is used up in an hour"),
    (
        AddressReleased("shop", "ada@example.org", ("OTP_SENDS_PER_HOUR 10 of 10", "OTP_SENDS_PER_DAY 12 of 30")),
        "address-released",
        logging.INFO,
        "a***@example.org: released by the caller shop: OTP_SENDS_PER_HOUR 10 of 10, OTP_SENDS_PER_DAY 12 of 30",
    ),
    (AddressReleased("shop", "ada@example.org", ()), "address-released", logging.INFO, "shop: nothing was spent"),
    (
        AddressForgotten("shop", "ada@example.org", 2),
        "address-forgotten",
        logging.INFO,
        "a***@example.org: forgotten for the caller shop, also in 2 settled mails",
    ),
]


@pytest.mark.parametrize(("event", "name", "level", "said"), _EVENTS)
def test_each_event_is_one_line(
    caplog: pytest.LogCaptureFixture, event: Event, name: str, level: int, said: str
) -> None:
    """Each event makes one line with a stable name, a level and a sentence, and without an address in full."""
    with caplog.at_level(logging.DEBUG, "otpmail"):
        LogObserver().notify(event)
    (record,) = caplog.records
    assert record.__dict__["event"] == name
    assert record.levelno == level
    assert said in record.getMessage()
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert "ada@example.org" not in line


def test_the_observer_counts_for_the_last_line() -> None:
    """The observer counts relayed mails, and those that failed, expired or are uncertain; cancelled is neither."""
    observer = LogObserver()
    for state in MailState:
        if state.final:
            observer.notify(MailSettled(_mail(state)))
    assert observer.relayed == 1
    assert observer.failed == 4


def test_only_the_last_relay_to_go_down_stops_all_mail(caplog: pytest.LogCaptureFixture) -> None:
    """The words "no mail can be sent" are logged only while all relays are down; an idle relay is not down."""
    observer = LogObserver(relays=2)
    first, second = (RelayDown(name, "refused", 1.5) for name in ("a", "b"))
    ups = RelayUp("a", "bdat", 16), RelayIdle("b")
    for event in (first, second, *ups, first, second):
        observer.notify(event)
    lines = [record.getMessage() for record in caplog.records if record.__dict__["event"] == "relay-down"]
    assert ["no mail can be sent" in line for line in lines] == [False, True, False, True]
    assert lines[2] == "relay a is down, next dial in 1.5 s: refused"


def test_a_relay_that_was_never_up_has_advice(caplog: pytest.LogCaptureFixture) -> None:
    """The line of a relay that the service has not reached since its start names `otpmail check`, and no later one."""
    observer = LogObserver()
    for event in (RelayDown("a", "refused", 1.5), RelayUp("a", "bdat", 16), RelayDown("a", "refused", 1.5)):
        observer.notify(event)
    lines = [record.getMessage() for record in caplog.records if record.__dict__["event"] == "relay-down"]
    assert [line.partition("s: ")[2] for line in lines] == ["refused; otpmail check says what to change", "refused"]


@pytest.mark.parametrize("error", ["no address is known for a; check EMAIL_HOST or EMAIL_RELAYS", "set APP_PASSWORD"])
def test_an_error_that_names_a_setting_has_no_other_advice(caplog: pytest.LogCaptureFixture, error: str) -> None:
    """An error that says what to change stands alone, also at the start."""
    LogObserver().notify(RelayDown("a", error, 1.5))
    (line,) = [record.getMessage() for record in caplog.records if record.__dict__["event"] == "relay-down"]
    assert line.endswith(f"next dial in 1.5 s: {error}")


@pytest.mark.parametrize("kind", [RelayDown, DialFailed])
def test_an_error_of_a_relay_names_no_mailbox(
    caplog: pytest.LogCaptureFixture, kind: type[RelayDown | DialFailed]
) -> None:
    """The mailbox that signs in is shown as LOG_ADDRESSES says, in each line about a relay and in its fields."""
    error = "r: the relay refused to sign shop@example.org in: 535 5.7.8 no"
    with caplog.at_level(logging.INFO, "otpmail"):
        LogObserver().notify(kind("r", error, 1.5))
        LogObserver(addresses="full").notify(kind("r", error, 1.5))
    masked, full = caplog.records
    assert "sign s***@example.org in" in masked.getMessage()
    assert masked.__dict__["fields"]["error"] == "r: the relay refused to sign s***@example.org in: 535 5.7.8 no"
    assert "shop@" not in str(masked.__dict__)
    assert "sign shop@example.org in" in full.getMessage()


def test_no_record_is_made_below_the_level(caplog: pytest.LogCaptureFixture) -> None:
    """`log_event` makes no record below the level that is set."""
    with caplog.at_level(logging.INFO, "otpmail"):
        log_event(logging.DEBUG, "quiet", "quiet")
        log_event(logging.INFO, "loud", "loud", number=1)
    (record,) = caplog.records
    assert (record.__dict__["event"], record.__dict__["fields"]) == ("loud", {"number": 1})


_SET_UP = """
import sys, threading, warnings, logging
from otpmail.telemetry.logs import log_event, set_up

set_up({log_format!r}, "info")
log_event(logging.INFO, "started", "up")
log_event(logging.DEBUG, "detail", "hidden")
logging.getLogger("library").info("hidden")
logging.getLogger("library").warning("shown")
logging.getLogger("library").warning("%d", "no number")
warnings.warn("a warning")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
raise ValueError("the \\x1b[31m end")
"""


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_all_that_is_logged_goes_through_the_one_log(log_format: str) -> None:
    """Libraries' records, warnings and uncaught exceptions are lines of the log, in its form and in their order.

    A record that can't be formatted is a line that says where it was made.
    """
    command = (sys.executable, "-Walways", "-c", _SET_UP.format(log_format=log_format))
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert (ended.returncode, ended.stdout) == (1, "")
    if log_format == "json":
        lines = [json.loads(line) for line in ended.stderr.splitlines()]
        messages, exceptions = [line["message"] for line in lines], [line.get("exception", "") for line in lines]
    else:
        messages = [line for line in ended.stderr.splitlines() if not line.startswith("  ")]
        exceptions = re.split(r"(?m)^\d{4}-\S+ ", ended.stderr)[1:]
        assert ended.stderr.replace("\n", "").isprintable()
    expected = ("up", "shown", "can't be formatted", "a warning", "nothing caught", "nothing caught")
    assert len(messages) == len(expected), ended.stderr
    assert all(words in message for words, message in zip(expected, messages, strict=True)), ended.stderr
    assert "ZeroDivisionError" in exceptions[4]
    assert "ValueError: the " in exceptions[5]
