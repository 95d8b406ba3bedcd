"""Tells what a refusal is about: the mail, or the way in which it was sent. Pure.

Relays tell these apart by their words more often than by their codes. The words here are those of real relays;
`tests/smtp/test_reply_kind.py` has each with its source, and `test_reply_kind_providers.py` what providers publish.
"""

import re
from enum import Enum, auto
from functools import lru_cache

from otpmail.model import RecipientResult
from otpmail.smtp.redaction import LONG
from otpmail.smtp.replies import CLOSING, Reply


class Command(Enum):
    """The command that a reply is to."""

    CONNECT = auto()  # the greeting
    EHLO = auto()  # or HELO
    AUTH = auto()
    MAIL = auto()
    RCPT = auto()
    CONTENT = auto()  # DATA, BDAT, or the content itself


class ReplyKind(Enum):
    """The subject of a refusal, and so what would help."""

    RECIPIENT_LIMIT = auto()  # the transaction has too many recipients: the others go in another one
    TOO_MANY_CONNECTIONS = auto()  # fewer connections, or fewer sign-ins
    TOO_FAST = auto()  # fewer mails a second
    CONNECTION_USED_UP = auto()  # another connection: this one has carried as many mails as it may
    HELO_FAULT = auto()  # another name in EHLO (EMAIL_HELO)
    CREDENTIALS = auto()  # another user or password
    MAILBOX = auto()  # nothing: it is about this recipient alone
    OTHER = auto()  # by the code alone


NOT_SIGNED_IN = 530
"""The code for a session that lacks a sign-in or TLS (RFC 4954, 6; RFC 3207, 4), whatever the command."""

_NO_ADDRESS = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1"})
"""Codes that say for good that an address takes no mail: it or its domain does not exist, has moved, or is disabled."""

_OF_AN_ADDRESS = frozenset({501, 550, 551, 553, 554, 556})
"""Codes that may go with these (RFC 5321, 4.2.3; RFC 7504). One of a command, a sign-in or a quota contradicts them."""

_ANY_ENHANCED = re.compile(r"(?<![\w.-])[245]\.\d{1,3}\.\d{1,3}(?!\w|\.\w)")

_WAYS_TO_SEND = frozenset(
    {ReplyKind.TOO_MANY_CONNECTIONS, ReplyKind.TOO_FAST, ReplyKind.CONNECTION_USED_UP, ReplyKind.HELO_FAULT}
)

_GREYLIST = re.compile(r"gr[ea]y[ -]?list|gr[ea]y bounce")

# A quotation in a refusal has other words: those of the mail, which may be about too many sign-ins, or of the settings.
_QUOTED = re.compile(r"\bhttps?://\S+|\"[^\"]*\"|\bsubject: .*")
_ADDRESS = re.compile(r"<[^<>\s]*>|\S+@\S+")
_HELO = re.compile(r"(?<![\w.@-])[he]{2}lo(?![\w@-]|\.\w)")
_NOT_A_NAME = frozenset({500, 502})  # an unknown command says nothing of its parameter
_WRONG_NAME = frozenset({501, 504})  # to EHLO: it is the parameter that is wrong

# How many mails a connection may carry; where the relay ends it over that, `relays.message_limit` learns the number.
_PER_CONNECTION = re.compile(
    r"(?:messages?|e?-?mails?|transactions?)\b.{0,20}\b(?:per|in|on|over|for|this)\b.{0,8}"
    r"\b(?:connection|session)"
)
_CONNECTIONS = re.compile(
    r"too (?:many|frequent) (?:(?!in |of )[\w-]+ ){0,3}(?:connect(?:ion)?s?|sessions?)\b"
    r"|\b(?:connections?|sessions?|sender thread|concurrency) (?:[\w-]+ ){0,2}limits?\b"
    r"|\bmax(?:imum)? (?:[\w-]+ ){0,4}(?:connections?|sessions?)\b(?! (?:time|size))"
    r"|exceed\w* (?:[\w-]+ ){0,5}(?:connections?|sessions?)\b"
    r"|\b(?:connections?|sessions?) (?:[\w-]+ ){0,4}exceed"
    r"|all server ports are busy|trop de connexions"
    r"|too many (?:[\w-]+ ){0,2}(?:log-?ins?|sign-?ins?|auth\w*)\b"
)

