"""The words about a mail's recipients where there is no reply, or one that is not about the mail."""

import pytest

from delivery.test_lifecycle import Rig
from otpmail.errors import ConnectionLost
from otpmail.events import HeloRefused, MailDeferred, SignInWanted
from otpmail.model import MailState, RecipientResult

ADA, BOB = "ada@x.org", "bob@x.org"
NOT_FQDN = "<box>: Helo command rejected: need fully-qualified hostname"


def _said(address: str, code: int, words: str = "said", enhanced: str = "") -> RecipientResult:
    return RecipientResult(address, code, enhanced, words)


async def test_a_lost_connection_is_the_result_of_each_recipient_that_it_was_for() -> None:
    """The words of a lost connection are in the reply, with no code, of each recipient that was offered on it."""
    rig = Rig()
    job = rig.submit(ADA, BOB, ttl=1)
    rig.take(job)
    rig.lifecycle.connection_lost(job, ConnectionLost("connection lost: reset", offered=(ADA,)))
    assert job.mail.recipients == (RecipientResult(ADA, reply="connection lost: reset"), RecipientResult(BOB))
    rig.take(job)
    rig.lifecycle.connection_lost(job, ConnectionLost("no answer within 30 s"))
    mail = rig.settled(job)  # the next attempt would come too late
    assert mail.state is MailState.FAILED
    assert [result.reply for result in mail.recipients] == ["no answer within 30 s"] * 2


async def test_a_reply_stands_though_the_connection_is_lost_later() -> None:
    """The relay's last word about a recipient is worth more than the end of a connection."""
    rig = Rig()
    job = rig.submit(ADA)
    rig.take(job)
    rig.reply(job, ada=451)
    rig.clock.advance(2)
    rig.take(job)
    rig.lifecycle.connection_lost(job, ConnectionLost("gone"))
    assert job.mail.recipients == (_said(ADA, 451),)


async def test_an_outage_is_the_result_of_a_mail_that_never_left() -> None:
    """A mail that expires while no relay is up says why; a cancelled one has nothing to say."""
    why = "the relay refuses the sign-in of this service"
    rig = Rig(outage=lambda: why)
    expired, cancelled = rig.submit(ADA, ttl=1), rig.submit(BOB)
    rig.lifecycle.cancel(cancelled)
    rig.clock.advance(2)
    assert rig.settled(expired).recipients == (RecipientResult(ADA, reply=why),)
    assert rig.settled(cancelled).recipients == (RecipientResult(BOB),)


async def test_without_an_outage_nothing_is_made_up() -> None:
    """A mail that waited too long for its turn has no reply."""
    rig = Rig()
    job = rig.submit(ADA, ttl=1)
    rig.clock.advance(2)
    assert rig.settled(job).recipients == (RecipientResult(ADA),)


@pytest.mark.parametrize(
    ("code", "words"),
    [(504, NOT_FQDN), (550, "Too many emails per second"), (550, "Too many connections"), (450, NOT_FQDN)],
)
async def test_a_refusal_of_the_way_it_was_sent_is_a_deferral(code: int, words: str) -> None:
    """The mail is retried though the code is a 5yz, and settles with those words when its time is over."""
    rig = Rig()
    job = rig.submit(ADA, BOB, ttl=5)
    rig.take(job)
    rig.lifecycle.replied(job, (_said(ADA, code, words), _said(BOB, 250)))
    assert job.pending == (ADA,)
    assert rig.notified(MailDeferred)[0].reply == f"{code} {words}"
    rig.clock.advance(2)
    rig.take(job)
    rig.lifecycle.replied(job, (_said(ADA, code, words),))
    mail = rig.settled(job)
    assert (mail.state, mail.recipients[0].code) == (MailState.PARTIAL, code)


async def test_such_a_refusal_decides_nothing() -> None:
    """The caller's next try with the same request id counts as new, as where only time ran out."""
    rig = Rig()
    job = rig.submit(ADA, ttl=1)
    rig.take(job)
    rig.lifecycle.replied(job, (_said(ADA, 504, NOT_FQDN),))
    assert rig.settled(job).state is MailState.FAILED
    assert rig.store.undecided == rig.store.settled


async def test_a_refused_name_is_reported_once_a_minute() -> None:
    """Every mail may meet the fault of the settings, and one line says what to do."""
    rig = Rig()
    for _ in range(3):
        job = rig.submit(ADA)
        rig.take(job)
        rig.lifecycle.replied(job, (_said(ADA, 504, NOT_FQDN, "5.5.2"),))
    assert rig.notified(HeloRefused) == [HeloRefused(f"504 5.5.2 {NOT_FQDN}")]
    rig.clock.advance(60)
    for _ in range(3):
        job = rig.queue.get_nowait()
        rig.queue.task_done()
        assert rig.lifecycle.start(job)
        rig.lifecycle.replied(job, (_said(ADA, 504, NOT_FQDN),))
    assert len(rig.notified(HeloRefused)) == 2


@pytest.mark.parametrize("words", ["Authentication required", "Must issue a STARTTLS command first"])
async def test_a_relay_that_wants_a_sign_in_is_reported_and_loses_no_mail(words: str) -> None:
    """530 is about the session, and never about a mail (RFC 4954, 6): the mail is deferred, and one line says why."""
    rig = Rig()
    for _ in range(2):
        job = rig.submit(ADA)
        rig.take(job)
        rig.lifecycle.replied(job, (_said(ADA, 530, words, "5.7.0"),))
        assert job.pending == (ADA,)
    assert rig.notified(SignInWanted) == [SignInWanted(f"530 5.7.0 {words}")]


async def test_recipients_without_a_result_go_again_at_once() -> None:
    """The relay took as many at once as it takes: the rest is offered at once, and it is one attempt in all."""
    rig = Rig()
    people = [f"p{number}@x.org" for number in range(5)]
    job = rig.submit(*people)
    for first, second in (("p0@x.org", "p2@x.org"), ("p1@x.org", "p3@x.org")):
        rig.take(job)
        rig.lifecycle.replied(job, (_said(first, 250), _said(second, 250)))
        assert job.attempts == 0
    assert job.pending == ("p4@x.org",)
    rig.take(job)
    rig.lifecycle.replied(job, (_said("p4@x.org", 250),))
    mail = rig.settled(job)
    assert (mail.state, mail.attempts) == (MailState.RELAYED, 1)
    assert [result.address for result in mail.recipients] == people


async def test_a_transaction_without_any_result_goes_again_at_once() -> None:
    """A content that was refused for its number of recipients is no attempt."""
    rig = Rig()
    job = rig.submit(ADA, BOB)
    rig.take(job)
    rig.lifecycle.replied(job, ())
    assert (job.pending, job.attempts) == ((ADA, BOB), 0)
    rig.take(job)
    rig.reply(job)
    assert rig.settled(job).attempts == 1
