"""A session learns that a relay takes few recipients at once, or refuses RSET, and keeps to it from then on."""

from collections.abc import Callable

import pytest

from otpmail.errors import ConnectionLost
from otpmail.model import Envelope
from otpmail.smtp.capabilities import Capabilities
from otpmail.smtp.habits import Habits
from otpmail.smtp.mode import Mode
from otpmail.smtp.recipient_limit import RecipientLimit
from otpmail.smtp.session import Session
from otpmail.smtp.transaction import GROUP, Due, Results, Transaction

OK, FULL, RESET_REFUSED = b"250 2.0.0 ok\r\n", b"452 4.5.3 Error: too many recipients\r\n", b"502 5.5.1 no RSET\r\n"
_ALL = {"PIPELINING": "", "CHUNKING": ""}


def _session(mode: Mode = Mode.BDAT, habits: Habits | None = None, **extensions: str) -> Session:
    return Session(Capabilities(_ALL | extensions), mode, window=16, habits=habits)


def _mail(recipients: int = 1, domains: int = 1) -> Envelope:
    people = tuple(f"p{n}@d{n % domains}.example" for n in range(recipients))
    return Envelope("a@x.org", people, b"Subject: s\r\n\r\n")


def _talk(session: Session, envelope: Envelope, *replies: bytes) -> Transaction:
    """Send a mail, and have each command answered when it has left."""
    transaction = session.begin(envelope)
    for reply in replies:
        session.take(1 << 20)
        session.receive(reply)
    return transaction


def _results(transaction: Transaction) -> Results:
    assert isinstance(transaction.outcome, tuple)
    return transaction.outcome


# Any positive reply.


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("code", [250, 251, 252, 200, 211, 220, 299])
def test_the_first_digit_says_yes(mode: Mode, code: int) -> None:
    """Any 2yz to MAIL, RCPT or the content accepts, since a client goes by the first digit (RFC 5321, 4.2.1)."""
    yes = b"%d fine\r\n" % code
    go_ahead = () if mode is Mode.BDAT else (b"354 go\r\n",)
    end = () if mode is Mode.PLAIN else (OK,)
    session = _session(mode)
    transaction = _talk(session, _mail(), yes, yes, *go_ahead, yes, *end)
    assert [result.code for result in _results(transaction)] == [code]
    assert (session.ended, session.sent, session.is_available) == ("", 1, True)


@pytest.mark.parametrize(
    "goodbye", [(FULL, b"421 4.7.0 Error: too many errors\r\n"), (b"421 4.5.3 too many recipients, closing\r\n",)]
)
@pytest.mark.parametrize("mode", [Mode.BDAT, Mode.DATA, Mode.PLAIN])
def test_a_relay_that_closes_over_the_recipients_beyond_its_limit(mode: Mode, goodbye: tuple[bytes, ...]) -> None:
    """The limit is learned from a connection that ends amid the replies to RCPT, and the mail goes again at once."""
    habits = Habits()
    session = _session(mode, habits)
    transaction = _talk(session, _mail(6), OK, OK, OK, *goodbye)
    session.end("the relay closed the connection")
    assert isinstance(transaction.outcome, ConnectionLost)
    assert (transaction.outcome.not_started, transaction.outcome.uncertain) == (True, False)
    assert habits.recipients.known == 2
    assert len(_session(mode, habits).begin(_mail(6)).envelope.recipients) == 2


def test_a_goodbye_that_is_about_something_else_says_nothing_of_the_recipients() -> None:
    """A relay that shuts down amid the replies to RCPT has no limit for that."""
    habits = Habits()
    session = _session(habits=habits)
    transaction = _talk(session, _mail(6), OK, OK, OK, b"421 4.3.2 Service shutting down\r\n")
    session.end("the relay closed the connection")
    assert isinstance(transaction.outcome, ConnectionLost)
    assert not transaction.outcome.not_started
    assert habits.recipients.known is None


@pytest.mark.parametrize("mode", [Mode.DATA, Mode.PLAIN])
def test_only_354_asks_for_the_content(mode: Mode) -> None:
    """A 2yz to DATA is not one of its replies (RFC 5321, 4.3.2), so commands and replies may be out of step."""
    session = _session(mode)
    transaction = _talk(session, _mail(), OK, OK, OK)
    session.end("")
    assert session.ended
    assert isinstance(transaction.outcome, ConnectionLost)


