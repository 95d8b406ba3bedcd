"""The session without I/O: which octets are written when, and what replies mean for a mail."""

from collections.abc import Iterable
from itertools import cycle

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from otpmail.errors import ConnectionLost
from otpmail.model import Envelope
from otpmail.smtp.capabilities import Capabilities
from otpmail.smtp.commands import Stuffed, end_of, stuffed
from otpmail.smtp.mode import Mode
from otpmail.smtp.output import LARGE
from otpmail.smtp.session import BACKLOG, Session
from otpmail.smtp.transaction import Awaits, Due, Transaction

ALL = {"PIPELINING": "", "CHUNKING": "", "SMTPUTF8": "", "8BITMIME": ""}
BODY = b"Subject: s\r\n\r\n.dot\r\n"
OK, NO, LATER = b"250 2.0.0 ok\r\n", b"550 5.1.1 no\r\n", b"451 4.7.1 later\r\n"


def _session(mode: Mode = Mode.BDAT, window: int = 16) -> Session:
    return Session(Capabilities(ALL), mode, window=window)


def _mail(*to: str, content: bytes = BODY, smtputf8: bool = False) -> Envelope:
    return Envelope("a@x.org", to or ("b@y.org",), content, smtputf8)


def _written(session: Session) -> bytes:
    return session.take(1 << 30)


def _codes(transaction: Transaction) -> list[int]:
    assert isinstance(transaction.outcome, tuple)
    return [result.code for result in transaction.outcome]


def _lost(transaction: Transaction) -> tuple[bool, bool]:
    assert isinstance(transaction.outcome, ConnectionLost)
    return transaction.outcome.uncertain, transaction.outcome.not_started


# Octets out.


def test_bdat_is_one_write() -> None:
    """MAIL, RCPT, BDAT, the content and RSET leave together, and the next mail behind them."""
    session = _session()
    session.begin(_mail())
    session.begin(_mail("c@z.org", "d@z.org"))
    assert _written(session) == (
        b"MAIL FROM:<a@x.org>\r\nRCPT TO:<b@y.org>\r\nBDAT 20 LAST\r\n" + BODY + b"RSET\r\n"
        b"MAIL FROM:<a@x.org>\r\nRCPT TO:<c@z.org>\r\nRCPT TO:<d@z.org>\r\nBDAT 20 LAST\r\n" + BODY + b"RSET\r\n"
    )


def test_data_waits_for_354_and_then_opens_the_next_group() -> None:
    """Nothing is written behind DATA; the content, stuffed, takes the next mail's group along."""
    session = _session(Mode.DATA)
    session.begin(_mail())
    session.begin(_mail("c@z.org"))
    assert _written(session) == b"MAIL FROM:<a@x.org>\r\nRCPT TO:<b@y.org>\r\nDATA\r\n"
    assert session.receive(OK + OK) == []
    assert _written(session) == b""
    session.receive(b"354 go\r\n")
    assert _written(session) == (
        b"Subject: s\r\n\r\n..dot\r\n.\r\nRSET\r\nMAIL FROM:<a@x.org>\r\nRCPT TO:<c@z.org>\r\nDATA\r\n"
    )


def test_plain_is_a_command_at_a_time() -> None:
    """Each command waits for the reply to the one before."""
    session = _session(Mode.PLAIN)
    session.begin(_mail())
    steps = []
    for reply in (OK, OK, b"354 go\r\n", OK):
        steps.append(_written(session))
        settled = session.receive(reply)
    assert steps == [b"MAIL FROM:<a@x.org>\r\n", b"RCPT TO:<b@y.org>\r\n", b"DATA\r\n", stuffed(BODY)]
    assert _codes(settled[0]) == [250]


