"""The client side of an SMTP session after sign-in, without I/O: decides which octets may leave, and reads replies.

The session matches replies to commands by counting, never by their text (RFC 2920, 3.1). A reply that matches no
command ends the session, so that it reaches no other mail. The session's `mode` decides how mails are sent:

BDAT    `MAIL RCPT.. BDAT n LAST <content> RSET` in one flight, the next mail behind it without waiting (RFC 3030)
DATA    `MAIL RCPT.. DATA` in one flight; then `<content> . RSET` and the next mail's in another (RFC 2920, 3.1)
PLAIN   one command at a time (RFC 5321), RSET only before a mail that follows one which did not end well

RSET ends the relay's transaction in any case, so that no command runs in another mail's transaction. By BDAT and DATA
the reply to RSET settles the mail. If a positive reply too many has put replies out of step, the session reads the
relay's true reply to the mail there, and any code but 250 reveals the fault.
"""

from collections import deque
from types import MappingProxyType

from otpmail.errors import ConnectionLost
from otpmail.model import Envelope
from otpmail.smtp.bdat import BdatTransaction
from otpmail.smtp.capabilities import Capabilities
from otpmail.smtp.data import DataTransaction
from otpmail.smtp.mode import Mode
from otpmail.smtp.output import Output
from otpmail.smtp.plain import PlainTransaction
from otpmail.smtp.probe import QUESTION, Probe, Verdict
from otpmail.smtp.redaction import NO_SECRETS, Redactor
from otpmail.smtp.replies import CLOSING, MalformedReply, Reply, ReplyReader, describe, result
from otpmail.smtp.transaction import GROUP, Awaits, Callback, Outcome, SessionEnded, Transaction

BACKLOG = 64 << 10
"""Octets that may wait to be written before the session takes no further mail, so none waits behind a large one."""

_TRANSACTIONS = MappingProxyType[Mode, type[Transaction]](
    {Mode.BDAT: BdatTransaction, Mode.DATA: DataTransaction, Mode.PLAIN: PlainTransaction}
)
_MAIL = Awaits.MAIL  # fast path: a global is read in less time than a member of an Enum


def _ignore(_: Outcome) -> None:
    pass