_MARKS_OF_CONNECTIONS = (
    *("connect", "session", "thread", "concurrency", "server ports", "connexions", "login", "log-in"),
    *("signin", "sign-in", "auth"),
)

_RECEIVER_IS_BUSY = re.compile(
    r"receiving (?:e-?mail|mail|messages) (?:too quickly|at a rate)|\b(?:recipient|mailbox) has exceeded"
    r"|\bto this recipient\b|\bmailbox (?:has )?received too m|\bmessages to \S+@\S+ deferred"
)
_DISABLED = "5.2.1"  # "mailbox disabled, not accepting messages" (RFC 3463, 3.3), which some say of a time alone
_PASSES = re.compile(rf"{_RECEIVER_IS_BUSY.pattern}|\b(?:quota|full|tempora(?:ry|rily))\b")
_JUDGES_CONTENT = re.compile(
    r"\b(?:detected|identified|classified|flagged|considered|marked|rejected) as (?:\w+ ){0,2}"
    r"(?:spam|junk|bulk|unsolicited)"
)
# By IANA's registry these are about SPF, DKIM, DMARC and names in DNS. Gmail says "rate limited" with some of them.
_UNAUTHENTICATED = re.compile(r"[45]\.7\.(?:2[0-7]|29|3[0-2])")
_MAILBOX_IS_FULL = re.compile(r"[45]\.2\.2")
_FLOOD = re.compile(r"[45]\.7\.28|4\.7\.[56]\d\d")  # X.7.28 by IANA; Microsoft's throttling of an address
# Not of the time after which to come again: "retry in an hour".
_OF_TIME = (
    r"(?:\b(?:per|this|each) |(?<!\bin )(?<!after )(?<!wait )(?<!\bby )\ban? |/ ?)(?:second|sec|minute|min|hour)\b"
    r"|\bper \d+ (?:second|sec|minute|min)s?\b|\bhourly limit"
    r"|too many recipients from\b"
)
_PER_TIME = re.compile(_OF_TIME)
_RATE_OF_MAILS = r"(?:sending|sender|submission|messages?|e?-?mails?|delivery) rate"
_RATE = re.compile(
    r"rate[ -]?limit|limited rate|unusual rate|throttl|slow(?:er|ing)? down|again slower|unexpected volume"
    rf"|\b{_RATE_OF_MAILS}\b(?=.{{0,60}}\b(?:limit|exceed|over|too|reach|high))|peak smtp relay limit"
    rf"|\b(?:reduc|lower|exceed|slow)\w* (?:[\w-]+ ){{0,3}}{_RATE_OF_MAILS}\b|submissionquotaexceeded"
    r"|too (?:fast|quick|frequent|often)|\btoo much e?-?mail"
    r"|too many (?:(?!in |of )[\w-]+ ){0,2}(?:messages?|e?-?mails?|requests?)\b|frequency limit"
    rf"|{_OF_TIME}"
)

_MARKS_OF_RATE = (
    "rate",
    "throttl",
    "slow",
    "volume",
    "too ",
    "frequency",
    "relay limit",
    "sec",
    "min",
    "hour",
    "quota",
)

_FULL_TRANSACTION = re.compile(r"[45]\.5\.3")
_NO_DETAILS = frozenset({"", "4.0.0", "5.0.0"})
_RECIPIENTS = re.compile(
    r"(?:too many|no more|multiple) (?:[\w-]+ ){0,2}(?:recipients?|rcpts?|domains)\b"
    r"|\b(?:recipients?|rcpts?) (?:[\w-]+ ){0,4}(?:limit|max|exceed)"
    r"|\b(?:limit|max\w*) (?:[\w-]+ ){0,4}(?:recipients?|rcpts?)\b"
)