# Recipients.


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("full", [FULL, b"552 too many recipients\r\n", b"552\r\n"])
def test_recipients_beyond_the_limit_have_no_result(mode: Mode, full: bytes) -> None:
    """A recipient that is one too many after others is not decided on, and the next mail keeps to the limit."""
    session = _session(mode)
    go_ahead = () if mode is Mode.BDAT else (b"354 go\r\n",)
    end = () if mode is Mode.PLAIN else (OK,)
    transaction = _talk(session, _mail(5), OK, OK, OK, full, full, full, *go_ahead, OK, *end)
    assert [result.address for result in _results(transaction)] == ["p0@d0.example", "p1@d0.example"]
    assert all(result.accepted for result in _results(transaction))
    assert len(session.begin(_mail(5)).envelope.recipients) == 2
    assert session.begin(_mail(1)).envelope.recipients == ("p0@d0.example",)


def test_refused_recipients_before_the_limit_keep_their_reply() -> None:
    """A refusal for another reason stands, before and behind the limit; the limit is how many were accepted."""
    session = _session()
    refused = b"550 5.1.1 no such user\r\n"
    transaction = _talk(session, _mail(6), OK, refused, OK, OK, FULL, refused, FULL, OK, OK)
    assert [(result.address[:2], result.code) for result in _results(transaction)] == [
        *(("p0", 550), ("p1", 250), ("p2", 250), ("p4", 550)),
    ]
    assert len(session.begin(_mail(6)).envelope.recipients) == 2


def test_a_first_recipient_is_never_one_too_many() -> None:
    """452 4.5.3 to the only recipient of a transaction is a deferral like another, so no mail goes round for ever."""
    session = _session()
    assert [result.code for result in _results(_talk(session, _mail(), OK, FULL, FULL, OK))] == [452]
    assert [result.code for result in _results(_talk(session, _mail(2), OK, FULL, FULL, FULL, OK))] == [452, 452]
    assert len(session.begin(_mail(2)).envelope.recipients) == 2


def test_a_full_mailbox_between_others_is_no_limit() -> None:
    """A 552 that says why it is about that recipient is final, and others behind one show that there is no limit."""
    session = _session()
    full = b"552 5.2.2 mailbox full\r\n"
    assert [r.code for r in _results(_talk(session, _mail(3), OK, OK, full, OK, OK, OK))] == [250, 552, 250]
    transaction = _talk(session, _mail(3), OK, OK, b"552\r\n", OK, OK, OK)
    assert [r.code for r in _results(transaction)] == [250, 250]
    assert len(session.begin(_mail(3)).envelope.recipients) == 3


def test_a_content_that_is_refused_for_its_recipients_goes_to_half_of_them() -> None:
    """SES counts the recipients at the content: nobody of that transaction is decided on."""
    session = _session()
    refusal = b"554 Transaction failed: Recipient count exceeds 2.\r\n"
    transaction = _talk(session, _mail(5), *[OK] * 6, refusal, OK)
    assert transaction.outcome == ()
    assert len(session.begin(_mail(5)).envelope.recipients) == 2
    one = _session()
    assert [result.code for result in _results(_talk(one, _mail(1), OK, OK, refusal, OK))] == [554]


def test_a_content_refused_for_another_reason_is_refused_for_all_that_were_taken() -> None:
    """The recipients that were too many are still to be asked about in a transaction of their own."""
    session = _session()
    transaction = _talk(session, _mail(3), OK, OK, OK, FULL, b"554 5.7.1 spam\r\n", OK)
    assert [result.code for result in _results(transaction)] == [554, 554]


def test_a_goodbye_behind_a_limit_decides_nothing() -> None:
    """421 to the content of those that were taken is a lost connection, whatever was said to the others."""
    session = _session()
    transaction = _talk(session, _mail(2), OK, OK, FULL, b"421 4.3.2 bye\r\n")
    session.end("closed")
    assert isinstance(transaction.outcome, ConnectionLost)
    assert not transaction.outcome.uncertain


@pytest.mark.parametrize(
    ("limits", "count"), [("RCPTMAX=3", 3), ("RCPTMAX=500", GROUP), ("RCPTDOMAINMAX=2", 68), ("", GROUP)]
)
def test_announced_limits(limits: str, count: int) -> None:
    """A transaction keeps to RCPTMAX and RCPTDOMAINMAX (RFC 9422), and to GROUP recipients in any case."""
    session = _session(LIMITS=limits)
    people = session.begin(_mail(GROUP + 1, domains=3)).envelope.recipients
    assert len(people) == count
    if "DOMAIN" in limits:
        assert {address.partition("@")[2] for address in people} == {"d0.example", "d1.example"}


