"""Says what a person has to change where a relay refuses a sign-in, a sender or a connection."""

import re
from enum import Enum, auto
from typing import NamedTuple

from otpmail.errors import ConnectFailed, SignInRefused
from otpmail.relays.helo import cure_helo
from otpmail.relays.refusal import kind_of_error
from otpmail.relays.rehearsal import Step
from otpmail.settings import RelaySettings
from otpmail.settings.terms import in_terms_of
from otpmail.smtp.reply_kind import Command, ReplyKind, kind_of


class Weight(Enum):
    """Whether mails will go all the same."""

    FAULT = auto()
    NOTE = auto()


class Advice(NamedTuple):
    """The words about a refusal: a change to make, or its meaning."""

    weight: Weight
    words: str


_WANTS_TLS = re.compile(r"\bstarttls\b|5\.7\.11\b|encryption (?:is )?required|secure connection", re.IGNORECASE)
_NO_RELAYING = re.compile(r"relay|5\.7\.1\b.*\bauth|authentication required|not authenticated", re.IGNORECASE)
_SENDER = re.compile(r"\bsender\b|\bfrom\b|send as|not owned by|not verified", re.IGNORECASE)

# Providers whose SMTP server takes no password of a mailbox.
_WITH_APP_PASSWORDS = re.compile(r"(?:.*\.)?(?:gmail|yahoo|icloud|me|mail\.me)\.com", re.IGNORECASE)

_FOR_APPS = "set APP_PASSWORD to an app password of the account, which is not the password of the mailbox"
_REFUSED_SIGN_INS = (
    (
        re.compile(r"5\.7\.139\b|SmtpClientAuth\w* is disabled|basic authentication is disabled", re.IGNORECASE),
        "an administrator has to allow SMTP AUTH for this mailbox; or set EMAIL_AUTH=xoauth2 and EMAIL_TOKEN_FILE",
    ),
    (
        re.compile(r"application-specific password|app password|5\.7\.9\b|web.?login|BadCredentials", re.IGNORECASE),
        _FOR_APPS,
    ),
    (_WANTS_TLS, "set EMAIL_SECURITY=starttls, since the relay takes no password unencrypted"),
)

_DEFERRED = (
    "the relay defers mails of senders that it does not know yet (greylisting), or is busy; they are retried, and "
    "nothing has to be changed"
)
_NO_MAILBOX = (
    "the relay has no mailbox for the sender itself, so answers and bounces to it are lost; mails to others may go all "
    "the same"
)
_NOT_AS_THIS_SENDER = (
    "the relay does not let this account send as EMAIL_FROM; set EMAIL_FROM to an address of the account, or verify it "
    "with the provider"
)


def on_failed_dial(error: ConnectFailed, relay: RelaySettings) -> str:
    """Return what to change after a dial that failed; empty where the error itself says so."""
    if isinstance(error, SignInRefused):
        return in_terms_of(relay, _on_refused_sign_in(error, relay)) if error.code else ""
    if not error.code or cure_helo(relay) in str(error):
        return ""
    if pace := _on_pace(kind_of_error(error)):
        return pace
    if error.code < 500:
        return "the relay refuses for now; try again later"
    return (
        "the relay takes no connections from this machine's address; ask its operator to allow that, or use its port "
        "for submission, mostly 587 or 465"
    )


def _on_refused_sign_in(error: SignInRefused, relay: RelaySettings) -> str:
    said = str(error)
    for pattern, advice in _REFUSED_SIGN_INS:
        if pattern.search(said):
            return advice
    if relay.auth == "external":
        return "the relay does not know the certificate in EMAIL_CERT_FILE; ask its operator to allow it"
    if relay.has_token:
        return "renew the token in EMAIL_TOKEN_FILE, and check that it is for this user and for sending by SMTP"
    if _WITH_APP_PASSWORDS.fullmatch(relay.host):
        return _FOR_APPS
    return "check EMAIL and APP_PASSWORD; some providers want an app password or an API key there"


def on_refused_step(step: Step, relay: RelaySettings, helo: str) -> Advice:
    """Return what to change after a refused MAIL or RCPT of a rehearsal, or what that means."""
    reply = step.reply
    kind = kind_of(step.command, reply.code, reply.enhanced_code, reply.reply)
    if kind is ReplyKind.HELO_FAULT:
        return Advice(Weight.FAULT, f"the relay refuses the name {helo} in EHLO; {cure_helo(relay)}")
    if pace := _on_pace(kind):
        return Advice(Weight.FAULT, pace)
    if _WANTS_TLS.search(f"{reply.enhanced_code} {reply.reply}"):
        cure = in_terms_of(relay, "set EMAIL_SECURITY=starttls")
        return Advice(Weight.FAULT, f"{cure}, since the relay takes no mail unencrypted")
    if reply.code < 500:
        return Advice(Weight.NOTE, _DEFERRED)
    return _on_refused_sender(step, relay, wants_sign_in=kind is ReplyKind.CREDENTIALS)


def _on_refused_sender(step: Step, relay: RelaySettings, *, wants_sign_in: bool) -> Advice:
    said = step.reply.reply
    if _SENDER.search(said) and not wants_sign_in:
        return Advice(Weight.FAULT, _NOT_AS_THIS_SENDER)
    if wants_sign_in or _NO_RELAYING.search(f"{step.reply.enhanced_code} {said}"):
        return Advice(Weight.FAULT, _on_no_relaying(relay))
    if step.command is Command.RCPT:
        return Advice(Weight.NOTE, _NO_MAILBOX)
    return Advice(Weight.FAULT, _NOT_AS_THIS_SENDER)


def _on_no_relaying(relay: RelaySettings) -> str:
    if relay.signs_in:
        return "the relay passes on no mails of this account; ask its operator to allow that"
    cure = in_terms_of(relay, "set EMAIL and APP_PASSWORD")
    return f"the relay wants a sign-in: {cure}, or ask its operator to allow this machine's address"


def _on_pace(kind: ReplyKind) -> str:
    if kind is ReplyKind.TOO_MANY_CONNECTIONS:
        return "the relay has too many connections of this account or machine; end others, or set WORKERS lower"
    if kind is ReplyKind.TOO_FAST:
        return "the relay has got too much at once from this account or machine; wait, and set EMAIL_RATE"
    return ""
