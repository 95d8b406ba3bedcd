"""The client side of an SMTP session after sign-in, without I/O: decides which octets may leave, and reads replies.

The session matches replies to commands by counting, never by their text (RFC 2920, 3.1). A reply that matches no
command ends the session, so that it reaches no other mail. The session's `mode` decides how mails are sent:

BDAT    `MAIL RCPT.. BDAT n LAST <content> RSET` in one flight, the next mail behind it without waiting (RFC 3030)
DATA    `MAIL RCPT.. DATA` in one flight; then `<content> . RSET` and the next mail's in another (RFC 2920, 3.1)
PLAIN   one command at a time (RFC 5321), RSET only before a mail that follows one which did not end well

RSET ends the relay's transaction in any case, so that no command runs in another mail's transaction. By BDAT and DATA
the reply to RSET settles the mail. If a positive reply too many has put replies out of step, the true reply to the mail
comes there. A refusal then reveals the fault. A relay that refuses RSET itself gets one mail at a time.
"""

from operator import attrgetter

from otpmail.errors import ConnectionLost
from otpmail.model import Envelope
from otpmail.smtp.capabilities import Capabilities
from otpmail.smtp.doubts import Doubts
from otpmail.smtp.flights import Flights
from otpmail.smtp.habits import Habits
from otpmail.smtp.kinds import way_to_send
from otpmail.smtp.mode import Mode
from otpmail.smtp.output import Output
from otpmail.smtp.probe import QUESTION, Probe, Verdict
from otpmail.smtp.redaction import NO_SECRETS, Redactor
from otpmail.smtp.replies import CLOSING, MalformedReply, Reply, ReplyReader
from otpmail.smtp.transaction import Awaits, Callback, Due, SessionEnded, Transaction, Unasked, ignore
from otpmail.smtp.words import Words

BACKLOG = 64 << 10
"""Octets that may wait to be written before the session takes no further mail, so none waits behind a large one."""

_NO_RESET = "the relay refuses RSET"
_MAIL = Awaits.MAIL  # a global is read in less time than a member of an Enum
_CODE, _WELL = attrgetter("code"), frozenset({250})


