"""Judges a mail by the relay's replies and lost connections: whether it may be sent again, how it ends. Pure."""

from typing import Literal

from otpmail.delivery.job import Job
from otpmail.model import MailState

MOST_COPIES = 3
"""How many attempts at one mail may leave it uncertain, before no further copy is sent.

A relay that accepts each copy and cuts the connection before its reply would fill a mailbox until the deadline.
"""

RETRIABLE = frozenset({MailState.FAILED, MailState.EXPIRED, MailState.PARTIAL, MailState.UNCERTAIN})
"""The states from which a caller may send a mail again: it did not reach all of its recipients, or may not have."""


def may_copy(job: Job, on_uncertain: Literal["retry", "fail"]) -> bool:
    """Return whether a mail that the relay may have accepted may be sent once more (EMAIL_ON_UNCERTAIN)."""
    return on_uncertain == "retry" and job.copies < MOST_COPIES


def may_retry(job: Job) -> bool:
    """Return whether a settled mail may be retried.

    The content of a code's mail is not kept for that, nor is there any where its address was suppressed.
    """
    return job.state in RETRIABLE and job.issued is None and bool(job.envelope.content)


def final_state(job: Job, otherwise: MailState) -> tuple[MailState, bool]:
    """Return the state in which a job settles now, and whether the relay decided anything about it.

    The state is `otherwise` where the relay accepted nothing, and UNCERTAIN where it may have accepted something
    without saying so. Where nothing is decided, the caller's next try with the same request id counts as new.
    """
    accepted = sum([result.accepted for result in job.results.values()])
    if accepted == len(job.envelope.recipients):
        state = MailState.RELAYED
    elif job.uncertain:
        state = MailState.UNCERTAIN
    else:
        state = MailState.PARTIAL if accepted else otherwise
    return state, bool(accepted or job.uncertain) or job.is_refused