@pytest.mark.parametrize(("mode", "asked", "window"), [(Mode.BDAT, 16, 16), (Mode.DATA, 16, 2), (Mode.PLAIN, 16, 1)])
def test_windows(mode: Mode, asked: int, window: int) -> None:
    """BDAT has the window that was asked for, DATA one mail being read and one announced, PLAIN one."""
    session = _session(mode, asked)
    begun = 0
    while session.is_available:
        session.begin(_mail())
        begun += 1
    assert (session.window, begun) == (window, window)
    assert _session(mode, 1).window == 1


def test_no_mail_sits_behind_a_large_one() -> None:
    """The session takes no further mail while 64 KiB or more wait to be written, so none waits behind a large one."""
    session = _session()
    session.begin(_mail(content=b"x" * (BACKLOG + 1)))
    assert not session.is_available
    while session.take(BACKLOG):
        pass
    assert session.is_available


def test_take_returns_slices_and_marks_mails_as_written() -> None:
    """No more than asked for at once; a mail is written when its last octet has been taken."""
    session = _session()
    transaction = session.begin(_mail(content=b"y" * 200_000))
    written = b""
    while not transaction.written:
        piece = session.take(1000)
        assert 0 < len(piece) <= 1000
        written += piece
    written += session.take(1000)
    assert session.take(1000) == b""
    assert written.endswith(b"BDAT 200000 LAST\r\n" + b"y" * 200_000 + b"RSET\r\n")


def test_a_mail_is_written_with_its_content_not_with_the_rset_behind() -> None:
    """A mail counts as written from its last octet on, although RSET has not left, since the relay may have it."""
    session = _session()
    transaction = session.begin(_mail())
    session.take(len(b"MAIL FROM:<a@x.org>\r\nRCPT TO:<b@y.org>\r\nBDAT 20 LAST\r\n" + BODY) - 1)
    assert not transaction.written
    session.take(1)
    assert transaction.written
    session.end("cut")
    assert _lost(transaction) == (True, False)


@pytest.mark.parametrize(
    ("mail", "extensions", "line"),
    [
        (_mail(), {"SIZE": "1000"}, b"MAIL FROM:<a@x.org> SIZE=20\r\n"),
        (_mail(content=b"\xc3\xa9\r\n"), {}, b"MAIL FROM:<a@x.org> BODY=8BITMIME\r\n"),
        (_mail("é@y.org", smtputf8=True), {}, b"MAIL FROM:<a@x.org> SMTPUTF8 BODY=8BITMIME\r\n"),
        (_mail("é@y.org", smtputf8=True), {"8BITMIME": None}, b"MAIL FROM:<a@x.org> SMTPUTF8\r\n"),
    ],
)
def test_parameters_of_mail(mail: Envelope, extensions: dict[str, str | None], line: bytes) -> None:
    """SIZE where it is announced, BODY and SMTPUTF8 where the mail needs them and they are announced."""
    offered = {name: value for name, value in {**ALL, **extensions}.items() if value is not None}
    session = Session(Capabilities(offered), Mode.BDAT, window=16)
    session.begin(mail)
    assert _written(session).startswith(line)


@pytest.mark.parametrize(
    "address", ["b@y.org>\r\nRCPT TO:<eve@z.org", "b y@z.org", "<b@y.org>", "b\0@y.org", "b@y.org\x7f", "\ud800@y.org"]
)
def test_an_unsafe_address_is_never_written(address: str) -> None:
    """An address with a character that could end a path or a command is refused, and its mail is not written."""
    session = _session()
    transaction = session.begin(_mail(address, smtputf8=True))
    assert _codes(transaction) == [553]
    assert (_written(session), len(session.flights)) == (b"", 0)


def test_a_mail_without_recipients_is_settled_without_a_command() -> None:
    """The session settles a mail without recipients at once, without a command whose reply would be counted."""
    session = _session()
    assert session.begin(Envelope("a@x.org", (), BODY)).outcome == ()
    assert (_written(session), len(session.flights)) == (b"", 0)


