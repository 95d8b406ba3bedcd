"""What the relay of the tests offers, where it fails, and what it keeps of what it was sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

Security = Literal["plain", "starttls", "tls"]
Point = str | int


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What the relay offers and where it fails; without arguments, a well-behaved relay on plain TCP.

    A reply is written as "451 4.3.0 later". With a line feed in it, it is one reply of several lines; with CRLF, it is
    sent as it is, so that there may be one reply too many.
    A point (`cut_before_reply` and its like) is a command, or "CONNECT" for the greeting, or "." for the end of DATA;
    or the number of a reply on a connection, counted from the one to its first MAIL.
    """

    # What it offers.
    security: Security = "plain"
    auth: tuple[str, ...] = ("PLAIN", "LOGIN")  # of PLAIN, LOGIN, CRAM-MD5, XOAUTH2; () neither has nor needs AUTH
    username: str = "user"
    password: str = "secret"
    token: str = "token"
    pipelining: bool = True
    chunking: bool = True
    smtputf8: bool = True
    eightbitmime: bool = True
    size: int | None = None
    mail_max: int | None = None  # LIMITS MAILMAX (RFC 9422): 421 to the MAIL beyond it
    rcpt_max: int | None = None  # LIMITS RCPTMAX: 452 to each RCPT beyond it

    # What it refuses. Each of these uses up one of `times`, and so do the cuts and the silence below.
    greeting: str | None = None
    refuse_starttls: str | None = None
    refuse_auth: str | None = None  # in place of the answer to right credentials
    refuse_sender: str | None = None
    refuse_recipients: Mapping[str, str] = field(default_factory=dict)
    refuse_data: str | None = None  # in place of 354
    final_reply: str | None = None  # to the content, by DATA or BDAT; a positive one is only another wording
    chance: Mapping[str, tuple[float, str]] = field(default_factory=dict)  # by MAIL, RCPT or ".": how likely, and what
    times: int | None = None  # how often the faults strike, over all connections, before the relay is well again

    # Where it falls silent or goes away.
    cut_before_reply: Point | None = None  # after the command took effect: at "." the mail is in `mails`, unanswered
    cut_after_reply: Point | None = None
    silent_at: Point | None = None
    closing_at: Point | None = None  # 421 in place of the reply; at a content, that is not taken
    extra_at: Point | None = None  # a 250 too many behind the reply
    most_open: int | None = None  # 421 to whoever connects beyond so many connections
    close_after: int | None = None  # 421 and goodbye, unasked, after this many mails on a connection
    close_by_chance: float = 0.0  # the same after any mail, how likely
    closes_silently: bool = False  # without the 421, after the reply to the content
    delay: float = 0.0  # seconds from command to reply, as a long line has it: pipelined commands wait together

    # How its TLS is wrong.
    tls_1_1: bool = False  # it speaks TLS 1.1 at most
    wrong_certificate: bool = False  # the certificate is for another host name
    starttls_stripped: bool = False  # with security "starttls": not announced, and AUTH offered in the clear

    # How its protocol is odd, as seen in the wild.
    holds_replies: bool = False  # until it has no input left, a content to judge included (RFC 2920, 3.2)
    judging: float = 0.0  # seconds that it looks at a content, and at nothing else, before its reply
    strict: bool = True  # 554 and goodbye to input that came before the reply it should have waited for, as Exim does
    sticky_bdat: bool = False  # a refused BDAT leaves the transaction open until RSET, as Exim does
    runs_refused_chunks: bool = False  # a BDAT out of sequence is not read past: its chunk runs as commands, as go-smtp
    helps_with_250: bool = False  # HELP is answered 250 and not 214, as Stalwart and Python's smtpd do
    data_without_recipients: bool = False  # 354 although every RCPT was refused


@dataclass(frozen=True, kw_only=True)
class CaughtMail:
    """A mail that the relay took; `content` is what it will have passed on, so without dot-stuffing or chunks."""

    connection: int
    sender: str
    recipients: tuple[str, ...]
    content: bytes
    parameters: Mapping[str, str]  # of MAIL; names in upper case, "" for those without a value
    username: str | None
    mode: Literal["DATA", "BDAT"]


class Command(NamedTuple):
    """A command as it was sent, secrets masked; the dot that ends DATA content counts as one."""

    connection: int
    line: str
