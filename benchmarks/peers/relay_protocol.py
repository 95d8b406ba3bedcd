"""SMTP as the benchmark relay speaks it, how far away it pretends to be, and what it counts.

It keeps no mail. A mail that arrives in one piece costs it one match of a regular expression. It is strict where that
costs nothing. It refuses and counts a command that is unknown, out of order, or sent before a reply it had to wait for.
A client is not fast by being wrong.
"""

import asyncio
import re
from dataclasses import asdict, dataclass, field
from enum import Enum, auto
from typing import cast

from benchmarks.peers.delay_line import DelayLine
from benchmarks.smtp_client import CREDENTIALS

HIDEABLE = ("PIPELINING", "CHUNKING")

_OK = b"250 2.0.0 OK\r\n"
_TAKEN = 3 * _OK  # MAIL, RCPT and BDAT
_REFUSED = b"503 5.5.1 not now\r\n"
_UNKNOWN = b"500 5.5.2 what\r\n"
_MAIL = re.compile(rb"MAIL FROM:<[^<>\s]*>(?: [!-~ ]+)?\r\n", re.IGNORECASE)
_RCPT = re.compile(rb"RCPT TO:<[^<>\s]+>(?: [!-~ ]+)?\r\n", re.IGNORECASE)
_BDAT = re.compile(rb"BDAT (\d+)( LAST)?\r\n", re.IGNORECASE)
_WHOLE = re.compile(_MAIL.pattern + _RCPT.pattern + rb"BDAT (\d+) LAST\r\n")
_END = b"\r\n.\r\n"
_MESSAGE_ID = re.compile(rb"^Message-ID:\s*(<[^>]*>)", re.IGNORECASE | re.MULTILINE)
_HEAD = 16 << 10  # octets in which the Message-ID is looked for
_LONGEST_LINE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Conduct:
    """How far away the relay is, what it announces, how long it takes over a mail, and whether it notes Message-IDs.

    `round_trip` and `accept` are in seconds. `accept` passes before each final reply and delays all later replies of
    the connection, as with a relay that works through its input. The relay refuses each `refuse_every`th of all mails
    for good at its end. It says 421 and closes the connection after each `close_every`th of all mails, and when
    one connection begins a mail after `close_after` others. It reads nothing after 421.
    """

    round_trip: float = 0.0
    accept: float = 0.0
    hidden: frozenset[str] = frozenset()
    distinct: bool = False
    refuse_every: int = 0
    close_every: int = 0
    close_after: int = 0

    @property
    def by_the_whole(self) -> bool:
        """Whether the relay may read several whole mails at a time, and answer them in one piece."""
        plain = not (self.accept or self.refuse_every or self.close_every)
        return plain and not self.hidden  # without PIPELINING no mail comes in one piece

    @property
    def announcement(self) -> bytes:
        """The reply to EHLO."""
        shown = [keyword for keyword in HIDEABLE if keyword not in self.hidden]
        first = ["relay.example", *shown, "SIZE 52428800", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"]
        return "".join(f"250-{line}\r\n" for line in first).encode() + b"250 AUTH PLAIN\r\n"


@dataclass(slots=True)
class Counts:
    """The counts of all connections together."""

    connections: int = 0
    mails: int = 0
    refused: int = 0
    closed: int = 0
    recipients: int = 0
    octets: int = 0
    refused_chunks: int = 0
    errors: int = 0
    first_error: str = ""
    message_ids: set[bytes] = field(default_factory=set)

    def error(self, reason: str, octets: bytes) -> None:
        """Count a client's error, and keep the first with its reason."""
        self.errors += 1
        self.first_error = self.first_error or f"{reason}: {octets[:80]!r}"

    def note(self, content: bytes) -> None:
        """Remember the Message-ID of a mail."""
        found = _MESSAGE_ID.search(content, 0, _HEAD)
        if found is None:
            self.error("no Message-ID", content)
        else:
            self.message_ids.add(found[1])

    def summary(self) -> dict[str, object]:
        """All counts, and how many Message-IDs are distinct."""
        return asdict(self) | {"message_ids": len(self.message_ids)}


class State(Enum):
    """The state of a connection."""

    NEW = auto()  # not signed in
    READY = auto()
    MAIL = auto()  # the sender is known
    CHUNK = auto()  # of BDAT
    CONTENT = auto()  # of DATA


class RelayProtocol(asyncio.Protocol):
    """One connection: the octets of an incomplete command, the state, and the replies to what was read just now."""

    def __init__(self, conduct: Conduct, counts: Counts) -> None:
        self._conduct = conduct
        self._counts = counts
        self._pipelining = "PIPELINING" not in conduct.hidden
        self._chunking = "CHUNKING" not in conduct.hidden
        self._by_the_whole = conduct.by_the_whole
        self._state = State.NEW
        self._ended = False  # the goodbye is written; what still comes is not read
        self._rest = b""
        self._replies: list[bytes] = []
        self._mails = 0
        self._recipients = 0
        self._size = 0
        self._left = 0  # of a chunk, octets
        self._last = False  # that chunk ends the mail
        self._refused = False  # that chunk is skipped
        self._before = b""  # the last octets of the content so far
        self._head = b""

    def __repr__(self) -> str:
        return f"<RelayProtocol {self._state.name} {self._line!r}, {len(self._rest)} octets unread>"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the greeting."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's under TLS is one by its methods alone
        self._line = DelayLine(self._transport, self._conduct.round_trip)
        self._counts.connections += 1
        self._line.write(b"220 relay.example ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        """Answer every complete command."""
        if self._ended:
            return
        buffer = self._rest + data if self._rest else data
        at, end = 0, len(buffer)
        while at < end:
            if self._by_the_whole and self._state is State.READY:
                at = self._take_whole(buffer, at)
                if at == end:
                    break
            if self._spoke_too_soon:
                self._counts.error("did not wait for a reply", buffer[at:])
                self._end(b"554 5.5.0 wait for the reply\r\n")
                return
            place = self._take(buffer, at)
            if self._ended:
                return
            if place == at:
                break
            at = place
        self._rest = buffer[at:]
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count a connection that was lost in the middle of a mail."""
        if self._rest or self._state in {State.MAIL, State.CHUNK, State.CONTENT}:
            self._counts.error(f"the connection was cut ({exc})", self._rest)

    # Replies.

    @property
    def _spoke_too_soon(self) -> bool:
        """Whether the next command had to wait for a reply that is still on its way."""
        must_wait = self._state is State.CONTENT or (self._state is not State.CHUNK and not self._pipelining)
        return must_wait and bool(self._replies or not self._line.empty)

    def _flush(self) -> None:
        if self._replies:
            self._line.write(b"".join(self._replies))
            self._replies.clear()

    def _end(self, goodbye: bytes) -> None:
        self._replies.append(goodbye)
        self._flush()
        self._line.close()
        self._ended, self._rest, self._state = True, b"", State.NEW

    @property
    def _has_brought_enough(self) -> bool:
        """Whether the connection brought as many mails as one may."""
        return bool(self._conduct.close_after) and self._mails >= self._conduct.close_after

    # Reading: each method gets the buffer and a position in it, and returns the position after what it read.

    def _take_whole(self, buffer: bytes, at: int) -> int:
        """Mails to one recipient by BDAT, while the next one is complete."""
        counts, replies, end = self._counts, self._replies, len(buffer)
        while not self._has_brought_enough and (found := _WHOLE.match(buffer, at)):
            start, size = found.end(), int(found[1])
            if start + size > end:
                break
            if self._conduct.distinct:
                counts.note(buffer[start : start + size])
            counts.mails += 1
            counts.recipients += 1
            counts.octets += size
            replies.append(_TAKEN)
            at = start + size
            self._mails += 1
        return at

    def _take(self, buffer: bytes, at: int) -> int:
        if self._state is State.CHUNK:
            return self._take_chunk(buffer, at)
        if self._state is State.CONTENT:
            return self._take_content(buffer, at)
        line_end = buffer.find(b"\n", at) + 1
        if line_end:
            self._obey(buffer[at:line_end])
            return line_end
        if len(buffer) - at > _LONGEST_LINE:
            self._counts.error("an endless line", buffer[at:])
            self._end(_UNKNOWN)
        return at

    def _take_chunk(self, buffer: bytes, at: int) -> int:
        stop = min(at + self._left, len(buffer))
        self._keep_head(buffer, at, stop)
        self._size += stop - at
        self._left -= stop - at
        if self._left == 0:
            self._chunk_ended()
        return stop

    def _chunk_ended(self) -> None:
        if self._refused:
            self._counts.refused_chunks += 1
            self._replies.append(_REFUSED)
            self._reset()
        elif self._last:
            self._taken()
        else:
            self._state = State.MAIL
            self._replies.append(_OK)

    def _take_content(self, buffer: bytes, at: int) -> int:
        content = self._before + buffer[at:]
        place = content.find(_END)
        if place < 0:
            self._keep_head(buffer, at, len(buffer))
            self._size += len(buffer) - at
            self._before = content[-4:]
            return len(buffer)
        stop = at + place + len(_END) - len(self._before)
        self._keep_head(buffer, at, stop)
        self._size += stop - at - 3
        self._taken()
        return stop

    def _keep_head(self, buffer: bytes, start: int, stop: int) -> None:
        if self._conduct.distinct and len(self._head) < _HEAD:
            self._head += buffer[start:stop]

    def _taken(self) -> None:
        """Count a mail, and accept it once its time has passed, or refuse it, or close the connection after it."""
        conduct, counts = self._conduct, self._counts
        ended = counts.mails + counts.refused + 1
        if conduct.refuse_every and ended % conduct.refuse_every == 0:
            counts.refused += 1
            self._replies.append(b"550 5.7.1 not this one\r\n")
            self._reset()
            return
        counts.mails += 1
        counts.recipients += self._recipients
        counts.octets += self._size
        if conduct.distinct:
            counts.note(self._head)
        if conduct.accept:
            self._flush()
            self._line.hold(conduct.accept)
        self._replies.append(_OK)
        self._reset()
        if conduct.close_every and ended % conduct.close_every == 0:
            counts.closed += 1
            self._end(b"421 4.3.2 see you later\r\n")
            return
        self._mails += 1

    def _reset(self) -> None:
        self._state = State.READY
        self._recipients = self._size = 0
        self._head = b""

    # Commands.

    def _obey(self, line: bytes) -> None:
        verb = line[:4].upper()
        if verb in {b"MAIL", b"RCPT", b"DATA", b"BDAT"}:
            good = self._obey_in_mail(verb, line)
        else:
            good = self._obey_anywhere(verb, line)
        if not good:
            self._counts.error(f"refused while {self._state.name}", line)
            known = verb in {b"MAIL", b"RCPT", b"DATA", b"AUTH"}
            self._replies.append(_REFUSED if known else _UNKNOWN)

    def _obey_in_mail(self, verb: bytes, line: bytes) -> bool:
        """Act on a command of a mail, and return whether it was in order."""
        if verb == b"MAIL" and self._has_brought_enough:
            self._counts.closed += 1
            self._end(b"421 4.7.0 too many messages on this connection\r\n")
        elif verb == b"MAIL" and self._state is State.READY and _MAIL.fullmatch(line):
            self._state = State.MAIL
            self._replies.append(_OK)
        elif verb == b"RCPT" and self._state is State.MAIL and _RCPT.fullmatch(line):
            self._recipients += 1
            self._replies.append(_OK)
        elif verb == b"DATA" and self._recipients and line.upper() == b"DATA\r\n":
            self._state = State.CONTENT
            self._before = b"\r\n"  # of the command: the content may be empty
            self._replies.append(b"354 go ahead\r\n")
        elif verb == b"BDAT" and self._chunking and self._state is not State.NEW and (found := _BDAT.match(line)):
            self._left, self._last = int(found[1]), bool(found[2])
            self._refused = not self._recipients  # the chunk is on its way all the same (RFC 3030, 2)
            self._state = State.CHUNK
            if self._left == 0:
                self._chunk_ended()
        else:
            return False
        return True

    def _obey_anywhere(self, verb: bytes, line: bytes) -> bool:
        """Act on any other command, and return whether it was in order."""
        if verb == b"EHLO":
            self._replies.append(self._conduct.announcement)
        elif verb == b"AUTH" and self._state is State.NEW and line[5:].strip() == b"PLAIN " + CREDENTIALS:
            self._state = State.READY
            self._replies.append(b"235 2.7.0 welcome\r\n")
        elif verb == b"RSET":
            if self._state is not State.NEW:
                self._reset()
            self._replies.append(_OK)
        elif verb == b"NOOP":
            self._replies.append(_OK)
        elif verb == b"QUIT":
            self._end(b"221 2.0.0 bye\r\n")
        else:
            return False
        return True