@given(st.binary(max_size=200).map(lambda raw: raw.replace(b"a", b"\r\n").replace(b"b", b".")))
def test_stuffing_can_be_undone_and_ends_once(content: bytes) -> None:
    """A reader that removes a dot from each line gets the content back, and the end is seen only at the end."""
    wire = stuffed(content)
    assert (b"\r\n" + wire).index(b"\r\n.\r\n") == len(wire) - 3
    lines = (b"\r\n" + wire[:-3]).split(b"\r\n.")
    assert b"\r\n".join(lines)[2:] in (content, content + b"\r\n")


@given(
    st.binary(max_size=60).map(lambda raw: raw.replace(b"a", b"\r\n").replace(b"b", b".").replace(b"c", b"\r\n.")),
    st.lists(st.integers(1, 7), min_size=1),
)
@example(b".\r\n.\r\n..\r\n.", [1])
@example(b"\r\n.", [2, 1])
def test_stuffing_slice_by_slice_is_the_same(content: bytes, sizes: list[int]) -> None:
    """A dot is doubled in whichever slice it is, and however the CRLF before it is divided."""
    pieces, begin = [], 0
    for size in cycle(sizes):
        pieces.append(Stuffed(content)[begin : begin + size])
        begin += size
        if begin >= len(content):
            break
    assert b"".join(pieces) + end_of(content) == stuffed(content)


@pytest.mark.parametrize("size", [1, 1000, 64 << 10, 1 << 30])
@pytest.mark.parametrize("mode", [Mode.DATA, Mode.PLAIN])
def test_a_large_content_is_stuffed_as_it_is_written(mode: Mode, size: int) -> None:
    """A large mail by DATA leaves in slices, and counts as written from the final dot on."""
    content = b".\r\n.." * 1000 + b"x" * LARGE + b"\r\n.y"
    session = _session(mode)
    transaction = session.begin(_mail(content=content))
    while transaction.awaits is not Awaits.FINAL:
        _written(session)
        session.receive(b"354 go\r\n" if transaction.awaits is Awaits.GO_AHEAD else OK)
    wire, pieces = stuffed(content), []
    written = 0
    while session.output.pending:
        pieces.append(session.take(size))
        written += len(pieces[-1])
        assert transaction.written == (written >= len(wire))
    assert b"".join(pieces) == wire + (b"RSET\r\n" if mode is Mode.DATA else b"")
    assert max(map(len, pieces)) <= 2 * size
    assert session.output.owed == (2 if mode is Mode.DATA else 1)


# How long a reply may take.


def test_by_bdat_a_written_mails_replies_are_those_to_its_content() -> None:
    """A relay may hold back its replies to MAIL and RCPT until it has judged the content (RFC 2920, 3.2)."""
    session = _session()
    session.begin(_mail())
    session.begin(_mail(content=b"z" * 100_000))
    seen = [session.due]
    session.take(100)
    for reply in (OK, OK, OK, OK):
        seen.append(session.due)
        session.receive(reply)
    seen.append(session.due)  # the second is not written, and the relay reads on
    _written(session)
    seen.append(session.due)
    assert seen == [Due.COMMAND, *[Due.CONTENT] * 4, Due.COMMAND, Due.CONTENT]


def test_by_data_every_reply_has_the_time_of_its_command() -> None:
    """The session tells what the relay is doing while a reply is due (RFC 5321, 4.5.3.2)."""
    session = _session(Mode.DATA)
    assert session.due is Due.STEP
    session.begin(_mail())
    seen = []
    for reply in (OK, OK, b"354 go\r\n", OK, OK):
        _written(session)
        seen.append(session.due)
        session.receive(reply)
    assert seen == [Due.COMMAND, Due.COMMAND, Due.DATA, Due.CONTENT, Due.STEP]


def test_a_relay_that_reads_a_content_has_the_time_for_a_block_of_it() -> None:
    """Until the last octet of a content is written, the relay is reading."""
    session = _session(Mode.DATA)
    session.begin(_mail(content=b"z" * 200_000))
    _written(session)
    session.receive(OK + OK + b"354 go\r\n")
    seen = []
    for most in (1000, 1 << 20):
        session.take(most)
        seen.append(session.due)
    assert seen == [Due.BLOCK, Due.CONTENT]