class Session:
    """Mails in, octets out; octets in, outcomes out. The order of the calls is the order of the wire.

    `flights` are the mails that have begun and not ended, in their order. `ended` holds the cause once the session
    cannot go on. Then nothing may be sent or read any more, and `end` tells the outcomes of the mails in flight.
    `redactor` knows the credentials, which no result and no cause of an end repeats. `habits` are the relay's, shared
    by all sessions with it. `words` has the reply with which the relay ended it.
    """

    def __init__(
        self,
        capabilities: Capabilities,
        mode: Mode,
        *,
        window: int,
        redactor: Redactor = NO_SECRETS,
        habits: Habits | None = None,
    ) -> None:
        self.capabilities = capabilities
        self.flights = Flights()
        self.output = Output()
        self.begun = self.sent = 0
        self.answered = 0  # mails that the relay has accepted or refused; 421 is neither
        self.replies = 0
        self.runs_refused_chunks = False
        self.goodbye = ""  # the reply with 421
        self.ended = ""
        self._wanted_window = window
        self.habits = habits or Habits()
        self._clean = True  # whether no transaction is open at the relay, as far as it has replied
        self._doubts = Doubts()
        self._probe: Probe | None = None
        self._reader, self.words = ReplyReader(), Words(redactor, self.flights)
        self._resets = self.habits.resets
        self._set_way(mode)

    def __repr__(self) -> str:
        state = self.ended or self.goodbye or "open"
        return f"<Session {self.mode} {state}, {len(self.flights)}/{self.window} in flight, {self.sent} sent>"

    @property
    def is_available(self) -> bool:
        """Whether another mail may begin."""
        return (
            len(self.flights) < self.window
            and self.output.pending < BACKLOG
            and (self._clean or self._resets)
            and not (self.ended or self.goodbye or self._probe)
        )

    @property
    def is_spent(self) -> bool:
        """Whether it takes no mail any more, since the last one did not end well and the relay refuses RSET."""
        return not (self._clean or self._resets)

    @property
    def is_probing(self) -> bool:
        """Whether the answer to the probe is due, and no mail may begin yet."""
        return self._probe is not None

    @property
    def awaits_reply(self) -> bool:
        """Whether the relay owes a reply."""
        return bool(self.flights) or self._probe is not None

    @property
    def due(self) -> Due:
        """The work of the relay while a reply is due, which decides how long it may take."""
        flights = self.flights
        return flights[flights.unchecked].due if flights.unchecked < len(flights) else Due.STEP

    # Octets out.

    def probe(self) -> None:
        """Before the first mail, find out whether a chunk may be sent together with RCPT; if not, use DATA.

        A relay that does not discard the chunk of a BDAT it refuses would run a mail's content as commands.
        """
        if self.mode is Mode.BDAT:
            self._probe = Probe()
            self.output.push(QUESTION, replies=0)  # the number of replies is the question

    def begin(self, envelope: Envelope, callback: Callback = ignore) -> Transaction:
        """Begin a mail, for which the session must be available. Nothing of it is written before `take`.

        The session keeps `callback` with it, for its caller. It goes to as many of its recipients as the relay takes
        at once. If the relay can't take it for some of these, its `outcome` at once is about them alone.
        """
        if len(envelope.recipients) > 1:
            envelope = self.habits.first_of(envelope, self.capabilities)
        envelope = self.capabilities.adapted(envelope) if envelope.smtputf8 else envelope
        if self.habits.resets is not self._resets and not self.flights:
            self._forgo_resets()
        transaction = self._kind(envelope, self.capabilities, self.words.redactor, callback)
        if not envelope.recipients:
            transaction.outcome = ()
            return transaction
        rejected = self.capabilities.rejects(envelope)
        if rejected:
            transaction.outcome = Unasked(rejected)
            return transaction
        self.begun += 1
        if envelope.code:
            self.words.recent.append(envelope.code)
        self.flights.append(transaction)
        if self.mode is Mode.BDAT:  # all may start at once
            transaction.start(self.output, reset_first=False)
        else:
            self.flights.start_next(self.output, reset_first=not self._clean)
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
            if self._probe is not None and (question := self._probe.follow_up()):
                self.output.push(question, replies=0)
            if not self.flights and self._probe is None and self._reader.is_partial:
                doubtful = not self._reader.may_be(CLOSING)
                raise SessionEnded("the relay began to say something unasked", doubtful=doubtful)
        except (MalformedReply, SessionEnded) as error:
            self.ended = self.words.about(error)
            if isinstance(error, MalformedReply) or error.doubtful:
                self.goodbye = ""
                self._doubts.unsettle(settled, self.ended)
        return settled

    def stayed_open(self) -> None:
        """Note that the relay has not closed in good time after its goodbye: it may yet take a mail behind that."""
        self._doubts.goes_on = True

    def end(self, cause: str) -> list[Transaction]:
        """The connection is over. Returns the transactions in flight, in their order, each with its outcome."""
        self.ended = self.ended or self.goodbye or cause
        left, unchecked = list(self.flights), self.flights.unchecked
        for place, transaction in enumerate(left):
            if place < unchecked:
                transaction.doubt(self.ended)
            elif transaction.is_decided and not self._doubts.out_of_step:
                self._settle(transaction)
            else:
                self._doubts.lose(transaction, self.ended, said_goodbye=bool(self.goodbye), first=place == 0)
                self.habits.learn(transaction)
        self.flights.clear()
        self.output.clear()
        self._probe = None
        return left

    # The rules.

    def _forgo_resets(self) -> None:
        self._resets = False
        self.habits.forgo_resets()
        self._set_way(self.mode)

    def _set_way(self, mode: Mode) -> None:
        self.mode, self.window, self._kind = way_to_send(mode, self._wanted_window, resets=self._resets)

    def _read_all(self, replies: list[Reply], settled: list[Transaction]) -> None:
        place = 0
        while place < len(replies):
            if not (taken := self._take_all_well(replies, place, settled)):
                self._read(replies[place], settled)
            place += taken or 1

    def _take_all_well(self, replies: list[Reply], place: int, settled: list[Transaction]) -> int:
        """Read the replies to the next mails as far as they are all there and all 250; returns how many those are."""
        # fast path: nearly every mail by BDAT ends so, 5 us a mail; held to the full path by
        # tests/smtp/test_session_fuzz.py
        flights, output, begin, before = self.flights, self.output, place, len(settled)
        while flights and not (self.goodbye or self._probe):
            transaction = flights[0]
            count = len(transaction.envelope.recipients) + 3  # MAIL, each RCPT, BDAT, RSET
            # Only by BDAT a mail may be written while its first reply is due.
            if not transaction.written or transaction.awaits is not _MAIL or output.owed < count:
                break
            answers = replies[place : place + count]
            if len(answers) < count or not _WELL.issuperset(map(_CODE, answers)):
                break
            place += count
            output.owed -= count
            flights.popleft()
            transaction.accept(answers[-2])
            settled.append(transaction)
            if count > 4:
                self.habits.recipients.took(count - 3)
        if place > begin:
            self._clean, taken = True, len(settled) - before
            self.sent, self.answered = self.sent + taken, self.answered + taken
        return place - begin

    def _read(self, reply: Reply, settled: list[Transaction]) -> None:
        if reply.code == CLOSING:
            self.goodbye = self.goodbye or f"the relay said: {self.words.part(reply)}"
        elif self.goodbye:
            self._doubts.goes_on = True
        if self._probe is not None:
            self._read_probe_reply(self._probe.read(reply), reply)
            return
        if not self.output.owed:  # even if a mail has begun: its commands have not left
            raise SessionEnded("the relay said unasked", reply, doubtful=reply.code != CLOSING)
        self.output.owed -= 1
        transaction = self.flights.current
        try:
            transaction.read(reply, self.output)
        finally:
            if transaction.reset_refused and self._resets:
                self._forgo_resets()
        for completed in self.flights.take_completed(self.output):
            self._settle(completed)
            settled.append(completed)
        if transaction.reset_refused and not transaction.is_taken and self.flights.next_is_unwritten:
            self._doubts.over_reset = True
            raise SessionEnded(_NO_RESET, reply, doubtful=False)  # the next one could become a part of its transaction
        if self.mode is not Mode.BDAT:
            self.flights.start_next(self.output, reset_first=not self._clean)

    def _settle(self, transaction: Transaction) -> None:
        was_open = not (self._clean or self._resets)
        self._clean = transaction.is_over
        self.sent += transaction.is_taken
        if was_open and transaction.refusal is not None:  # MAIL within a transaction, which says nothing of this mail
            transaction.miss(_NO_RESET)
        else:
            transaction.settle(self.goodbye)
        if len(transaction.envelope.recipients) > 1:
            self.habits.learn(transaction)
        self.answered += not isinstance(transaction.outcome, ConnectionLost)

    def _read_probe_reply(self, verdict: Verdict, reply: Reply) -> None:
        if self.goodbye:
            raise SessionEnded(self.goodbye, doubtful=False)
        if verdict is Verdict.OPEN:
            return
        self._probe = None
        if verdict is Verdict.REFUSES_RESET:
            self._forgo_resets()
        elif verdict is not Verdict.DISCARDS:
            self.runs_refused_chunks = True
            self._set_way(Mode.DATA)
        if verdict is Verdict.UNUSABLE:
            raise SessionEnded("unexpected reply to RSET", reply, doubtful=False)
