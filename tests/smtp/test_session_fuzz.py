"""The session against relays that reply anything, and against a model of a correct relay, read by read."""

import os
import random
import re
from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st

from otpmail.errors import ConnectionLost
from otpmail.model import Envelope
from otpmail.smtp.capabilities import Capabilities
from otpmail.smtp.mode import Mode
from otpmail.smtp.replies import MAX_REPLY, Reply
from otpmail.smtp.session import Session
from otpmail.smtp.transaction import Transaction

_EXAMPLES = os.environ.get("OTPMAIL_FUZZ") or ("1500" if "CI" in os.environ else "200")
MANY = settings(deadline=None, max_examples=int(_EXAMPLES))
ALL = Capabilities({"PIPELINING": "", "CHUNKING": ""})
MODES = st.sampled_from(list(Mode))

_LINES = st.sampled_from(
    [
        *(
            b"250 ok\r\n",
            b"251 forwarded\r\n",
            b"299 fine\r\n",
            b"552 enough\r\n",
            b"250-more\r\n",
            b"250\r\n",
            b"550 no\r\n",
            b"451-a\r\n451 b\r\n",
            b"354 go\r\n",
            b"421 bye\r\n",
        ),
        *(b"250 lone\n", b"25", b"0 ok\r\n", b"\r\n", b"2", b"999 x\r\n", b"250-a\r\n550 b\r\n", b"220 hi\r\n", b"\0"),
    ]
)
_SAYINGS = st.lists(st.one_of(_LINES, st.binary(max_size=6)), max_size=24)


class Ledger:
    """Which command of which mail each whole reply is for, by their order on the wire alone."""

    def __init__(self) -> None:
        self.commands: list[tuple[bytes, int]] = []
        self.codes: list[int] = []
        self._mail = -1  # whose commands are being written
        self._line = b""

    def wrote(self, data: bytes) -> None:
        """Note the octets sent: commands, and contents after BDAT or after a 354."""
        while data:
            if self.commands[-1:] and self.commands[-1][0] == b"DATA" and self.codes[len(self.commands) - 1] == 354:
                _, _, data = data.partition(b".\r\n")
                self.commands.append((b"FINAL", self._mail))
                continue
            line, _, data = data.partition(b"\r\n")
            verb = line[:4]
            if sender := re.match(rb"MAIL FROM:<a(\d+)@", line):
                self._mail = int(sender[1])
            if chunk := re.fullmatch(rb"BDAT (\d+) LAST", line):
                verb, data = b"FINAL", data[int(chunk[1]) :]
            self.commands.append((verb, self._mail))

    def read(self, data: bytes) -> None:
        """Note the octets read: the last line of a reply is the one without a hyphen."""
        for octet in data:
            self._line += bytes([octet])
            if octet == 10:
                if self._line[3:4] != b"-":
                    self.codes.append(int(self._line[:3]) if self._line[:3].isdigit() else 0)
                self._line = b""

    def codes_of(self, mail: int, count: int) -> list[int]:
        """The code of each of the mail's recipients, in their order, by the replies to its own commands.

        There is no code for those that were refused with 452 or 552 behind an accepted one (RFC 5321, 4.5.3.1.10).
        """
        own = [(verb, code) for (verb, whose), code in zip(self.commands, self.codes, strict=False) if whose == mail]
        asked = dict(own)
        recipients = [code for verb, code in own if verb == b"RCPT"]
        if asked[b"MAIL"] >= 400:
            return [asked[b"MAIL"]] * count
        final = asked.get(b"FINAL", asked.get(b"DATA", 0))
        return [
            code if code >= 400 else final
            for place, code in enumerate(recipients)
            if code not in {452, 552} or all(earlier >= 400 for earlier in recipients[:place])
        ]