# RSET.


@pytest.mark.parametrize("replies", [OK * 3, OK + NO + NO, NO + NO + NO, OK + OK + NO, OK + OK + LATER])
def test_a_mail_is_settled_by_the_reset_behind_it(replies: bytes) -> None:
    """However it ends, RSET is written behind it, and its outcome is known when that is answered."""
    session = _session()
    transaction = session.begin(_mail())
    assert _written(session).endswith(BODY + b"RSET\r\n")
    assert session.receive(replies) == []
    assert session.receive(OK) == [transaction]
    session.begin(_mail())
    assert _written(session).startswith(b"MAIL")


def test_data_that_is_refused_is_reset_before_the_next_mail() -> None:
    """There is no content for RSET to follow, so it is written at once, with the next mail behind it."""
    session = _session(Mode.DATA)
    first, _ = session.begin(_mail()), session.begin(_mail("c@z.org"))
    _written(session)
    assert session.receive(OK + OK + LATER) == []
    assert _written(session) == b"RSET\r\nMAIL FROM:<a@x.org>\r\nRCPT TO:<c@z.org>\r\nDATA\r\n"
    assert session.receive(OK) == [first]
    assert _codes(first) == [451]


def test_plain_resets_after_a_mail_that_did_not_end_well() -> None:
    """In plain mode RSET costs a round trip, so it is sent only before a mail that follows a refused one."""
    session = _session(Mode.PLAIN)
    session.begin(_mail())
    _written(session)
    session.receive(NO)
    session.begin(_mail())
    for command, reply in ((b"RSET\r\n", OK), (b"MAIL", OK), (b"RCPT", OK), (b"DATA", b"354 go\r\n"), (b"Subj", OK)):
        assert _written(session).startswith(command)
        session.receive(reply)
    session.begin(_mail())
    assert _written(session).startswith(b"MAIL")


@pytest.mark.parametrize("reply", [b"554 5.6.0 no\r\n", b"451 later\r\n", b"220 hi\r\n"])
def test_a_reply_to_a_mail_in_the_place_of_rset_settles_nothing(reply: bytes) -> None:
    """With mails in flight, a refusal there may be the reply to a mail, moved on by a reply too many: none settles."""
    session = _session()
    mails = [session.begin(_mail()) for _ in range(2)]
    _written(session)
    assert session.receive(OK * 3) == []
    assert session.receive(reply) == []
    assert ("RSET" in session.ended) == reply.startswith(b"2")  # a refusal is checked once all have their replies
    assert session.end("") == mails
    assert [_lost(mail) for mail in mails] == [(True, False)] * 2


# Replies.


@pytest.mark.parametrize("mode", [Mode.BDAT, Mode.DATA])
def test_each_recipient_has_a_result(mode: Mode) -> None:
    """A refused recipient does not fail the others, and the final reply is for those that were accepted."""
    session = _session(mode)
    transaction = session.begin(_mail("a@y.org", "b@y.org", "c@y.org"))
    _written(session)
    session.receive(OK + OK + NO + LATER)
    if mode is Mode.DATA:
        session.receive(b"354 go\r\n")
        _written(session)
    assert session.receive(b"250 2.6.0 queued\r\n" + OK) == [transaction]
    assert _codes(transaction) == [250, 550, 451]


