"""A job: what is offered next, how it looks to its caller, and what a store keeps of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.fakes import make_job
from otpmail.delivery.job import Job
from otpmail.model import Challenge, IssuedCode, Mail, MailState, Priority, RecipientResult
from otpmail.smtp.transaction import GROUP
from otpmail.store.base import Entry, Progress

_ISSUED = IssuedCode(Challenge(bytes(range(16)), "k1", 1120.0), 1030.0)


def _people(count: int) -> tuple[str, ...]:
    return tuple(f"p{number}@x.org" for number in range(count))


@pytest.mark.parametrize("count", [1, 2, GROUP, GROUP + 1, 2 * GROUP + 50])
def test_groups_are_offered_one_after_the_other(count: int) -> None:
    """A job offers the first GROUP of its pending recipients, with the sender and content of the whole mail."""
    people = _people(count)
    job = make_job("m", *people)
    offered: tuple[str, ...] = ()
    while job.pending:
        offer = job.offer
        assert offer.recipients == job.offered
        assert 0 < len(job.offered) <= GROUP
        assert (offer.sender, offer.content, offer.smtputf8) == ("service@example.org", b"m", False)
        offered += job.offered
        job.narrow(job.pending[len(job.offered) :])
    assert offered == people


@pytest.mark.parametrize("count", [1, GROUP, GROUP + 1])
def test_a_mail_that_goes_whole_is_offered_without_a_copy(count: int) -> None:
    """The envelope that a job offers for a whole mail equals the one that would be made for a group."""
    job = make_job("m", *_people(count))
    assert (job.offer is job.envelope) == (count <= GROUP)
    fast = job.offer
    job.narrow((*job.pending[:1], *job.pending[1:]))  # equal, but not the envelope's own tuple
    assert job.offer == fast


def test_a_mail_that_waits() -> None:
    """Before the first attempt a job knows nothing of its recipients and shows no result for them."""
    job = make_job("a", request_id="r1", issued=_ISSUED)
    assert job.mail == Mail("a", "shop", "<a@example.org>", 1.0, "r1", issued=_ISSUED)
    assert not job.settled
    job.state = MailState.SENDING
    assert job.mail.state is MailState.SENDING


def test_a_mail_that_is_retried_shows_its_results() -> None:
    """Each recipient stands in the envelope's order, with the last reply about it, or none yet."""
    job = make_job("a", *_people(3))
    job.results["p1@x.org"] = RecipientResult("p1@x.org", 451, "4.7.1", "later")
    job.attempts = 1
    assert job.mail.recipients == (
        RecipientResult("p0@x.org"),
        job.results["p1@x.org"],
        RecipientResult("p2@x.org"),
    )
    assert job.mail.recipients == job.known
    assert job.mail.attempts == 1


def test_labels_take_memory() -> None:
    """The octets that a job counts for cover its labels, in any script."""
    plain, labelled = make_job("a"), make_job("a", labels=(("tenant", "t1"), ("x", "y" * 1000)))
    assert labelled.octets - plain.octets > 1000
    assert labelled.mail.labels == (("tenant", "t1"), ("x", "y" * 1000))


def test_a_job_settles_for_good() -> None:
    """A settled job keeps the mail that it settled as, whatever is changed in the job afterwards."""
    job = make_job("a")
    results = (RecipientResult("ada@x.org", 250),)
    mail = job.settle(MailState.RELAYED, results, 7.0)
    assert job.settled
    job.attempts += 1
    assert job.mail is mail
    assert (mail.state, mail.recipients, mail.settle_time) == (MailState.RELAYED, results, 7.0)


def test_a_finished_job_has_its_mail() -> None:
    """A repeated request finds a job that has settled, with its request id and code."""
    job = make_job("a", request_id="r1", issued=_ISSUED)
    mail = job.settle(MailState.PARTIAL, job.known, 2.0)
    finished = Job.finished(mail)
    assert finished.settled
    assert finished.mail is mail
    assert (finished.id, finished.caller, finished.request_id, finished.issued) == ("a", "shop", "r1", _ISSUED)
    assert finished.pending == ()


def test_the_repr_shows_no_content_and_no_address() -> None:
    """The repr of a job shows its id, state, priority and number of pending recipients, and nothing else."""
    assert repr(make_job("a", *_people(2))) == "<Job a QUEUED NORMAL 2 pending>"


_ADDRESSES = st.lists(st.sampled_from(_people(8)), min_size=1, max_size=8, unique=True).map(tuple)
_RESULTS = st.builds(RecipientResult, st.sampled_from(_people(8)), st.integers(0, 599), st.text(), st.text())


@given(
    recipients=_ADDRESSES,
    priority=st.sampled_from(Priority),
    issued=st.none() | st.just(_ISSUED),
    progress=st.builds(
        Progress,
        pending=_ADDRESSES,
        results=st.lists(_RESULTS, max_size=8, unique_by=lambda result: result.address).map(tuple),
        uncertain=st.sets(st.sampled_from(_people(8))).map(lambda some: tuple(sorted(some))),
        attempts=st.integers(0, 100),
        losses=st.integers(0, 100),
        copies=st.integers(0, 3),
    ),
    fingerprint=st.binary(max_size=32),
)
def test_a_job_goes_on_where_its_entry_stands(
    recipients: tuple[str, ...],
    priority: Priority,
    issued: IssuedCode | None,
    progress: Progress,
    fingerprint: bytes,
) -> None:
    """The job that is made from an entry yields an equal entry, offers the same, and is guaranteed."""
    first = make_job(
        "a", *recipients, priority=priority, deadline=1e9, request_id="r1", issued=issued, labels=(("a", "1"),)
    )
    entry = first.entry(fingerprint)
    entry = Entry(
        mail=entry.mail,
        envelope=entry.envelope,
        priority=entry.priority,
        deadline=entry.deadline,
        progress=progress,
        fingerprint=fingerprint,
    )
    job = Job.from_entry(entry)
    again = job.entry(fingerprint)
    assert again.progress == progress
    assert (again.envelope, again.priority, again.deadline) == (first.envelope, priority, 1e9)
    assert again.fingerprint == fingerprint
    assert (job.id, job.caller, job.message_id, job.create_time) == ("a", "shop", "<a@example.org>", 1.0)
    assert (job.request_id, job.issued, job.state) == ("r1", issued, MailState.QUEUED)
    assert job.labels == (("a", "1"),)
    assert job.guaranteed
    assert job.offered == progress.pending[:GROUP]
    assert Job.from_entry(again).entry(fingerprint) == again


def test_progress_has_those_that_earlier_groups_deferred() -> None:
    """Between two groups, the recipients that wait for the next attempt are pending as well."""
    job = make_job("m", *_people(GROUP + 1))
    job.deferred = job.pending[:GROUP]
    job.narrow(job.pending[GROUP:])
    assert job.progress.pending == _people(GROUP + 1)