def test_the_limit_is_shared_by_the_sessions_with_one_relay() -> None:
    """The others keep to what one connection has learned."""
    habits = Habits()
    first, second = _session(habits=habits), _session(habits=habits)
    _talk(first, _mail(3), OK, OK, OK, FULL, OK, OK)
    assert len(second.begin(_mail(3)).envelope.recipients) == 2


class _Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_limit_is_reviewed() -> None:
    """Ten minutes later one transaction goes past the limit; the next review comes later where it still holds."""
    clock, changes = _Clock(), list[int | None]()
    limit = RecipientLimit(clock, changes.append)
    limit.reached(10)
    tried = []
    for seconds in (599, 1, 0, 1199, 1):
        clock.now += seconds
        tried.append(limit.most(60))
        if tried[-1] > 10:
            limit.reached(10)
    assert tried == [10, 60, 10, 10, 60]
    assert (limit.most(7), changes) == (7, [10])


def test_a_limit_that_was_lifted_is_dropped() -> None:
    """A relay that takes more than before has another limit, or none; one that takes fewer has a lower one."""
    clock, changes = _Clock(), list[int | None]()
    limit = RecipientLimit(clock, changes.append)
    limit.reached(10)
    limit.took(10)
    assert limit.most(60) == 10
    clock.now += 600
    assert limit.most(60) == 60
    limit.took(60)
    assert limit.most(500) == GROUP
    limit.reached(20)
    limit.reached(5)
    assert changes == [10, None, 20, 5]


def test_a_limit_that_comes_and_goes_is_tried_less_often() -> None:
    """Each time that a dropped limit is there again the next review comes later, up to once an hour."""
    clock, changes = _Clock(), list[int | None]()
    limit = RecipientLimit(clock, changes.append)
    waits = []
    for _ in range(5):
        limit.reached(10)
        before = clock.now
        while limit.most(60) == 10:
            clock.now += 10
        waits.append(clock.now - before)
        limit.took(60)
    assert waits == [600, 1200, 2400, 3600, 3600]
    assert changes == [10, None] * 5


@pytest.mark.parametrize(
    "session_of", [lambda habits: _session(habits=habits), lambda habits: _session(Mode.DATA, habits)]
)
def test_a_review_that_is_accepted_drops_the_limit(session_of: Callable[[Habits], Session]) -> None:
    """The session reports what was taken, by the fast path too."""
    clock = _Clock()
    habits = Habits(RecipientLimit(clock))
    habits.recipients.reached(2)
    clock.now += 600
    session = session_of(habits)
    go_ahead = (b"354 go\r\n",) if session.mode is Mode.DATA else ()
    _talk(session, _mail(3), b"".join([OK] * (4 if go_ahead else 6)), *go_ahead, *([OK + OK] if go_ahead else []))
    assert session.sent == 1
    assert habits.recipients.known is None


# RSET.


@pytest.mark.parametrize("mode", [Mode.BDAT, Mode.DATA])
@pytest.mark.parametrize("refusal", [RESET_REFUSED, b"500 what\r\n", b"503 not now\r\n", b"550 5.5.1 no\r\n"])
def test_a_relay_that_does_not_know_rset_has_the_mail(mode: Mode, refusal: bytes) -> None:
    """The mail counts as accepted, and from then on one goes at a time, by DATA, with no RSET behind it."""
    session = _session(mode)
    go_ahead = () if mode is Mode.BDAT else (b"354 go\r\n",)
    assert _results(_talk(session, _mail(), OK, OK, *go_ahead, OK, refusal))[0].accepted
    assert (session.mode, session.window, session.ended) == (Mode.DATA, 1, "")
    second = session.begin(_mail())
    assert session.take(1 << 20).endswith(b"DATA\r\n")
    assert not session.is_available
    session.receive(OK + OK + b"354 go\r\n")
    assert session.take(1 << 20) == b"Subject: s\r\n\r\n.\r\n"
    assert session.receive(OK) == [second]
    assert session.is_available
    assert not session.is_spent