@pytest.mark.parametrize(
    ("mode", "replies", "codes"),
    [
        (Mode.BDAT, NO + b"503 no\r\n" * 2, [550]),
        (Mode.BDAT, OK + NO + b"503 no\r\n", [550]),
        (Mode.BDAT, OK + OK + LATER, [451]),
        (Mode.DATA, NO + b"503 no\r\n" * 2, [550]),
        (Mode.DATA, OK + LATER + b"503 no\r\n", [451]),
        (Mode.DATA, OK + OK + b"452 4.3.1 full\r\n", [452]),
        (Mode.PLAIN, NO, [550]),
    ],
)
def test_the_result_is_the_refusal_that_decided(mode: Mode, replies: bytes, codes: list[int]) -> None:
    """A recipient's result is the refusal that decided, not the 503 that follows from it."""
    session = _session(mode)
    transaction = session.begin(_mail())
    _written(session)
    settled = session.receive(replies)
    if mode is not Mode.PLAIN:
        _written(session)
        settled = session.receive(OK)
    assert settled == [transaction]
    assert _codes(transaction) == codes
    assert not session.ended


@pytest.mark.parametrize(
    ("reply", "is_about_address"),
    [
        (b"550 5.1.1 no\r\n", True),
        (b"550-5.1.1 no\r\n550 5.1.1 such user\r\n", True),
        (b"550-5.1.1 no\r\n550-\r\n550 such user\r\n", True),
        (b"550-5.1.1 no\r\n550 5.7.1 your address is listed\r\n", False),
        (b"550-5.7.1 your address is listed\r\n550 5.1.1 no\r\n", False),
        (b"550-5.1.1 no\r\n550 4.2.1 later\r\n", False),
        (b"550 5.1.1 no: host mx.example said: 550 5.1.10 RESOLVER.ADR.RecipientNotFound\r\n", True),
        (b"550 5.1.1 no: host mx.example[5.1.7.2] said: 550 5.1.1 no (#5.1.1)\r\n", True),
        (b"550 5.1.1 no: host mx.example said: 550 5.7.1 blocked (in reply to RCPT TO command)\r\n", False),
        (b"550-5.1.1 no such user, or\r\n550 your address is listed (#5.7.1)\r\n", False),
    ],
)
@pytest.mark.parametrize("at_content", [False, True])
def test_a_reply_with_several_codes_is_not_about_the_address(
    reply: bytes,
    is_about_address: bool,  # noqa: FBT001
    at_content: bool,  # noqa: FBT001
) -> None:
    """A refusal is about its address alone only if no enhanced code in it has another meaning (RFC 2034, 4).

    Postfix quotes the server that it has asked about a recipient, behind a code of its own.
    """
    session = _session()
    mail = session.begin(_mail())
    _written(session)
    session.receive(OK + (OK + reply if at_content else reply + NO) + OK)
    assert isinstance(mail.outcome, tuple)
    [result] = mail.outcome
    assert (result.code, result.is_about_address) == (550, is_about_address)


def test_354_without_recipients_gets_a_single_dot() -> None:
    """If the relay asks for the content although it refused every recipient, it gets an empty one."""
    session = _session(Mode.DATA)
    transaction = session.begin(_mail())
    _written(session)
    session.receive(OK + NO + b"354 go\r\n")
    assert _written(session) == b".\r\nRSET\r\n"
    assert session.receive(b"554 nobody\r\n" + OK) == [transaction]
    assert _codes(transaction) == [550]
    assert not session.ended


@pytest.mark.parametrize("replies", [NO + b"503 no\r\n" + OK, OK + NO + OK])
def test_a_content_accepted_without_recipients_ends_the_session(replies: bytes) -> None:
    """Content that is accepted without a recipient ends the session; it and the mail behind it are uncertain."""
    session = _session()
    mails = [session.begin(_mail()) for _ in range(2)]
    _written(session)
    session.receive(replies)
    assert session.ended
    session.end("")
    assert [_lost(mail) for mail in mails] == [(True, False)] * 2


def test_a_final_reply_before_the_last_octet() -> None:
    """A final reply before the last octet ends the session: an acceptance is not believed, and a refusal stands."""
    for reply, relayed in ((OK, None), (b"552 5.3.4 too big\r\n", [552])):
        session = _session()
        transaction = session.begin(_mail(content=b"z" * 100_000))
        session.take(1000)
        session.receive(OK + OK + reply)
        assert session.ended
        session.end("")
        if relayed is None:
            assert _lost(transaction) == (False, False)
        else:
            assert _codes(transaction) == relayed


