"""The session against relays that say anything, and against a model of one that can be trusted, read by read."""

import os
import random
import re
from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st

from otpmail.errors import ConnectionLost
from otpmail.model import Envelope
from otpmail.smtp.announcement import Announcement
from otpmail.smtp.replies import MAX_REPLY
from otpmail.smtp.transaction import Mode, Session, Transaction

_EXAMPLES = os.environ.get("OTPMAIL_FUZZ") or ("1500" if "CI" in os.environ else "200")
MANY = settings(deadline=None, max_examples=int(_EXAMPLES))
ALL = Announcement({"PIPELINING": "", "CHUNKING": ""})
MODES = st.sampled_from(list(Mode))

_LINES = st.sampled_from(
    [
        *(
            b"250 ok\r\n",
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


class Count:
    """An independent count of whole replies: how many lines have ended that are the last of theirs."""

    def __init__(self) -> None:
        self.codes: list[bytes] = []
        self._line = b""

    def see(self, data: bytes) -> None:
        """Read on."""
        for octet in data:
            self._line += bytes([octet])
            if octet == 10:
                if self._line[3:4] != b"-":
                    self.codes.append(self._line[:3])
                self._line = b""


@MANY
@given(
    mode=MODES, sayings=_SAYINGS, mails=st.integers(1, 4), window=st.sampled_from([1, 2, 16]), cut=st.integers(1, 40)
)
@example(mode=Mode.BDAT, sayings=[b"250 ok\r\n"] * 24, mails=4, window=16, cut=40)
@example(mode=Mode.BDAT, sayings=[b"250 ok\r\n", b"220 hi\r\n"], mails=1, window=1, cut=1)
@example(mode=Mode.BDAT, sayings=[b"9" * MAX_REPLY, b"9" * 99], mails=1, window=1, cut=9999)
def test_whatever_the_relay_says(mode: Mode, sayings: list[bytes], mails: int, window: int, cut: int) -> None:
    """Nothing is raised, all settles in the end, and nothing is relayed without three good replies of its own."""
    session = Session(ALL, mode, window=window)
    session.probe()
    begun: list[Transaction] = []
    settled: list[Transaction] = []
    count = Count()
    stream = b"".join(sayings)
    if mode is Mode.BDAT:
        stream = b"503 no\r\n250 ok\r\n" + stream
    for start in range(0, len(stream), cut):
        while session.room and len(begun) < mails:
            begun.append(session.begin(Envelope("a@x.org", (f"b{len(begun)}@y.org",), b"x\r\n")))
        session.take(1 << 20)
        if not session.ended:
            count.see(stream[start : start + cut])
        settled += session.receive(stream[start : start + cut])
    settled += session.end("over")
    assert settled == begun
    assert session.end("again") == []
    good = [mail for mail in settled if isinstance(mail.outcome, tuple) and mail.outcome[0].accepted]
    # A mail needs as many replies as it has commands, so so many whole positive ones must have been read.
    positive = sum(code in {b"250", b"251", b"252"} for code in count.codes)
    assert positive >= 3 * len(good)


@dataclass
class Model:
    """A relay that does as it should, refuses by chance, and knows what it took: `taken` by recipient."""

    chance: random.Random
    mode: Mode
    sticky: bool
    taken: list[str] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    sender: bool = False
    recipient: str = ""
    reading: bool = False
    buffer: bytes = b""
    said_421: bool = False

    def read(self, data: bytes) -> bytes:
        """Do what can be done with what has come so far, and answer it."""
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
        return self._command(line)

    def _command(self, line: bytes) -> bytes:
        if line == b"RSET":
            self.sender, self.recipient = False, ""
            return b"250 2.0.0 reset\r\n"
        if self.chance.random() < 0.02:
            self.said_421 = True
            return b"421 4.3.2 bye\r\n"
        refuses = self.chance.random() < 0.15
        if line.startswith(b"MAIL"):
            return self._mail(refuses=refuses)
        if line.startswith(b"RCPT"):
            return self._rcpt(line[9:-1].decode(), refuses=refuses)
        assert line == b"DATA", line  # anything else would be content that is run as a command
        if not self.recipient:
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
        self.recipient = recipient
        return b"250 2.1.5 ok\r\n"

    def _finish(self, content: bytes) -> bytes:
        if not self.recipient:
            if not self.sticky:
                self.sender = False
            return b"503 5.5.1 RCPT first\r\n"
        if self.chance.random() < 0.15:
            if not self.sticky:
                self.sender, self.recipient = False, ""
            return b"554 5.6.0 no\r\n"
        assert content == f"for {self.recipient}\r\n".encode()
        self.taken.append(self.recipient)
        self.sender, self.recipient = False, ""
        return b"250 2.0.0 taken\r\n"


@MANY
@given(seed=st.integers(0, 1 << 32), mode=MODES, window=st.sampled_from([1, 3, 16]), sticky=st.booleans())
def test_what_is_told_is_what_happened(seed: int, mode: Mode, window: int, sticky: bool) -> None:  # noqa: FBT001
    """However writes and reads are cut and wherever it ends: each mail only to its own person, and told as it was."""
    chance = random.Random(seed)
    session = Session(ALL, mode, window=window)
    relay = Model(chance, mode, sticky)
    outcomes: dict[str, Transaction] = {}
    unread = b""
    for _ in range(chance.randrange(20, 400)):
        if session.room and chance.random() < 0.6:
            person = f"p{len(outcomes)}@y.org"
            outcomes[person] = session.begin(Envelope("a@x.org", (person,), f"for {person}\r\n".encode()))
        if chance.random() < 0.7:
            unread += relay.read(session.take(chance.choice([1, 7, 50, 1 << 16])))
        if unread and chance.random() < 0.7:
            size = chance.randrange(1, len(unread) + 1)
            session.receive(unread[:size])
            unread = unread[size:]
        assert not session.ended or session.farewell, session.ended
    session.end("cut")
    assert len(set(relay.taken)) == len(relay.taken)
    for person, mail in outcomes.items():
        if isinstance(mail.outcome, ConnectionLost):
            assert mail.outcome.uncertain or person not in relay.taken
        else:
            assert mail.outcome is not None
            assert mail.outcome[0].accepted == (person in relay.taken)