@MANY
@given(
    mode=MODES,
    sayings=_SAYINGS,
    mails=st.integers(1, 4),
    recipients=st.integers(1, 3),
    window=st.sampled_from([1, 2, 16]),
    cut=st.integers(1, 40),
    in_step=st.integers(0, 4),
    seed=st.integers(0, 1 << 32),
)
@example(mode=Mode.BDAT, sayings=[b"250 ok\r\n"] * 24, mails=4, recipients=1, window=16, cut=40, in_step=0, seed=0)
@example(
    mode=Mode.BDAT, sayings=[b"250 ok\r\n", b"220 hi\r\n"], mails=1, recipients=1, window=1, cut=1, in_step=0, seed=0
)
@example(
    mode=Mode.BDAT, sayings=[b"9" * MAX_REPLY, b"9" * 99], mails=1, recipients=1, window=1, cut=9999, in_step=0, seed=0
)
@example(mode=Mode.BDAT, sayings=[], mails=3, recipients=3, window=1, cut=1, in_step=3, seed=11)  # one at once
def test_any_replies(  # noqa: PLR0917 -- Hypothesis gives them by name
    mode: Mode, sayings: list[bytes], mails: int, recipients: int, window: int, cut: int, in_step: int, seed: int
) -> None:
    """Nothing is raised, every mail settles, and each outcome comes from the replies to the mail's own commands."""
    session = Session(ALL, mode, window=window)
    session.probe()
    begun: list[Transaction] = []
    settled: list[Transaction] = []
    ledger = Ledger()
    chance = random.Random(seed)
    stream = b"".join(_in_step(mode, recipients, chance) for _ in range(in_step)) + b"".join(sayings)
    if mode is Mode.BDAT:
        stream = b"503 no\r\n250 ok\r\n" + stream
        session.take(1 << 20)
        ledger.commands += [(b"BDAT", -1), (b"RSET", -1)]
    for start in range(0, len(stream), cut):
        while session.is_available and len(begun) < mails:
            begun.append(session.begin(_to(len(begun), recipients)))
        ledger.wrote(session.take(1 << 20))
        if not session.ended:
            ledger.read(stream[start : start + cut])
        settled += session.receive(stream[start : start + cut])
    settled += session.end("over")
    assert settled == begun
    assert session.end("again") == []
    for number, mail in enumerate(begun):
        if isinstance(mail.outcome, tuple):
            asked = mail.envelope.recipients  # fewer where the relay has shown how many it takes
            assert asked == _to(number, recipients).recipients[: len(asked)]
            assert [result.code for result in mail.outcome] == ledger.codes_of(number, len(asked))


class OneByOne(Session):
    """A session without the fast path: it reads each reply by itself."""

    def _take_all_well(self, replies: list[Reply], place: int, settled: list[Transaction]) -> int:  # noqa: ARG002
        return 0


def _talked(session: Session, stream: bytes, *, mails: int, recipients: int, cut: int, most: int) -> tuple[object, ...]:
    """All that results from a conversation, to the last octet written."""
    begun: list[Transaction] = []
    settled: list[list[Transaction]] = []
    written = b""
    for start in range(0, len(stream), cut):
        while session.is_available and len(begun) < mails:
            begun.append(session.begin(_to(len(begun), recipients)))
        written += session.take(most)
        settled.append(session.receive(stream[start : start + cut]))
    settled.append(session.end("over"))
    order = [[begun.index(transaction) for transaction in together] for together in settled]
    outcomes = [
        (str(outcome), outcome.uncertain, outcome.not_started) if isinstance(outcome, ConnectionLost) else outcome
        for outcome in (transaction.outcome for transaction in begun)
    ]
    return written, order, outcomes, repr(session), session.replies, session.answered


@MANY
@given(
    mode=MODES,
    sayings=st.lists(
        st.sampled_from([b"250 ok\r\n"] * 20 + [b"251 ok\r\n", b"550 no\r\n", b"421 bye\r\n", b"220 hi\r\n"])
    ),
    mails=st.integers(1, 6),
    recipients=st.integers(1, 3),
    window=st.sampled_from([1, 2, 16]),
    cut=st.integers(1, 200),
    most=st.sampled_from([10, 100, 1 << 20]),
)
def test_the_fast_path_is_the_full_path(  # noqa: PLR0917 -- Hypothesis gives them by name
    mode: Mode, sayings: list[bytes], mails: int, recipients: int, window: int, cut: int, most: int
) -> None:
    """All replies to a mail read in one step have the same effect as one by one."""
    stream = b"".join(sayings)
    short, long = (kind(ALL, mode, window=window) for kind in (Session, OneByOne))
    talk = {"mails": mails, "recipients": recipients, "cut": cut, "most": most}
    assert _talked(short, stream, **talk) == _talked(long, stream, **talk)