@pytest.mark.parametrize("reply", [b"354 go\r\n", b"334 \r\n", b"999 x\r\n", b"what\r\n"])
def test_a_reply_that_cannot_be_makes_its_read_doubtful(reply: bytes) -> None:
    """A mail that was settled in the same read as an impossible reply is uncertain: it may have had another's reply."""
    session = _session()
    first, second = session.begin(_mail()), session.begin(_mail())
    _written(session)
    assert session.receive(OK * 4 + reply) == [first]
    assert session.ended
    assert _lost(first) == (True, False)
    session.end("")
    assert _lost(second) == (True, False)


def test_a_reply_too_many_makes_its_read_doubtful() -> None:
    """One reply more than commands makes all replies of its read doubtful, as any may be the surplus one."""
    session = _session()
    transaction = session.begin(_mail())
    _written(session)
    session.receive(OK * 5)
    assert "unasked" in session.ended
    assert _lost(transaction) == (True, False)


@pytest.mark.parametrize("mode", list(Mode))
def test_a_reply_before_its_command_is_one_too_many(mode: Mode) -> None:
    """A reply that arrives before a mail's commands have left is not taken for that mail, not even a refusal."""
    session = _session(mode)
    first = session.begin(_mail())
    assert session.receive(NO) == []
    assert "unasked" in session.ended
    session.end("")
    assert _lost(first) == (False, False)


def test_plain_reads_one_reply_at_a_time() -> None:
    """Two replies to MAIL are one too many: RCPT, which has not been sent, does not get the second."""
    session = _session(Mode.PLAIN)
    transaction = session.begin(_mail())
    _written(session)
    assert session.receive(OK + NO) == []
    assert "unasked" in session.ended
    session.end("")
    assert _lost(transaction) == (False, False)


def test_plain_believes_a_250_too_many_behind_the_content() -> None:
    """No RSET follows that would reveal it, so the mail counts as accepted; the true reply then ends the session."""
    session = _session(Mode.PLAIN)
    transaction = session.begin(_mail())
    for reply in (OK, OK, b"354 go\r\n"):
        _written(session)
        session.receive(reply)
    _written(session)
    assert session.receive(OK) == [transaction]
    assert _codes(transaction) == [250]
    assert session.receive(NO) == []
    assert "unasked" in session.ended


def test_a_goodbye_before_its_command_is_one() -> None:
    """The session accepts 421 before a command has left, as the one reply that a relay may send unasked."""
    session = _session()
    transaction = session.begin(_mail())
    session.receive(b"421 4.4.2 idle\r\n")
    assert session.goodbye
    session.end("")
    assert _lost(transaction) == (False, False)


def test_a_refusal_is_not_believed_once_replies_are_out_of_step() -> None:
    """A mail in flight whose recipient was refused is as doubtful as the others: the 550 may be another's."""
    session = _session()
    refused, written, unwritten = (session.begin(_mail(content=BODY * n)) for n in (1, 1, 4000))
    session.take(400)
    session.receive(OK + NO)
    session.receive(b"354 go\r\n")
    session.end("")
    assert [_lost(mail) for mail in (refused, written, unwritten)] == [(True, False), (True, False), (False, True)]


def test_a_doubtful_read_leaves_a_mail_certain_that_never_left() -> None:
    """A mail whose DATA was refused is lost to an odd reply in the same read, but the relay cannot have it."""
    session = _session(Mode.DATA)
    transaction = session.begin(_mail())
    _written(session)
    assert session.receive(OK + OK + LATER + b"250 one too many\r\n") == []
    assert session.ended
    session.end("")
    assert _lost(transaction) == (False, False)


