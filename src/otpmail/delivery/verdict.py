"""What the relay's replies add up to: the final state of a mail. Pure."""

from otpmail.delivery.job import Job
from otpmail.model import MailState
from otpmail.smtp.transaction import Results


def all_accepted(results: Results) -> bool:
    """Return whether the relay accepted the mail for each of these recipients."""
    for result in results:  # noqa: SIM110  `all` over a generator is slower, and this runs for every mail
        if not result.accepted:
            return False
    return True


def final_state(job: Job, otherwise: MailState) -> tuple[MailState, bool]:
    """Return the state in which a job settles now, and whether the relay decided anything about it.

    The state is `otherwise` where the relay accepted nothing, and UNCERTAIN where it may have accepted something
    without saying so. Where nothing is decided, the caller's next try with the same request id counts as new.
    """
    accepted = refused = 0
    for result in job.results.values():
        accepted += result.accepted
        refused += result.refused
    if accepted == len(job.envelope.recipients):
        state = MailState.RELAYED
    elif job.uncertain:
        state = MailState.UNCERTAIN
    else:
        state = MailState.PARTIAL if accepted else otherwise
    return state, bool(accepted or refused or job.uncertain)