def _in_step(mode: Mode, recipients: int, chance: random.Random) -> bytes:
    """All replies of a relay in step to one mail, refusals included; without it hardly a session gets to a result."""

    def either() -> bytes:
        yes, no = [b"250 ok\r\n", b"251 ok\r\n"], [b"550 no\r\n", b"451 later\r\n", b"452 full\r\n"]
        return chance.choice(yes if chance.random() < 0.7 else no)

    sender = either()
    if mode is Mode.PLAIN and sender[:1] != b"2":
        return sender + b"250 reset\r\n"
    people = [either() if sender[:1] == b"2" else b"503 no\r\n" for _ in range(recipients)]
    said = sender + b"".join(people)
    if not any(reply[:1] == b"2" for reply in people):
        return said + (b"" if mode is Mode.PLAIN else b"503 nobody\r\n") + b"250 reset\r\n"
    final = either()
    said += (b"" if mode is Mode.BDAT else b"354 go\r\n") + final
    return said if mode is Mode.PLAIN and final[:1] == b"2" else said + b"250 reset\r\n"


def _to(number: int, recipients: int) -> Envelope:
    return Envelope(f"a{number}@x.org", tuple(f"b{number}.{n}@y.org" for n in range(recipients)), b"x\r\n")


@dataclass
class Model:
    """A correct relay that refuses by chance, and knows which mails it accepted: `taken`, by recipient."""

    chance: random.Random
    mode: Mode
    sticky: bool
    stays: bool  # it does not close after 421, and reads on
    closes: bool = True  # it says 421 now and then
    taken: list[str] = field(default_factory=list)
    sender: bool = False
    recipients: list[str] = field(default_factory=list)
    reading: bool = False
    buffer: bytes = b""
    said_421: bool = False

    def read(self, data: bytes) -> bytes:
        """Run the commands that have arrived so far; returns the replies."""
        self.buffer += data
        answers = b""
        while not self.said_421 and (answer := self._step()) is not None:
            answers += answer
        return answers

    def _step(self) -> bytes | None:
        if self.reading:
            content, end, rest = self.buffer.partition(b".\r\n")
            if not end:
                return None
            self.buffer, self.reading = rest, False
            return self._finish(content)
        line, end, rest = self.buffer.partition(b"\r\n")
        if not end:
            return None
        if chunk := re.fullmatch(rb"BDAT (\d+) LAST", line):
            if len(rest) < int(chunk[1]):
                return None
            content, self.buffer = rest[: int(chunk[1])], rest[int(chunk[1]) :]
            return self._finish(content)
        self.buffer = rest
        # XNIL is asked where a refusal came in the place of the reply to RSET.
        return self._command(line) if line != b"XNIL" else b"500 5.5.1 unknown\r\n"

    def _command(self, line: bytes) -> bytes:
        if line == b"RSET":
            self._forget()
            return b"250 2.0.0 reset\r\n"
        if self.closes and self.chance.random() < 0.02:
            return self._goodbye()
        refuses = self.chance.random() < 0.15
        if line.startswith(b"MAIL"):
            return self._mail(refuses=refuses)
        if line.startswith(b"RCPT"):
            return self._rcpt(line[9:-1].decode(), refuses=refuses)
        assert line == b"DATA", line  # anything else would be content that runs as a command
        if not self.recipients:
            return b"503 5.5.1 RCPT first\r\n"
        self.reading = True
        return b"354 go\r\n"

    def _mail(self, *, refuses: bool) -> bytes:
        if refuses or self.sender:
            return b"451 4.7.1 later\r\n" if refuses else b"503 5.5.1 nested\r\n"
        self.sender = True
        return b"250 2.1.0 ok\r\n"

    def _rcpt(self, recipient: str, *, refuses: bool) -> bytes:
        if not self.sender:
            return b"503 5.5.1 MAIL first\r\n"
        if refuses:
            return b"550-5.1.1 no\r\n550 5.1.1 such user\r\n"
        self.recipients.append(recipient)
        return b"250 2.1.5 ok\r\n"

    def _finish(self, content: bytes) -> bytes:
        if not self.recipients:
            if not self.sticky:
                self._forget()
            return b"503 5.5.1 RCPT first\r\n"
        if (chance := self.chance.random()) < 0.15:
            if not self.sticky:
                self._forget()
            return self._goodbye() if self.closes and chance < 0.02 else b"554 5.6.0 no\r\n"
        assert all(recipient in content.decode().split() for recipient in self.recipients)
        self.taken += self.recipients
        self._forget()
        return b"250 2.0.0 taken\r\n"

    def _forget(self) -> None:
        self.sender, self.recipients = False, []

    def _goodbye(self) -> bytes:
        self.said_421 = not self.stays
        return b"421 4.3.2 bye\r\n"


