"""The options and faults of the test relay, and the records that it keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Security = Literal["plain", "starttls", "tls"]
Kind = Literal["right", "wrong_name", "expired", "self_signed"]
Point = str | int


@dataclass(frozen=True, kw_only=True)
class Faults:
    """The options of the relay and the faults that it commits; the default is a correct relay on plain TCP.

    A reply is written as "451 4.3.0 later". One that holds a line feed is a reply of several lines. One that holds CRLF
    is sent unchanged, so that it can be more than one reply.
    An octet that is no UTF-8 is written as a surrogate, as by the error handler surrogateescape. A function returns the
    reply to what it is given, which it may quote: the content, or the lines of AUTH.
    A point (`cut_before_reply` and the like) is a command, "CONNECT" for the greeting, or "." for the end of DATA. It
    may also be the number of a reply on a connection. That is counted from the reply to its first MAIL, or to the first
    after `Relay.recount`.
    """

    # Options.
    security: Security = "plain"
    # Of PLAIN, LOGIN, CRAM-MD5, XOAUTH2, OAUTHBEARER, EXTERNAL; () neither has nor needs AUTH.
    auth: tuple[str, ...] = ("PLAIN", "LOGIN")
    auth_keyword: str = "AUTH "  # stands before the mechanisms; some say "AUTH=" or put a tab there
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

    # Rejections. Each uses up one of `times`, and so does each cut and silence below.
    greeting: str | None = None
    refuse_starttls: str | None = None
    refuse_auth: str | Callable[[str], str] | None = None  # in place of the reply to right credentials
    refuse_mechanisms: Mapping[str, str] = field(default_factory=dict)  # in place of the exchange
    refuse_ehlo: str | None = None
    refuse_name: Callable[[str], str | None] | None = None  # to each RCPT, by the name in EHLO, as Postfix does
    refuse_sender: str | None = None
    refuse_recipients: Mapping[str, str] = field(default_factory=dict)
    refuse_data: str | None = None  # in place of 354
    # To the content, by DATA or BDAT; a positive one changes the wording only.
    final_reply: str | Callable[[bytes], str] | None = None
    refuse_rset: str | None = None  # without an end to the transaction that it was sent for
    chance: Mapping[str, tuple[float, str]] = field(default_factory=dict)  # by MAIL, RCPT or ".": probability and reply
    times: int | None = None  # how many faults there are, over all connections, before it is correct again

    # Silence and closes.
    cut_before_reply: Point | None = None  # after the command took effect: at "." the mail is in `mails`, unanswered
    cut_after_reply: Point | None = None
    silent_at: Point | None = None
    closing_at: Point | None = None  # 421 in place of the reply; at a content, that is not taken
    extra_at: Point | None = None  # another 250 behind the reply
    most_errors: int | None = None  # 421 and a close after so many refusals with 5yz, as Postfix
    most_mails: int | None = None  # `no_more_mails` to each MAIL beyond so many on a connection, which stays open
    no_more_mails: str = "450 4.7.0 Too many messages in this session"
    most_open: int | None = None  # each connection beyond so many is refused, at `crowded_at`
    crowded_at: Literal["CONNECT", "AUTH", "MAIL"] = "CONNECT"
    crowded: str = "421 4.7.0 too many connections"
    rate: tuple[int, float] | None = None  # so many mails in so many seconds; each MAIL beyond, which counts, is
    too_fast: str = "450 4.7.1 Error: too much mail from 127.0.0.1"  # refused so
    idle_close: float | None = None  # seconds without a command, after which it says `idle_words`, if any, and closes
    idle_words: str | None = "421 4.4.2 idle too long"
    close_after: int | None = None  # 421 and a close, unasked, after this many mails on a connection
    parting: str | Callable[[bytes], str] = "421 4.7.0 enough mails on this connection"  # that 421
    close_by_chance: float = 0.0  # the probability of the same after any mail
    closes_silently: bool = False  # without the 421, after the reply to the content
    delay: float = 0.0  # seconds from command to reply, as by distance: pipelined commands wait together

    slow: Mapping[str, float] = field(default_factory=dict)  # seconds to the reply, by command

    # Recipients.
    most_recipients: int | None = None  # `full` to each RCPT beyond so many, which nothing announces
    full: str = "452 4.5.3 Error: too many recipients"
    most_at_content: int | None = None  # a content for more is refused, as SES does

    # Oddities of sign-in.
    ignores_initial_responses: bool = False  # 334 to AUTH with one: the client is to say it again
    login_prompts: tuple[str, str] = ("Username:", "Password:")

    # Faults of TLS.
    wants_certificate: bool = False  # TLS ends unless the client shows a certificate of the test's authority
    tls_1_1: bool = False  # it speaks TLS 1.1 at most
    certificate: Kind = "right"  # "wrong_name": for relay.invalid
    starttls_stripped: bool = False  # with security "starttls": not announced, and AUTH offered in the clear

    # Oddities of real relays.
    holds_replies: bool = False  # until it has no input left, a content to judge included (RFC 2920, 3.2)
    judging: float = 0.0  # seconds from a content to its reply, in which it reads nothing else
    strict: bool = True  # 554 and a close for input that should have waited for a reply, as Exim does
    sticky_bdat: bool = False  # a refused BDAT leaves the transaction open until RSET, as Exim does
    runs_refused_chunks: bool = False  # a BDAT out of sequence is not read past: its chunk runs as commands, as go-smtp
    yes: str = "250"  # the code of each positive reply to MAIL, RCPT and contents
    dsn: bool = False
    announces: tuple[str, ...] = ()  # further lines of the reply to EHLO
    helps_with_250: bool = False  # HELP is answered 250 and not 214, as Stalwart and Python's smtpd do
    data_without_recipients: bool = False  # 354 although every RCPT was refused


@dataclass(frozen=True, kw_only=True)
class CaughtMail:
    """A mail that the relay accepted; `content` is without dot-stuffing and chunk headers."""

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