@pytest.mark.parametrize("mode", [Mode.BDAT, Mode.DATA])
@pytest.mark.parametrize("refusal", [b"550 no\r\n", b"451 4.3.0 later\r\n"])
def test_a_refused_rset_that_may_be_a_reply_to_the_mail_is_checked(mode: Mode, refusal: bytes) -> None:
    """A command that no relay knows shows whether replies are in step: then its refusal is the only further one."""
    go_ahead = () if mode is Mode.BDAT else (b"354 go\r\n",)
    for answer, in_step in ((b"500 5.5.1 what\r\n", True), (OK, False)):
        session = _session(mode)
        transaction = _talk(session, _mail(), OK, OK, *go_ahead, OK, refusal)
        assert transaction.outcome is None
        assert session.take(100) == b"XNIL\r\n"
        assert session.receive(answer) == ([transaction] if in_step else [])
        session.end("")
        if in_step:
            assert _results(transaction)[0].accepted
        else:
            assert isinstance(transaction.outcome, ConnectionLost)
            assert transaction.outcome.uncertain


def test_mails_in_flight_behind_a_refused_rset_are_read_on() -> None:
    """Each of those that are accepted counts, and no further one begins until the last has its reply."""
    session = _session()
    mails = [session.begin(_mail()) for _ in range(3)]
    session.take(1 << 20)
    assert session.receive((OK * 3 + RESET_REFUSED) * 2) == mails[:2]
    assert not session.is_available
    assert session.receive(OK * 3 + RESET_REFUSED) == mails[2:]
    assert session.is_available
    assert all(_results(mail)[0].accepted for mail in mails)


def _in_flight(session: Session, count: int = 3) -> list[Transaction]:
    mails = [session.begin(_mail()) for _ in range(count)]
    session.take(1 << 20)
    return mails


_REFUSALS = [b"550 no\r\n", b"451 4.3.0 later\r\n"]
_TOOK, _WHAT = OK * 3, b"500 5.5.1 what\r\n"


@pytest.mark.parametrize("refusal", _REFUSALS)
def test_a_refused_rset_with_mails_in_flight_is_checked_behind_the_last(refusal: bytes) -> None:
    """A refusal that may be the reply to a mail is checked behind the last; then each accepted one counts."""
    session = _session()
    mails = _in_flight(session)
    assert session.receive((_TOOK + refusal) * 2) == []
    assert session.take(100) == b""
    assert session.receive(_TOOK + refusal) == []
    assert session.take(100) == b"XNIL\r\n"
    assert session.due is Due.STEP
    assert session.receive(_WHAT) == mails
    assert all(_results(mail)[0].accepted for mail in mails)
    assert (session.sent, session.is_available, session.mode) == (3, True, Mode.DATA)


@pytest.mark.parametrize("refusal", _REFUSALS)
def test_a_check_that_finds_replies_out_of_step_settles_nothing(refusal: bytes) -> None:
    """If a reply too many came before the refusal, the relay takes the last RSET in place of the check."""
    session = _session()
    mails = _in_flight(session, 2)
    assert session.receive(OK + OK * 2 + refusal + OK * 4) == []  # the first one is too many; the mail was refused
    session.take(100)
    assert session.receive(OK) == []
    session.end("")
    assert all(isinstance(mail.outcome, ConnectionLost) and mail.outcome.uncertain for mail in mails)


@pytest.mark.parametrize("replies", [b"550 no\r\n", b"550 no\r\n421 4.3.2 bye\r\n"])
def test_mails_that_could_not_be_checked_are_uncertain(replies: bytes) -> None:
    """A connection that ends before the check tells nothing of a mail that the relay seems to have accepted."""
    session = _session()
    mails = _in_flight(session, 2)
    session.receive(_TOOK + replies)
    session.end("cut")
    assert isinstance(mails[0].outcome, ConnectionLost)
    assert mails[0].outcome.uncertain


def test_the_next_mail_by_data_goes_on_behind_a_refused_rset() -> None:
    """By DATA the content of the next mail leaves when the relay asks for it, and both count after the check."""
    session = _session(Mode.DATA)
    mails = [session.begin(_mail()) for _ in range(2)]
    for replies in (OK * 2 + b"354 go\r\n", OK + b"550 no\r\n", OK * 2 + b"354 go\r\n", OK + b"550 no\r\n"):
        session.take(1 << 20)
        assert session.receive(replies) == []
    assert session.take(100) == b"XNIL\r\n"
    assert session.receive(_WHAT) == mails
    assert all(_results(mail)[0].accepted for mail in mails)