class Session:
    """Mails in, octets out; octets in, outcomes out. The order of the calls is the order of the wire.

    `flights` are the mails that have begun and not ended, in their order. `ended` holds the cause once the session
    cannot go on. Then nothing may be sent or read any more, and `end` tells the outcomes of the mails in flight.
    `redactor` knows the credentials, which no result and no cause of an end repeats.
    """

    def __init__(self, capabilities: Capabilities, mode: Mode, *, window: int, redactor: Redactor = NO_SECRETS) -> None:
        self.capabilities = capabilities
        self.mode = mode
        self.window = mode.window(window)
        self.flights: deque[Transaction] = deque()
        self.output = Output()
        self.begun = 0
        self.sent = 0
        self.answered = 0  # mails that the relay has accepted or refused; 421 is neither
        self.replies = 0
        self.runs_refused_chunks = False
        self.goodbye = ""  # the reply with 421
        self.ended = ""
        self._wanted_window = window
        self._group = min(capabilities.rcpt_max or GROUP, GROUP)
        self._clean = True  # whether the last transaction is known to have ended well
        self._goes_on = False  # whether the relay answered more after its goodbye, or did not close
        self._doubted = False  # whether the session ended with replies and commands out of step
        self._has_sent_codes = False
        self._probe: Probe | None = None
        self._reader, self._redactor = ReplyReader(), redactor

    def __repr__(self) -> str:
        state = self.ended or self.goodbye or "open"
        return f"<Session {self.mode} {state}, {len(self.flights)}/{self.window} in flight, {self.sent} sent>"

    @property
    def is_available(self) -> bool:
        """Whether another mail may begin."""
        return (
            len(self.flights) < self.window
            and self.output.pending < BACKLOG
            and not (self.ended or self.goodbye or self._probe)
        )

    @property
    def is_probing(self) -> bool:
        """Whether the answer to the probe is due, and no mail may begin yet."""
        return self._probe is not None

    @property
    def awaits_reply(self) -> bool:
        """Whether the relay owes a reply."""
        return bool(self.flights) or self._probe is not None

    @property
    def may_take_long(self) -> bool:
        """Whether the reply that is due may wait until the relay has judged a content of which it has every octet."""
        return bool(self.flights) and self.flights[0].may_take_long

    # Octets out.

    def probe(self) -> None:
        """Before the first mail, find out whether a chunk may be sent together with RCPT; if not, use DATA.

        A relay that does not discard the chunk of a BDAT it refuses would run a mail's content as commands.
        """
        if self.mode is Mode.BDAT:
            self._probe = Probe()
            self.output.push(QUESTION, replies=0)  # the number of replies is the question

    def begin(self, envelope: Envelope, callback: Callback = _ignore) -> Transaction:
        """Begin a mail, for which the session must be available. Nothing of it is written before `take`.

        The session keeps `callback` with it, for its caller. It goes to its first GROUP recipients, or RCPTMAX of them
        (RFC 9422). A mail that the relay cannot take, or that would be unsafe to write, has its `outcome` at once.
        """
        if len(envelope.recipients) > self._group:
            envelope = envelope.only(envelope.recipients[: self._group])
        transaction = _TRANSACTIONS[self.mode](envelope, self.capabilities, self._redactor, callback)
        if not envelope.recipients:
            transaction.outcome = ()
            return transaction
        refusal = self.capabilities.rejects(envelope)
        if refusal is not None:
            transaction.outcome = tuple(result(address, refusal) for address in envelope.recipients)
            return transaction
        self.begun += 1
        self._has_sent_codes |= bool(envelope.code)
        self.flights.append(transaction)
        if self.mode is Mode.BDAT:  # fast path: all may start at once
            transaction.start(self.output, reset_first=False)
        else:
            self._advance()
        return transaction

    def take(self, most: int) -> bytes:
        """The next octets to write: `most` of them, or all that there are. They count as written."""
        if self.goodbye:  # the relay reads no more, and a mail that has not left is certain not to have arrived
            return b""
        return self.output.take(most)

    # Octets in.

    def receive(self, data: bytes) -> list[Transaction]:
        """Read the relay's octets, in pieces of any size. Returns the transactions whose `outcome` is now known.

        Once `ended` is set nothing is read any more. Raises nothing.
        """
        settled, replies = list[Transaction](), list[Reply]()
        if self.ended:
            return settled
        try:
            try:
                self._reader.feed(data, replies)
            finally:
                self.replies += len(replies)
                self._read_all(replies, settled)
            if not self.flights and self._probe is None and self._reader.is_partial:
                goodbye = self._reader.may_be(CLOSING)
                raise SessionEnded("the relay began to say something unasked", doubtful=not goodbye)
        except MalformedReply as error:
            self._end(f"{error}: {self.redact(error.line)}" if error.line else str(error), settled, doubtful=True)
        except SessionEnded as error:
            said = f": {self._describe(error.reply)}" if error.reply else ""
            self._end(f"{error}{said}", settled, doubtful=error.doubtful)
        return settled

    def redact(self, words: bytes) -> str:
        """Return what the relay said, on one line without secrets, where it is no reply to a mail."""
        return self._redactor.line(words.decode("utf-8", "replace"), self._codes, masks_numbers=self._has_sent_codes)

    def stayed_open(self) -> None:
        """Note that the relay has not closed in good time after its goodbye: it may yet take a mail behind that."""
        self._goes_on = True

    def end(self, cause: str) -> list[Transaction]:
        """The connection is over. Returns the transactions in flight, in their order, each with its outcome."""
        self.ended = self.ended or cause
        left = list(self.flights)
        for place, transaction in enumerate(left):
            transaction.outcome = self._outcome_at_end(transaction, first=place == 0)
        self.flights.clear()
        self.output.clear()
        self._probe = None
        return left

    # The rules.

    @property
    def _codes(self) -> list[str]:
        """The codes in the mails in flight; those of earlier mails are not kept."""
        return [code for transaction in self.flights if (code := transaction.envelope.code)]

    def _describe(self, reply: Reply) -> str:
        """Return a reply that may quote any mail that was sent here, on one line without secrets."""
        return describe(reply, self._redactor, self._codes, masks_numbers=self._has_sent_codes)

    def _advance(self) -> None:
        """Start the mails whose commands may go now; not by BDAT, where all may at once."""
        ahead: Transaction | None = None
        for transaction in self.flights:
            if not transaction.begun and (ahead is None or ahead.lets_next_start):
                transaction.start(self.output, reset_first=not self._clean)
            ahead = transaction

    def _read_all(self, replies: list[Reply], settled: list[Transaction]) -> None:
        place = 0
        while place < len(replies):
            taken = self._take_all_well(replies, place, settled)
            if not taken:
                self._read(replies[place], settled)
                taken = 1
            place += taken

    def _take_all_well(self, replies: list[Reply], place: int, settled: list[Transaction]) -> int:
        """Read the replies to the next mail if they are all there and all 250; returns how many they are, or 0."""
        # fast path: nearly every mail by BDAT ends so, 5 us a mail; held to the full path by
        # tests/smtp/test_session_fuzz.py
        if not self.flights or self.goodbye or self._probe is not None:
            return 0
        transaction = self.flights[0]
        count = len(transaction.envelope.recipients) + 3  # MAIL, each RCPT, BDAT, RSET
        # Only by BDAT a mail may be written while its first reply is due.
        if not (transaction.written and transaction.awaits is _MAIL) or self.output.owed < count:
            return 0
        answers = replies[place : place + count]
        if len(answers) < count:
            return 0
        for reply in answers:
            if reply.code != 250:
                return 0
        self.output.owed -= count
        self.flights.popleft()
        self._clean = True
        self.sent += 1
        self.answered += 1
        transaction.accept(answers[-2])
        settled.append(transaction)
        return count

    def _read(self, reply: Reply, settled: list[Transaction]) -> None:
        if reply.code == CLOSING:
            self.goodbye = self.goodbye or f"the relay said: {self._describe(reply)}"
        elif self.goodbye:
            self._goes_on = True
        if self._probe is not None:
            self._read_probe_reply(self._probe.read(reply), reply)
            return
        if not self.output.owed:  # even if a mail has begun: its commands have not left
            raise SessionEnded("the relay said unasked", reply, doubtful=reply.code != CLOSING)
        self.output.owed -= 1
        transaction = self.flights[0]
        transaction.read(reply, self.output)
        if transaction.awaits is Awaits.NOTHING:
            self.flights.popleft()
            self._settle(transaction)
            settled.append(transaction)
        if self.mode is not Mode.BDAT:
            self._advance()

    def _settle(self, transaction: Transaction) -> None:
        self._clean = transaction.is_taken
        self.sent += self._clean
        transaction.settle(self.goodbye)
        self.answered += not isinstance(transaction.outcome, ConnectionLost)

    def _read_probe_reply(self, verdict: Verdict, reply: Reply) -> None:
        if self.goodbye:
            raise SessionEnded(self.goodbye, doubtful=False)
        if verdict is Verdict.OPEN:
            return
        self._probe = None
        if verdict is not Verdict.DISCARDS:
            self.runs_refused_chunks = True
            self.mode = Mode.DATA
            self.window = self.mode.window(self._wanted_window)
        if verdict is Verdict.UNUSABLE:
            raise SessionEnded("unexpected reply to RSET", reply, doubtful=False)

    def _end(self, cause: str, settled: list[Transaction], *, doubtful: bool) -> None:
        self.ended = cause
        if doubtful:
            # The reply that revealed it may not have been the first that went to the wrong mail.
            self.goodbye = ""
            self._doubted = True
            for transaction in settled:
                offered = transaction.envelope.recipients
                transaction.outcome = ConnectionLost(cause, uncertain=transaction.written, offered=offered)

    def _outcome_at_end(self, transaction: Transaction, *, first: bool) -> Outcome:
        if transaction.is_decided and not self._doubted:
            self._settle(transaction)
            assert transaction.outcome is not None
            return transaction.outcome
        # The relay cannot have a mail whose last octet never left, nor one behind its goodbye if it kept to that.
        certain = bool(self.goodbye and not self._goes_on) or not transaction.written
        offered = transaction.envelope.recipients
        return ConnectionLost(self.ended, uncertain=not certain, not_started=certain and not first, offered=offered)