@MANY
@given(
    seed=st.integers(0, 1 << 32),
    mode=MODES,
    window=st.sampled_from([1, 3, 16]),
    sticky=st.booleans(),
    stays=st.booleans(),
)
def test_the_outcomes_are_what_happened(seed: int, mode: Mode, window: int, sticky: bool, stays: bool) -> None:  # noqa: FBT001
    """However writes and reads are cut and wherever it ends, each outcome is true and no recipients are mixed up."""
    chance = random.Random(seed)
    session = Session(ALL, mode, window=window)
    relay = Model(chance, mode, sticky, stays)
    mails: list[Transaction] = []
    unread = b""
    for _ in range(chance.randrange(20, 400)):
        if session.is_available and chance.random() < 0.6:
            people = tuple(f"p{len(mails)}.{n}@y.org" for n in range(chance.choice([1, 1, 2, 3])))
            mails.append(session.begin(Envelope("a@x.org", people, f"for {' '.join(people)}\r\n".encode())))
        if chance.random() < 0.7:
            unread += relay.read(session.take(chance.choice([1, 7, 50, 1 << 16])))
        if unread and chance.random() < 0.7:
            size = chance.randrange(1, len(unread) + 1)
            session.receive(unread[:size])
            unread = unread[size:]
        assert not session.ended or session.goodbye, session.ended
    if stays:
        session.stayed_open()  # as its connection notes of such a relay
    session.end("cut")
    assert len(set(relay.taken)) == len(relay.taken)
    for mail in mails:
        taken = [person in relay.taken for person in mail.envelope.recipients]
        if isinstance(mail.outcome, ConnectionLost):
            assert mail.outcome.uncertain or not any(taken)
        else:
            assert mail.outcome is not None
            assert [result.accepted for result in mail.outcome] == taken


@MANY
@given(
    seed=st.integers(0, 1 << 32),
    mode=st.sampled_from([Mode.BDAT, Mode.DATA]),
    window=st.sampled_from([1, 3, 16]),
    place=st.integers(0, 60),
)
def test_one_positive_reply_too_many(seed: int, mode: Mode, window: int, place: int) -> None:
    """Wherever a relay that refuses now and then sends a 250 too many, no outcome of a mail to one recipient is false.

    Except where it also says 421 in place of the reply to the very next mail. So does a relay which has accepted a
    mail, and then ends the connection.
    """
    chance = random.Random(seed)
    session = Session(ALL, mode, window=window)
    relay = Model(chance, mode, sticky=False, stays=False, closes=False)
    mails: list[Transaction] = []
    unread = b""
    said = 0
    while not session.ended and not session.goodbye and len(mails) < 40:
        if session.is_available and chance.random() < 0.6:
            person = f"p{len(mails)}@y.org"
            mails.append(session.begin(Envelope("a@x.org", (person,), f"for {person}\r\n".encode())))
        for line in relay.read(session.take(chance.choice([50, 1 << 16]))).splitlines(keepends=True):
            unread += line
            said += line[3:4] == b" "
            if said == place:
                unread += b"250 2.0.0 one too many\r\n"
                said += 1
        if unread and chance.random() < 0.7:
            size = chance.randrange(1, len(unread) + 1)
            session.receive(unread[:size])
            unread = unread[size:]
    session.end("cut")
    for mail in mails:
        if isinstance(mail.outcome, tuple):
            assert mail.outcome[0].accepted == (mail.envelope.recipients[0] in relay.taken)