_MAILBOX_CODE = re.compile(r"[45]\.(?:1\.(?:1|2|3|4|6|10)|2\.\d+)")
_MAILBOX = re.compile(
    r"mailbox|\bquota\b|\b(?:user|recipient|account|address)\b.{0,20}\b(?:unknown|not exist|not found|disabled)"
    r"|\b(?:unknown|no such|invalid) (?:user|recipient|address)"
)
# Postfix, Exim and Sendmail end a session after some errors, and Postfix under stress after the first one.
_ERRORS = re.compile(r"too many (?:[\w-]+ ){0,3}(?:errors?|commands?)\b")
_OUTGOING = re.compile(r"\b(?:outgoing|sending|submission)\b")
_OF_MAILS = frozenset({Command.MAIL, Command.RCPT, Command.CONTENT})
_PASSWORD_REFUSED = frozenset({530, 534, 535, 538})
_WEAK = re.compile(r"mechanism.{0,20}\bweak|encryption required")  # another mechanism, or TLS, would do


def kind_of(command: Command, code: int, enhanced_code: str, words: str, *, others_accepted: bool = False) -> ReplyKind:
    """Return what a reply is about, by the command it is to, its codes and its words.

    `words` are its text without the codes, in one line. `others_accepted` is whether the relay has taken another
    recipient of the same transaction: without one, its recipients can't be too many.
    """
    if code < 400:
        return ReplyKind.OTHER
    # fast path: most refusals are of an address and say so, 30 us; held to the full path by
    # tests/smtp/test_reply_kind.py
    if command in _OF_MAILS and enhanced_code[1:4] == ".1." and _MAILBOX_CODE.fullmatch(enhanced_code):
        return ReplyKind.MAILBOX
    said = _QUOTED.sub("", words.lower())
    if _GREYLIST.search(said):
        return ReplyKind.OTHER
    if others_accepted and _is_recipient_limit(command, code, enhanced_code, said):
        return ReplyKind.RECIPIENT_LIMIT
    pace = _pace(enhanced_code, said)
    return _fault(command, code, enhanced_code, said) if pace is ReplyKind.OTHER else pace


def kind_of_result(result: RecipientResult) -> ReplyKind:
    """Return what the reply about one recipient is about, at whichever of a mail's commands it came.

    It is never RECIPIENT_LIMIT: the session has left those recipients to another transaction.
    """
    return _kind_in_a_mail(result.code, result.enhanced_code, result.reply) if result.code >= 400 else ReplyKind.OTHER


# fast path: each refusal is asked about several times, 30 us each; held to the full path by
# tests/smtp/test_reply_kind.py
@lru_cache(maxsize=256)
def _kind_in_a_mail(code: int, enhanced_code: str, words: str) -> ReplyKind:
    return kind_of(Command.RCPT, code, enhanced_code, words)


def _holds(said: str, marks: tuple[str, ...]) -> bool:
    """Whether a pattern may match, one of whose marks it needs: to look for these takes less time."""
    return any(mark in said for mark in marks)


def _pace(enhanced_code: str, said: str) -> ReplyKind:
    """Return whether too much comes at once, by the count of connections or of mails."""
    if _RECEIVER_IS_BUSY.search(said) or _MAILBOX_IS_FULL.fullmatch(enhanced_code):
        return ReplyKind.MAILBOX
    if _UNAUTHENTICATED.fullmatch(enhanced_code) or _JUDGES_CONTENT.search(said):
        return ReplyKind.OTHER
    if _FLOOD.fullmatch(enhanced_code):
        return ReplyKind.TOO_FAST
    if _holds(said, _MARKS_OF_CONNECTIONS):
        if _PER_CONNECTION.search(said):
            return ReplyKind.CONNECTION_USED_UP
        if _CONNECTIONS.search(said):
            return ReplyKind.TOO_MANY_CONNECTIONS
    return ReplyKind.TOO_FAST if _holds(said, _MARKS_OF_RATE) and _RATE.search(said) else ReplyKind.OTHER