def test_replies_are_counted_however_they_are_cut() -> None:
    """Replies of several lines are one each, and may come an octet at a time."""
    session = _session()
    transaction = session.begin(_mail())
    _written(session)
    settled: list[Transaction] = []
    for octet in b"250-2.1.0 one\r\n250 2.1.0 two\r\n250 ok\r\n250-2.0.0 a\r\n250-2.0.0 b\r\n250 2.0.0 c\r\n" + OK:
        settled += session.receive(bytes([octet]))
    assert settled == [transaction]
    assert isinstance(transaction.outcome, tuple)
    assert transaction.outcome[0].reply == "a b c"


# 421 and the end.


def _behind(replies: Iterable[bytes]) -> tuple[Session, list[Transaction]]:
    session = _session()
    mails = [session.begin(_mail()) for _ in range(3)]
    _written(session)
    session.receive(b"".join(replies))
    return session, mails


@pytest.mark.parametrize("place", range(11))
def test_421_at_every_position(place: int) -> None:
    """Mails answered before it are settled; the mail answered with it, and those behind it, were not accepted."""
    session, mails = _behind([OK] * place + [b"421 4.3.2 bye\r\n"])
    assert session.goodbye
    assert not session.is_available
    session.end("connection lost")
    taken = 1 if place >= 3 else 0
    taken += place >= 7
    assert [isinstance(mail.outcome, tuple) for mail in mails] == [n < taken for n in range(3)]
    for mail in mails[taken:]:
        assert _lost(mail)[0] is False


@pytest.mark.parametrize(
    ("replies", "codes"),
    [
        (NO + b"421 4.7.0 bye\r\n", [550, 421]),
        (LATER + b"421 4.7.0 bye\r\n", [451, 421]),
        (NO + OK + b"421 4.7.0 bye\r\n", [550, 421]),
        (OK + OK + b"421 4.7.0 bye\r\n", None),
        (b"421 4.7.0 one\r\n421 4.7.0 two\r\n", None),
    ],
)
def test_a_refusal_stands_beside_a_421(replies: bytes, codes: list[int] | None) -> None:
    """A refused recipient stays refused, and 421 defers the other; if 421 is the only reply the connection is lost."""
    session = _session()
    transaction = session.begin(_mail("b@y.org", "c@y.org"))
    _written(session)
    session.receive(OK + replies)
    session.end("connection lost")
    if codes is None:
        assert _lost(transaction) == (False, False)
    else:
        assert _codes(transaction) == codes


def test_mails_behind_a_421_are_uncertain_where_the_relay_goes_on() -> None:
    """A reply behind the 421 shows that it reads on, so a mail without a reply may have been accepted."""
    session = _session()
    mails = [session.begin(_mail("b@y.org", "c@y.org")) for _ in range(2)]
    _written(session)
    session.receive(OK + b"421 4.7.0 not that one\r\n" + OK)
    session.end("cut")
    assert [_lost(mail)[0] for mail in mails] == [True, True]


def test_mails_behind_a_421_are_uncertain_where_the_relay_does_not_close() -> None:
    """The relay may yet read mails that were written; it cannot have the others."""
    session = _session()
    mails = [session.begin(_mail(content=BODY * n)) for n in (1, 1, 4000)]
    session.take(400)
    session.receive(b"421 4.7.0 later\r\n")
    session.stayed_open()
    session.end("it stayed")
    assert [_lost(mail) for mail in mails] == [(False, False), (True, False), (False, True)]


def test_421_while_idle() -> None:
    """A 421 while idle ends the session and changes nothing for the mails before it."""
    session = _session()
    transaction = session.begin(_mail())
    _written(session)
    session.receive(OK * 4 + b"421 4.4.2 idle\r\n")
    assert "421" in session.ended
    assert _codes(transaction) == [250]


def test_nothing_is_written_after_421() -> None:
    """A mail that has not left by then is certain not to have arrived."""
    session = _session()
    session.begin(_mail(content=b"z" * 100_000))
    session.take(10)
    session.receive(b"421 bye\r\n")
    assert session.take(1000) == b""


