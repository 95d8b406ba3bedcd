"""The client's side of an SMTP session after sign-in, as rules without I/O: which bytes may go out, what replies mean.

Replies are matched to commands by counting, never by their text (RFC 2920, 3.1). What can't be matched ends the
session: a reply must not reach another mail. How mails travel is the session's `mode`:

BDAT    `MAIL RCPT.. BDAT n LAST <content> RSET` in one flight, the next mail behind it without waiting (RFC 3030)
DATA    `MAIL RCPT.. DATA` in one flight; then `<content> . RSET` and the next mail's in another (RFC 2920, 3.1)
PLAIN   a command at a time (RFC 5321), RSET only before a mail that follows one which did not end well

The RSET does two things. It ends the transaction over there however it went, so that no mail's commands run in
another's. And a mail is settled only when it is answered: where a positive reply too many has put replies out of step,
the relay's true word on the mail is what is read there, and anything but 250 tells.
"""

from collections import deque
from typing import Any

from otpmail.errors import ConnectionLost
from otpmail.model import Envelope
from otpmail.smtp.capabilities import Capabilities
from otpmail.smtp.mode import Mode
from otpmail.smtp.output import Output
from otpmail.smtp.probe import QUESTION, Probe, Verdict
from otpmail.smtp.replies import CLOSING, MalformedReply, Reply, ReplyReader, result
from otpmail.smtp.transaction import Awaits, Results, Transaction, commands, mail_command, rcpt_command, stuff

BACKLOG = 64 << 10
"""Octets that may wait to be written before the session takes no further mail: none is to sit behind a large one."""

_RSET = b"RSET\r\n"
_MAIL_OK = frozenset({250})
_RCPT_OK = frozenset({250, 251, 252})


class _Ended(Exception):
    """The session can't go on. `doubtful`: replies and commands may have been out of step before it was seen."""

    def __init__(self, cause: str, *, doubtful: bool) -> None:
        super().__init__(cause)
        self.doubtful = doubtful