@pytest.mark.parametrize("refusal", [RESET_REFUSED, *_REFUSALS])
def test_a_mail_whose_content_has_not_left_is_sent_again_behind_a_refused_one(refusal: bytes) -> None:
    """The refused mail's transaction may be open. So the session ends, and the next mail is certain not to be taken."""
    session = _session(Mode.DATA)
    first, second = session.begin(_mail()), session.begin(_mail())
    session.take(1 << 20)
    session.receive(OK + b"550 5.1.1 no\r\n" + b"554 nobody\r\n")
    session.take(1 << 20)
    session.receive(refusal)
    assert "RSET" in session.ended
    session.end("")
    assert isinstance(second.outcome, ConnectionLost)
    assert (second.outcome.not_started, second.outcome.uncertain) == (True, False)
    if refusal is RESET_REFUSED:
        assert _results(first)[0].code == 550


def test_mails_that_have_left_behind_a_refused_one_have_their_own_replies() -> None:
    """A relay that takes MAIL has no transaction open: what it says of that mail counts, also without RSET."""
    session = _session()
    first, second, third = _in_flight(session)
    refused = OK * 2 + b"552 5.3.4 too big\r\n"
    assert session.receive(refused + RESET_REFUSED) == [first]
    assert session.receive(_TOOK + RESET_REFUSED + refused + RESET_REFUSED) == [second, third]
    assert [_results(mail)[0].code for mail in (first, second, third)] == [552, 250, 552]
    assert session.is_spent


def test_a_mail_within_the_transaction_of_a_refused_one_is_sent_again() -> None:
    """A relay that refuses MAIL there, and then recipients and content, has not judged that mail."""
    session = _session()
    first, second, third = _in_flight(session)
    nested = b"503 5.5.1 nested MAIL\r\n550 5.1.1 no\r\n503 nobody\r\n"
    assert session.receive(OK + b"550 5.1.1 no\r\n503 nobody\r\n" + RESET_REFUSED) == [first]
    assert session.receive((nested + RESET_REFUSED) * 2) == [second, third]
    for mail in (second, third):
        assert isinstance(mail.outcome, ConnectionLost)
        assert (mail.outcome.not_started, mail.outcome.uncertain) == (True, False)


def test_a_mail_that_was_taken_in_the_transaction_of_another_is_uncertain() -> None:
    """A relay that refuses MAIL and takes the content all the same may have it under the other mail's sender."""
    session = _session()
    first, second = _in_flight(session, 2)
    assert session.receive(OK + b"550 5.1.1 no\r\n503 nobody\r\n" + RESET_REFUSED) == [first]
    session.receive(b"503 5.5.1 nested MAIL\r\n" + OK * 2)
    session.end("")
    assert isinstance(second.outcome, ConnectionLost)
    assert second.outcome.uncertain


@pytest.mark.parametrize("mode", Mode)
def test_without_rset_a_connection_carries_nothing_behind_a_refused_mail(mode: Mode) -> None:
    """Without RSET a refused mail may leave a transaction open; only a new connection is sure to have none."""
    habits = Habits()
    habits.forgo_resets()
    session = _session(mode, habits)
    assert session.window == 1
    assert session.mode is (Mode.DATA if mode is Mode.BDAT else mode)
    refused = _talk(session, _mail(), OK, b"550 5.1.1 no\r\n", *([b"554 5.5.1 nobody\r\n"] * (mode is not Mode.PLAIN)))
    assert _results(refused)[0].code == 550
    assert session.is_spent
    assert not session.is_available


def test_a_plain_session_learns_it_too() -> None:
    """RSET before a mail is refused: that mail goes over another connection, and the next refusal ends its own."""
    habits = Habits()
    session = _session(Mode.PLAIN, habits)
    _talk(session, _mail(), b"550 5.7.1 no\r\n")
    second = _talk(session, _mail(), RESET_REFUSED)
    session.end("")
    assert not habits.resets
    assert isinstance(second.outcome, ConnectionLost)
    assert not second.outcome.uncertain


def test_another_connection_of_that_relay_sends_no_rset() -> None:
    """An idle connection keeps to what another one has learned, with its next mail."""
    habits = Habits()
    first, second = _session(habits=habits), _session(habits=habits)
    _talk(first, _mail(), OK * 3 + RESET_REFUSED)
    second.begin(_mail())
    assert b"RSET" not in second.take(1 << 20)
    assert second.mode is Mode.DATA