def test_the_end_says_which_mails_are_certain() -> None:
    """A refused mail is refused, a written one without a reply uncertain, an unwritten one behind it not started."""
    session = _session()
    refused, written, unwritten = (session.begin(_mail(content=BODY * n)) for n in (1, 1, 4000))
    session.take(400)
    session.receive(OK + NO)
    assert session.end("cut") == [refused, written, unwritten]
    assert _codes(refused) == [550]
    assert _lost(written) == (True, False)
    assert _lost(unwritten) == (False, True)


def test_data_is_certain_until_the_content_is_written() -> None:
    """Before 354 the relay has only the envelope of a mail."""
    session = _session(Mode.DATA)
    first, second = session.begin(_mail()), session.begin(_mail())
    _written(session)
    session.receive(OK + OK)
    session.end("cut")
    assert (_lost(first), _lost(second)) == ((False, False), (False, True))


# The probe.


@pytest.mark.parametrize(
    ("replies", "mode", "runs"),
    [
        (b"503 no\r\n250 ok\r\n", Mode.BDAT, False),
        (b"502 no\r\n214 commands\r\n250 ok\r\n", Mode.DATA, True),
        (b"502 no\r\n500 what\r\n250 ok\r\n500 what\r\n", Mode.DATA, True),
        (b"250 fine\r\n250 ok\r\n", Mode.DATA, True),
    ],
)
def test_probe(replies: bytes, mode: Mode, runs: bool) -> None:  # noqa: FBT001
    """A refusal and then 250 show that the chunk is discarded; after any other replies mails go by DATA."""
    session = _session()
    session.probe()
    assert not session.is_available
    assert _written(session) == b"BDAT 6 LAST\r\nXNIL\r\nRSET\r\n"
    for octet in replies:
        session.receive(bytes([octet]))
    assert (session.is_probing, session.mode, session.runs_refused_chunks) == (False, mode, runs)
    assert session.is_available
    assert not session.ended


def test_a_probe_whose_rset_is_refused() -> None:
    """Two refusals and no more may be to the chunk and to RSET: a further XNIL shows that nothing else is to come."""
    session = _session()
    session.probe()
    _written(session)
    session.receive(b"503 no\r\n")
    assert _written(session) == b""
    session.receive(b"502 no RSET\r\n")
    assert (session.is_probing, _written(session)) == (True, b"XNIL\r\n")
    session.receive(b"500 what\r\n")
    assert (session.is_probing, session.mode, session.runs_refused_chunks) == (False, Mode.DATA, False)
    session.begin(_mail())
    assert b"RSET" not in _written(session)


def test_a_probe_whose_replies_come_together_is_not_asked_again() -> None:
    """The third reply shows that the chunk ran as a command."""
    session = _session()
    session.probe()
    _written(session)
    session.receive(b"502 no\r\n500 what\r\n250 ok\r\n")
    assert (session.is_probing, session.mode, _written(session)) == (False, Mode.DATA, b"")


def test_only_bdat_is_probed() -> None:
    """Without BDAT no chunk is sent."""
    for mode in (Mode.DATA, Mode.PLAIN):
        session = _session(mode)
        session.probe()
        assert (session.is_probing, _written(session)) == (False, b"")


@pytest.mark.parametrize(
    ("extensions", "mode"),
    [(ALL, Mode.BDAT), ({"PIPELINING": ""}, Mode.DATA), ({"CHUNKING": ""}, Mode.PLAIN), ({}, Mode.PLAIN)],
)
def test_the_mode_of_a_relay(extensions: dict[str, str], mode: Mode) -> None:
    """PIPELINING and CHUNKING make it bdat, PIPELINING alone data, else it is plain. EMAIL_MODE may slow it down."""
    assert Mode.of(Capabilities(extensions)) is mode
    assert mode.slower(Mode.allowed_by("auto")) is mode
    assert mode.slower(Mode.allowed_by("plain")) is Mode.PLAIN
