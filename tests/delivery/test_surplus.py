"""A mail for many at a relay that takes few at once: the session, the job and a model of the relay."""

import re
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from delivery.fakes import make_job
from otpmail.smtp.capabilities import Capabilities
from otpmail.smtp.habits import Habits
from otpmail.smtp.mode import Mode
from otpmail.smtp.session import Session

CAPABILITIES = Capabilities({"PIPELINING": "", "CHUNKING": ""})


@dataclass
class Model:
    """A relay that takes `most` recipients in a transaction, refuses some for good, and may count at the content."""

    most: int
    full: bytes
    unknown: frozenset[str]
    counts_at_content: bool
    taken: list[str] = field(default_factory=list)
    transactions: int = 0
    recipients: list[str] = field(default_factory=list)

    def answer(self, commands: bytes) -> bytes:
        """Run whole transactions by BDAT; returns the replies."""
        answers = b""
        while commands:
            line, _, commands = commands.partition(b"\r\n")
            if chunk := re.fullmatch(rb"BDAT (\d+) LAST", line):
                commands = commands[int(chunk[1]) :]
                answers += self._content()
            elif recipient := re.fullmatch(rb"RCPT TO:<(.*)>", line):
                answers += self._recipient(recipient[1].decode())
            else:
                answers += b"250 2.0.0 ok\r\n"
        return answers

    def _recipient(self, address: str) -> bytes:
        if len(self.recipients) >= self.most and not self.counts_at_content:
            return self.full
        if address in self.unknown:
            return b"550 5.1.1 no such user\r\n"
        self.recipients.append(address)
        return b"250 2.1.5 ok\r\n"

    def _content(self) -> bytes:
        recipients, self.recipients = self.recipients, []
        self.transactions += 1
        if not recipients:
            return b"503 5.5.1 nobody\r\n"
        if len(recipients) > self.most:
            return b"554 Transaction failed: Recipient count exceeds %d.\r\n" % self.most
        self.taken += recipients
        return b"250 2.0.0 queued\r\n"


@given(
    people=st.integers(1, 120),
    most=st.integers(1, 130),
    full=st.sampled_from([b"452 4.5.3 too many recipients\r\n", b"552\r\n", b"452 full\r\n"]),
    unknown=st.sets(st.integers(0, 119), max_size=20),
    counts_at_content=st.booleans(),
)
def test_everybody_has_one_copy(
    people: int, most: int, full: bytes, unknown: set[int], *, counts_at_content: bool
) -> None:
    """Whatever a relay takes at once, each recipient has one copy or its own refusal, by one attempt, in few steps."""
    addresses = [f"p{number}@x.org" for number in range(people)]
    refused = frozenset(f"p{number}@x.org" for number in unknown)
    relay = Model(most, full, refused, counts_at_content)
    habits = Habits()
    session = Session(CAPABILITIES, Mode.BDAT, window=16, habits=habits)
    job = make_job("m", *addresses)
    while job.pending:
        transaction = session.begin(job.offer)
        assert session.receive(relay.answer(session.take(1 << 20))) == [transaction]
        assert isinstance(transaction.outcome, tuple)
        job.note(transaction.outcome)
        assert relay.transactions <= people + 8  # half as many each time, and then one at least
    job.end_attempt()
    assert (job.pending, job.attempts) == ((), 1)
    assert sorted(relay.taken) == sorted(set(addresses) - refused)
    assert [result.code for result in job.known] == [550 if address in refused else 250 for address in addresses]