def _fault(command: Command, code: int, enhanced_code: str, said: str) -> ReplyKind:
    """Return whose fault it is: of the service's settings, or of the recipient's mailbox."""
    if _is_helo_fault(command, code, enhanced_code, said):
        return ReplyKind.HELO_FAULT
    if _is_about_credentials(command, code, said):
        return ReplyKind.CREDENTIALS
    if command in _OF_MAILS and (_MAILBOX_CODE.fullmatch(enhanced_code) or _is_mailbox(enhanced_code, said)):
        return ReplyKind.MAILBOX
    return ReplyKind.OTHER


def is_over_errors(code: int, words: str) -> bool:
    """Whether a relay ends a session because of the number of commands that it has refused."""
    return code == CLOSING and _ERRORS.search(words.lower()) is not None


def refuses_mail(result: RecipientResult) -> bool:
    """Whether the relay has refused the mail to this recipient for good, and not only the way in which it was sent."""
    return result.refused and result.code != NOT_SIGNED_IN and kind_of_result(result) not in _WAYS_TO_SEND


def refuses_address(result: RecipientResult) -> bool:
    """Whether a reply about one recipient refuses its address for good, whatever the mail (RFC 3463, 3.2 and 3.3).

    A code without details does not say so: 550 refuses by policy too (RFC 5321, 4.2.3). Nor do details that the code
    contradicts: 530 asks for a sign-in, and the mail is sent again. Nor does "disabled" where the words are of a
    mailbox that is full, or receives too much for now. Anybody can bring a mailbox to that.
    """
    if result.code not in _OF_AN_ADDRESS or result.enhanced_code not in _NO_ADDRESS:
        return False
    return result.enhanced_code != _DISABLED or _PASSES.search(_QUOTED.sub("", result.reply.lower())) is None


def has_one_meaning(reply: Reply) -> bool:
    """Whether all enhanced codes in a reply are the same one (RFC 2034, 4), or each says that the address is gone.

    A relay that asks the next one about a recipient quotes that one's reply behind its own code: a refusal by policy
    looks as one of the address then, but for the quotation.
    """
    found = set(_ANY_ENHANCED.findall(reply.text[: 4 * LONG].decode("utf-8", "replace")))
    return len(found) <= 1 or found <= _NO_ADDRESS


def _is_recipient_limit(command: Command, code: int, enhanced_code: str, said: str) -> bool:
    """Whether the transaction has all the recipients that the relay takes (RFC 5321, 4.5.3.1.10).

    That section has clients read 552 as 452. Both have other meanings too, which other words or details tell.
    """
    if _PER_TIME.search(said):
        return False
    if command is Command.CONTENT:
        return bool(_RECIPIENTS.search(said))
    if command is not Command.RCPT:
        return False
    if _FULL_TRANSACTION.fullmatch(enhanced_code) or _RECIPIENTS.search(said):
        return True
    return code in {452, 552} and enhanced_code in _NO_DETAILS and not _MAILBOX.search(said)


def _is_helo_fault(command: Command, code: int, enhanced_code: str, said: str) -> bool:
    """Whether the relay refuses the name in EHLO, which many do at RCPT only."""
    if code in _NOT_A_NAME or _MAILBOX_CODE.fullmatch(enhanced_code):
        return False
    if command is Command.EHLO and code in _WRONG_NAME:
        return True
    return _holds(said, ("helo", "ehlo")) and _HELO.search(_ADDRESS.sub("", said)) is not None


def _is_about_credentials(command: Command, code: int, said: str) -> bool:
    """Whether another user or password is needed, or a first one (RFC 4954, 6)."""
    if command is Command.AUTH:
        return code in _PASSWORD_REFUSED and not _WEAK.search(said)
    return code == 530 and "starttls" not in said


def _is_mailbox(enhanced_code: str, said: str) -> bool:
    return enhanced_code in _NO_DETAILS and bool(_MAILBOX.search(said)) and not _OUTGOING.search(said)