class Session:
    """Mails in, bytes out; bytes in, outcomes out. The order of the calls is the order of the wire.

    `ended` holds the cause once the session can't go on; then nothing may be sent or read any more, and `end` says what
    that means for the mails in flight.
    """

    def __init__(self, announcement: Capabilities, mode: Mode, *, window: int) -> None:
        self.announcement = announcement
        self.mode = mode
        self.window = mode.window(window)
        self.ended = ""
        self.begun = 0
        self.sent = 0
        self.answered = 0  # mails that the relay has taken or refused; 421 is neither
        self.replies = 0
        self._wanted_window = window
        self._flights: deque[Transaction] = deque()
        self._output = Output()
        self._clean = True  # whether the last transaction is known to have ended well
        self.runs_refused_chunks = False
        self.farewell = ""  # what the relay said with 421
        self._stays = False  # whether the relay went on after that, or did not close
        self._doubted = False  # whether it ended with replies and commands out of step
        self._probe: Probe | None = None
        self._reader = ReplyReader()

    def __repr__(self) -> str:
        state = self.ended or self.farewell or "open"
        return f"<Session {self.mode} {state}, {len(self._flights)}/{self.window} in flight, {self.sent} sent>"

    # What a caller may ask.

    @property
    def in_flight(self) -> int:
        """How many mails have begun and not ended."""
        return len(self._flights)

    @property
    def is_available(self) -> bool:
        """Whether another mail may begin."""
        return (
            len(self._flights) < self.window
            and self._output.pending < BACKLOG
            and not (self.ended or self.farewell or self._probe)
        )

    @property
    def probing(self) -> bool:
        """Whether the relay is being tried and no mail may begin yet."""
        return self._probe is not None

    @property
    def owed(self) -> bool:
        """Whether the relay owes a reply."""
        return bool(self._flights) or self._probe is not None

    @property
    def may_take_long(self) -> bool:
        """Whether what the relay owes next may wait for its word on a content that it has all of.

        By BDAT that is so for all of a mail's replies: those to MAIL and RCPT, and to the RSET of the mail before, may
        be held back until there is no more input to be read (RFC 2920, 3.2), the content included.
        """
        if not self._flights:
            return False
        first = self._flights[0]
        return first.written and (first.awaits is Awaits.FINAL or self.mode is Mode.BDAT)

    # Bytes out.

    def probe(self) -> None:
        """Before the first mail, find out whether it is safe to send a chunk together with RCPT; if not, use DATA.

        A relay that does not read past the chunk of a BDAT it refuses would run a mail's content as commands.
        """
        if self.mode is Mode.BDAT:
            self._probe = Probe()
            self._output.push(QUESTION, asks=0)  # how many replies it gets is the question

    def begin(self, envelope: Envelope, tag: Any = None) -> Transaction:
        """Begin a mail, which there must be `is_available` for. Nothing of it is written before `take`.

        What the relay can't take, or would be unsafe to say, is settled at once: its `outcome` is set then.
        """
        transaction = Transaction(envelope, tag)
        refusal = self.announcement.rejects(envelope)
        if not envelope.recipients:
            transaction.outcome = ()
            return transaction
        if refusal is not None:
            transaction.outcome = tuple(result(address, refusal) for address in envelope.recipients)
            return transaction
        self.begun += 1
        self._flights.append(transaction)
        if self.mode is Mode.BDAT:
            self._start_chunk(transaction)
        else:
            self._advance()
        return transaction

    def take(self, most: int) -> bytes:
        """The next octets to write, at most `most`; they count as written. Empty when there are none."""
        if self.farewell:  # it would not be read, and what has not left is certain not to have arrived
            return b""
        return self._output.take(most)

    # Bytes in.

    def receive(self, data: bytes) -> list[Transaction]:
        """Read what the relay sent, in pieces of any size. Returns the transactions whose `outcome` is now known.

        Once `ended` is set nothing is read any more. Raises nothing.
        """
        settled: list[Transaction] = []
        if self.ended:
            return settled
        replies: list[Reply] = []
        try:
            try:
                self._reader.feed(data, replies)
            finally:
                self.replies += len(replies)
                self._read_all(replies, settled)
            if self._reader.halfway and not self.owed:
                goodbye = self._reader.may_be(CLOSING)
                raise _Ended("the relay began to say something unasked", doubtful=not goodbye)
        except MalformedReply as error:
            self._end(str(error), settled, doubtful=True)
        except _Ended as error:
            self._end(str(error), settled, doubtful=error.doubtful)
        return settled

    def overstayed(self) -> None:
        """The relay has not closed in good time after its 421: what it has of a mail behind that, it may take yet."""
        self._stays = True

    def end(self, cause: str) -> list[Transaction]:
        """The connection is over. Returns the transactions in flight, in their order, each with its outcome."""
        self.ended = self.ended or cause
        left = list(self._flights)
        for place, transaction in enumerate(left):
            transaction.outcome = self._unfinished(transaction, first=place == 0)
        self._flights.clear()
        self._output.clear()
        self._probe = None
        return left

    # The rules.

    def _advance(self) -> None:
        """Write the commands that may go now; not by BDAT, where all may, at once."""
        ahead: Transaction | None = None
        for transaction in self._flights:
            if not transaction.begun and (
                ahead is None
                # Content may open a group.
                or (self.mode is Mode.DATA and ahead.awaits in (Awaits.FINAL, Awaits.RESET))
            ):
                self._start(transaction)
            ahead = transaction

    def _start(self, transaction: Transaction) -> None:
        transaction.begun = True
        envelope = transaction.envelope
        if self.mode is Mode.DATA:
            head = commands(envelope, self.announcement)
            self._output.push(b"%bDATA\r\n" % head, asks=len(envelope.recipients) + 2)
        elif self._clean:
            self._output.push(mail_command(envelope, self.announcement))
        else:
            transaction.awaits = Awaits.RESET_BEFORE
            self._output.push(_RSET)

    def _start_chunk(self, transaction: Transaction) -> None:
        transaction.begun = True
        envelope = transaction.envelope
        head, content = commands(envelope, self.announcement), envelope.content
        asks, size = len(envelope.recipients) + 2, len(content)
        if size < BACKLOG:
            group = b"".join((head, b"BDAT %d LAST\r\n" % size, content, _RSET))
            self._output.push(group, transaction, asks=asks + 1, behind=len(_RSET))
        else:
            self._output.push(b"%bBDAT %d LAST\r\n" % (head, size), asks=asks)
            self._output.push(content, transaction, asks=0)
            self._output.push(_RSET)

    def _read_all(self, replies: list[Reply], settled: list[Transaction]) -> None:
        place = 0
        while place < len(replies):
            taken = self._take_all_well(replies, place, settled)
            if not taken:
                self._read(replies[place], settled)
                taken = 1
            place += taken

    def _take_all_well(self, replies: list[Reply], place: int, settled: list[Transaction]) -> int:
        """Read the replies to the next mail where they are all there and all 250, and return how many they are.

        It is what `_read` would do of each, in one step: nearly every mail by BDAT ends so.
        """
        if not self._flights or self.farewell or self._probe is not None:
            return 0
        transaction = self._flights[0]
        count = len(transaction.envelope.recipients) + 3  # MAIL, each RCPT, BDAT, RSET
        # By BDAT alone a mail may be written of which nothing has been heard.
        if not (transaction.written and transaction.unheard) or self._output.asked < count:
            return 0
        answers = replies[place : place + count]
        if len(answers) < count:
            return 0
        for reply in answers:
            if reply.code != 250:
                return 0
        self._output.asked -= count
        self._flights.popleft()
        self._clean = True
        self.sent += 1
        self.answered += 1
        transaction.take(answers[-2])
        settled.append(transaction)
        return count

    def _read(self, reply: Reply, settled: list[Transaction]) -> None:
        if reply.code == CLOSING:
            self.farewell = self.farewell or f"the relay said: {reply}"
        elif self.farewell:
            self._stays = True
        if self._probe is not None:
            self._probed(self._probe.hear(reply), reply)
            return
        if not self._output.asked:  # even if a mail has begun: the answer to what has not left is none
            raise _Ended(f"the relay said unasked: {reply}", doubtful=reply.code != CLOSING)
        self._output.asked -= 1
        self._heard(self._flights[0], reply, settled)

    def _heard(self, transaction: Transaction, reply: Reply, settled: list[Transaction]) -> None:
        match transaction.awaits:
            case Awaits.RECIPIENT:
                self._heard_of_recipient(transaction, reply, settled)
            case Awaits.MAIL:
                self._heard_of_sender(transaction, reply, settled)
            case Awaits.FINAL:
                self._heard_of_content(transaction, reply, settled)
            case Awaits.GO_AHEAD:
                self._heard_of_data(transaction, reply, settled)
            case Awaits.RESET:
                _reset(reply)
                self._finish(transaction, settled)
            case Awaits.RESET_BEFORE:
                _reset(reply)
                transaction.awaits = Awaits.MAIL
                self._output.push(mail_command(transaction.envelope, self.announcement))

    def _heard_of_sender(self, transaction: Transaction, reply: Reply, settled: list[Transaction]) -> None:
        if not _positive(reply, _MAIL_OK):
            transaction.refusal = reply
        transaction.awaits = Awaits.RECIPIENT
        if self.mode is Mode.PLAIN:
            if transaction.refusal is not None:
                self._finish(transaction, settled)
            else:
                self._output.push(rcpt_command(transaction.envelope.recipients[0]))

    def _heard_of_recipient(self, transaction: Transaction, reply: Reply, settled: list[Transaction]) -> None:
        transaction.accepted += _positive(reply, _RCPT_OK)
        replies = transaction.replies
        replies.append(reply)
        recipients = transaction.envelope.recipients
        if len(replies) == len(recipients):
            transaction.awaits = Awaits.FINAL if self.mode is Mode.BDAT else Awaits.GO_AHEAD
            if self.mode is Mode.PLAIN:
                if transaction.accepted:
                    self._output.push(b"DATA\r\n")
                else:
                    self._finish(transaction, settled)
        elif self.mode is Mode.PLAIN:
            self._output.push(rcpt_command(recipients[len(replies)]))

    def _heard_of_data(self, transaction: Transaction, reply: Reply, settled: list[Transaction]) -> None:
        if reply.code != 354:
            _positive(reply, frozenset())
            transaction.final = reply
            if self.mode is Mode.PLAIN:
                self._finish(transaction, settled)
            else:
                transaction.awaits = Awaits.RESET
                self._output.push(_RSET)
                self._advance()
            return
        transaction.awaits = Awaits.FINAL
        if not transaction.hopeless:
            self._output.push(stuff(transaction.envelope.content), transaction)
        elif transaction.accepted:
            raise _Ended("the relay refused the sender, and then took recipients and content", doubtful=True)
        else:
            self._output.push(b".\r\n", transaction)  # it asks for the content of a mail that it takes for nobody
        if self.mode is Mode.DATA:
            self._output.push(_RSET)
        self._advance()

    def _heard_of_content(self, transaction: Transaction, reply: Reply, settled: list[Transaction]) -> None:
        positive = _positive(reply, _MAIL_OK)
        if not transaction.written:
            if positive:
                raise _Ended(f"the relay took a mail before it had been sent: {reply}", doubtful=True)
            transaction.final = reply
            self._finish(transaction, settled)
            raise _Ended(f"the relay refused a mail before it had been sent: {reply}", doubtful=False)
        if positive and transaction.hopeless and self.mode is Mode.BDAT:
            raise _Ended(f"the relay took a mail that it had refused for everybody: {reply}", doubtful=True)
        transaction.final = reply
        if self.mode is Mode.PLAIN:
            self._finish(transaction, settled)
        else:
            transaction.awaits = Awaits.RESET

    def _finish(self, transaction: Transaction, settled: list[Transaction]) -> None:
        self._flights.popleft()
        self._settle(transaction)
        settled.append(transaction)
        if self._flights and self.mode is not Mode.BDAT:
            self._advance()

    def _settle(self, transaction: Transaction) -> None:
        self._clean = transaction.final is not None and transaction.final.code == 250 and not transaction.hopeless
        self.sent += self._clean
        transaction.outcome = transaction.results()
        self.answered += not isinstance(transaction.outcome, ConnectionLost)

    def _probed(self, verdict: Verdict, reply: Reply) -> None:
        if self.farewell:
            raise _Ended(self.farewell, doubtful=False)
        if verdict is Verdict.OPEN:
            return
        self._probe = None
        if verdict is not Verdict.DISCARDS:
            self.runs_refused_chunks = True
            self.mode = Mode.DATA
            self.window = self.mode.window(self._wanted_window)
        if verdict is Verdict.UNUSABLE:
            raise _Ended(f"unexpected reply to RSET: {reply}", doubtful=False)

    def _end(self, cause: str, settled: list[Transaction], *, doubtful: bool) -> None:
        self.ended = cause
        if doubtful:
            # The reply that gave it away may not have been the first that went to the wrong mail.
            self.farewell = ""
            self._doubted = True
            for transaction in settled:
                transaction.outcome = ConnectionLost(cause, uncertain=transaction.written)

    def _unfinished(self, transaction: Transaction, *, first: bool) -> Results | ConnectionLost:
        if transaction.decided and not self._doubted:
            self._settle(transaction)
            assert transaction.outcome is not None
            return transaction.outcome
        # The relay can't have a mail whose last octet never left; nor one that came after its goodbye, if it meant it.
        certain = bool(self.farewell and not self._stays) or not transaction.written
        return ConnectionLost(self.ended, uncertain=not certain, not_started=certain and not first)


def _positive(reply: Reply, good: frozenset[int]) -> bool:
    """Whether the reply is one of `good`, or else a refusal. Raises _Ended when it is neither."""
    if reply.code in good:
        return True
    if reply.code < 400:
        raise _Ended(f"unexpected reply: {reply}", doubtful=True)
    return False


def _reset(reply: Reply) -> None:
    """Raise _Ended unless the reply is one that RSET may get: 250, or a goodbye (RFC 5321, 4.1.1.5)."""
    if reply.code not in (250, CLOSING):
        raise _Ended(f"unexpected reply to RSET: {reply}", doubtful=True)
