"""The words of relays, as they send them, and what they are about.

Behind each reply stands where its words are from: a source, a provider's own page, or a public report.
"""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpmail.model import RecipientResult
from otpmail.smtp.redaction import MAX_TEXT
from otpmail.smtp.reply_kind import Command, ReplyKind, kind_of, kind_of_result

CONNECT, EHLO, AUTH = Command.CONNECT, Command.EHLO, Command.AUTH
MAIL, RCPT, CONTENT = Command.MAIL, Command.RCPT, Command.CONTENT

_REPLY = re.compile(r"(\d{3})(?: (\d\.\d{1,3}\.\d{1,3}))?(?: (.*))?")


def judge(command: Command, reply: str, *, others_accepted: bool = False) -> ReplyKind:
    """The kind of a reply that is written as on the wire."""
    match = _REPLY.fullmatch(reply)
    assert match is not None
    return kind_of(command, int(match[1]), match[2] or "", match[3] or "", others_accepted=others_accepted)


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (RCPT, "452 4.5.3 Error: too many recipients"),  # Postfix, src/smtpd/smtpd.c
        (RCPT, "452 too many recipients"),  # Exim, src/smtp_in.c
        (RCPT, "552 too many recipients"),  # the same, with recipients_max_reject
        (RCPT, "452 4.5.3 Too many recipients"),  # Sendmail, sendmail/srvrsmtp.c, and Microsoft 365
        (RCPT, "452 4.5.3 Your message has too many recipients. - gsmtp"),  # Gmail, "SMTP errors and codes"
        (RCPT, "550 5.5.3 Too many recipients for this sender"),  # the same page
        (RCPT, "451 4.3.0 Multiple destination domains per transaction is unsupported. Please try again."),  # the same
        (RCPT, "452 4.5.3 Service unavailable, recipients per message limit reached"),  # ContactLab SmartRelay's page
        (RCPT, "452 4.5.3 Maximum limit of 50 recipients reached"),  # go-smtp, conn.go
        (RCPT, "552 Too many recipients"),  # z/OS Communications Server, SMTP messages
        (RCPT, "452 4.5.3 multiple recipients not permitted"),  # a relay for one recipient
        (RCPT, "552"),  # RFC 5321, 4.5.3.1.10: read as 452
        (RCPT, "452 Requested action not taken: insufficient system storage"),  # RFC 5321, 4.2.3: 452 in its own words
        (RCPT, "552 Requested mail action aborted: exceeded storage allocation"),  # the same for 552
        (CONTENT, "554 Transaction failed: Recipient count exceeds 50."),  # SES, "SMTP response codes"
    ],
)
def test_recipient_limit(command: Command, reply: str) -> None:
    """A recipient too many is the transaction's fault, if another one of it was accepted; else it is not."""
    assert judge(command, reply, others_accepted=True) is ReplyKind.RECIPIENT_LIMIT
    assert judge(command, reply) is not ReplyKind.RECIPIENT_LIMIT


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ("552 5.2.2 Mailbox full", ReplyKind.MAILBOX),
        ("552 5.2.2 Over quota", ReplyKind.MAILBOX),
        ("552 <a@example.org>: Mailbox is over quota", ReplyKind.MAILBOX),  # no enhanced code
        ("452 4.2.2 The recipient's inbox is out of storage space.", ReplyKind.MAILBOX),  # Gmail
        ("552 5.3.4 Message size exceeds fixed limit", ReplyKind.OTHER),  # Postfix
        ("452 4.3.1 Insufficient system storage", ReplyKind.OTHER),  # Postfix: another transaction would be refused too
        ("450 4.7.1 Error: too many recipients from 192.0.2.1", ReplyKind.TOO_FAST),  # Postfix, by anvil
        ("452 Too many recipients received this hour (throttled)", ReplyKind.TOO_FAST),  # SendGrid's page, docomo
    ],
)
def test_no_recipient_limit(reply: str, kind: ReplyKind) -> None:
    """452 and 552 behind accepted recipients are about something else where the words or details say so."""
    assert judge(RCPT, reply, others_accepted=True) is kind


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (MAIL, "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded [Hostname=A.B.example]"),  # Microsoft 365
        (MAIL, "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending"),  # the same
        (CONNECT, "421 4.3.2 The maximum number of concurrent server connections has exceeded a limit"),  # Exchange
        (CONNECT, "421 4.7.0 mail.example.org Error: too many connections from 192.0.2.1"),  # Postfix, smtpd.c
        (CONNECT, "421 4.7.0 Error: too many connections"),  # Postfix, postscreen.c
        (CONNECT, "421 4.3.2 All server ports are busy"),  # the same
        (CONNECT, "421 mail.example.org: Too many concurrent SMTP connections; please try again later."),  # Exim
        (CONNECT, "421 Too many concurrent SMTP connections"),  # SES, "SMTP response codes"
        (CONNECT, "421 Too many connections from that IP address"),  # Exim's ACLs
        (CONNECT, "421 4.3.2 Connection rate limit exceeded."),  # Sendmail, srvrsmtp.c
        (MAIL, "452 4.3.2 Connection rate limit exceeded."),  # the same
        (CONNECT, "421 4.3.2 Too many open connections."),  # Sendmail's conncontrol
        (CONNECT, "421 Too many SMTP sessions for this host"),  # Sendmail, daemon.c
        (CONNECT, "421 #4.4.5 Too many connections from your host."),  # IronPort, by way of Mailgun
        (CONNECT, "421 All available IPs are at maximum connection limit"),  # SendGrid
        (CONNECT, "450 too frequent connects from 198.51.100.2, please try again later."),  # SendGrid's page
        (CONNECT, "421 Service unavailable, concurrency limit reached"),  # ContactLab SmartRelay's page
        (CONNECT, "421 mwinf5c04 ME Trop de connexions, veuillez verifier votre configuration."),  # Orange
        (MAIL, "550 Too many connect"),  # Sina
        (AUTH, "454 4.7.0 Too many login attempts, please try again later. - gsmtp"),  # Gmail
        (MAIL, "421 4.7.0 Too many concurrent sessions for this account"),
    ],
)
def test_too_many_connections(command: Command, reply: str) -> None:
    """The words of a relay show that it counts connections, sessions or sign-ins."""
    assert judge(command, reply) is ReplyKind.TOO_MANY_CONNECTIONS


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (
            RCPT,
            "421 4.7.28 Our system has detected an unusual rate of unsolicited mail originating from your IP",
        ),  # Gmail
        (RCPT, "421 4.7.28 [192.0.2.1 15]"),  # X.7.28 of IANA's registry, whatever the words
        (RCPT, "450 4.2.1 Peak SMTP relay limit exceeded for customer. This is a temporary error."),  # Google Workspace
        (CONTENT, "454 Throttling failure: Maximum sending rate exceeded"),  # SES, "SMTP response codes"
        (CONTENT, "454 Throttling failure: Daily message quota exceeded"),  # the same: over the last 24 hours
        (MAIL, "450 4.7.1 Error: too much mail from 192.0.2.1"),  # Postfix, smtpd.c, by anvil
        (RCPT, "450 4.7.1 Error: too many recipients from 192.0.2.1"),  # the same
        (CONTENT, "421 4.4.2 Message submission rate for this client has exceeded the configured limit"),  # Exchange
        (RCPT, "451 4.7.500 Server busy. Please try again later from [192.0.2.1]. (AS761)"),  # Microsoft
        (CONTENT, '451 4.7.1 Ratelimit "hostinger_out_ratelimit" exceeded for key "RLao"'),  # Rspamd
        (RCPT, "451 4.7.1 Rate limit exceeded for this sender"),  # Rspamd, KumoMTA
        (MAIL, "450 4.7.1 rate limited, try again later"),
        (RCPT, "421 Sender rate overlimit - 12.3 / 1h"),  # Exim's specification, 44: ratelimit
        (CONTENT, "550 5.7.0 Too many emails per second. Please upgrade your plan"),  # Mailtrap
        (CONTENT, "550 Domain example.com has exceeded the max emails per hour (100/100 (100%)) allowed."),  # cPanel
        (CONTENT, "450 Too many requests. You can only make 2 requests per second."),  # Resend
        (
            CONTENT,
            "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user",
        ),  # Yahoo
        (CONTENT, "550 Sender frequency limited"),  # QQ
        (MAIL, "452 4.3.2 please try again slower"),
        (MAIL, "421 4.7.0 You are sending too fast, slow down"),
    ],
)
def test_too_fast(command: Command, reply: str) -> None:
    """The words of a relay show that it counts mails by time, with whatever code."""
    assert judge(command, reply) is ReplyKind.TOO_FAST


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (RCPT, "504 5.5.2 <15b0717dc4c2>: Helo command rejected: need fully-qualified hostname"),  # Postfix
        (RCPT, "450 4.7.1 <mx.example.org>: Helo command rejected: Host not found"),  # Postfix
        (RCPT, "550 5.7.1 <localhost>: Helo command rejected: Access denied"),  # Postfix, check_helo_access
        (RCPT, "501 5.5.2 <a_b>: Helo command rejected: Invalid name"),  # Postfix, reject_invalid_helo_hostname
        (EHLO, "501 Syntactically invalid HELO argument(s)"),  # Exim, smtp_in.c
        (EHLO, "501 Syntactically invalid EHLO argument(s)"),  # the same
        (EHLO, "501 5.0.0 Invalid domain name"),  # Sendmail, srvrsmtp.c
        (RCPT, "550 Access denied - Invalid HELO name (See RFC2821 4.1.1.1)"),  # cPanel's Exim
        (MAIL, "550 5.7.1 Bad EHLO name, use your own"),
        (CONTENT, "554 5.7.1 your HELO/EHLO must resolve"),
    ],
)
def test_helo_fault(command: Command, reply: str) -> None:
    """A reply that names HELO or EHLO is about that name, to whichever command."""
    assert judge(command, reply) is ReplyKind.HELO_FAULT


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (AUTH, "535 5.7.8 Username and Password not accepted."),  # Gmail
        (AUTH, "535 5.7.8 Error: authentication failed: UGFzc3dvcmQ6"),  # Postfix
        (AUTH, "535 Incorrect authentication data"),  # Exim
        (AUTH, "535 Authentication Credentials Invalid"),  # SES
        (AUTH, "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled"),  # Microsoft 365
        (AUTH, "534 5.7.9 Application-specific password required."),  # Gmail
        (MAIL, "530 5.7.0 Authentication Required."),  # Gmail
        (MAIL, "530 5.7.57 Client not authenticated to send mail."),  # Microsoft 365
        (MAIL, "530 Authentication required"),  # SES
    ],
)
def test_credentials(command: Command, reply: str) -> None:
    """A refused sign-in, or one that is missing, is about the user and the password."""
    assert judge(command, reply) is ReplyKind.CREDENTIALS


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (RCPT, "550 5.1.1 <nobody@example.org>: Recipient address rejected: User unknown in local recipient table"),
        (RCPT, "550 5.1.1 <helo@example.org>: Recipient address rejected: User unknown"),  # an address, no verb
        (RCPT, "550 5.1.1 helo@example.org too-many.connections"),
        (RCPT, "550 no such user here"),
        (RCPT, "550 mailbox unavailable"),
        (CONTENT, "552 5.2.2 mailbox full"),
        (RCPT, "452 4.2.2 mailbox has too many messages"),
        (RCPT, "450 4.2.1 The user you are trying to contact is receiving mail too quickly."),  # Gmail: one mailbox's
        (
            RCPT,
            "450 4.2.1 The user you are trying to contact is receiving email at a rate that prevents more",
        ),  # the same
    ],
)
def test_mailbox(command: Command, reply: str) -> None:
    """A refusal about one mailbox slows no other mail down, even where it speaks of a rate."""
    assert judge(command, reply) is ReplyKind.MAILBOX


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (RCPT, "450 4.7.1 Greylisting in action, please come back later"),  # sqlgrey
        (RCPT, "450 4.2.0 <a@example.org>: Recipient address rejected: Greylisted, see http://postgrey.example"),
        (RCPT, "451 4.7.1 Greylisted, you come back too fast, wait 300 seconds"),
        (RCPT, "450 4.7.1 Grey listed: too many connections, retry in 60 seconds"),
        (RCPT, "450 4.7.1 <a@example.org>: Recipient address rejected: Policy rejection"),
        (RCPT, "450 4.7.1 Client host rejected: cannot find your reverse hostname, [192.0.2.1]"),  # Postfix
        (RCPT, "421 4.7.0 Try again later, closing connection. - gsmtp"),  # Gmail
        (RCPT, "421 4.4.2 mail.example.org Error: timeout exceeded"),  # Postfix
        (RCPT, "421 4.7.0 mail.example.org Error: too many errors"),  # Postfix
        (CONNECT, "421 4.3.2 Service shutting down"),
        (RCPT, "452 4.3.1 Insufficient system resources"),  # Exchange's back pressure
        (CONTENT, "451 4.3.0 Temporary server error. Please try again later"),
        (RCPT, "550 5.7.1 <helo.example.net>: Sender address rejected: Domain not found"),
        (RCPT, "550 5.7.1 mail from helo.example.net is not wanted"),
        (EHLO, "502 5.5.1 EHLO not implemented"),  # the command, not its name
        (EHLO, "500 5.5.1 Unrecognized command: EHLO"),
        (AUTH, "504 5.7.4 Unrecognized authentication type"),  # another mechanism may do
        (AUTH, "534 5.7.9 Authentication mechanism is too weak"),  # RFC 4954, 6
        (AUTH, "538 5.7.11 Encryption required for requested authentication mechanism"),  # the same
        (AUTH, "454 4.7.0 Temporary authentication failure"),
        (MAIL, "530 5.7.0 Must issue a STARTTLS command first"),  # Postfix, Gmail
        (CONTENT, "554 5.7.1 Message rejected as spam"),
        (CONTENT, "552 5.3.4 Message too big"),
        (CONTENT, "554 5.7.1 Blocked: too many URLs in message"),
        (CONTENT, "554 5.7.1 Refused, see https://mail.example/sec/rate-limit"),
        (RCPT, "451 4.3.0 Temporary lookup failure, please retry in an hour"),
        (RCPT, "450 4.7.1 Please try again after a minute"),
        (CONTENT, "554 5.7.1 Rejected by a second filter"),
        (RCPT, "450 4.7.1 Client host rejected: too many DNS failures in connection"),
        (CONTENT, "451 4.4.1 Connection timed out, max session time reached"),
    ],
)
def test_other(command: Command, reply: str) -> None:
    """Greylisting, a goodbye and the like are judged by their code alone."""
    assert judge(command, reply) is ReplyKind.OTHER


@pytest.mark.parametrize(
    "reply",
    [
        "421 too many messages in this connection",  # Exim, src/smtp_in.c
        "421 4.7.0 Too many messages per session",
        "421 4.4.0 maximum number of mails per connection reached",
        "421 4.4.0 message limit for this connection exceeded",
        "450 4.7.0 Too many messages in this session",  # KumoMTA's max_messages_per_connection defers the others
        "452 4.3.2 Too many mails per connection, please reconnect",
        "550 5.7.0 Too many messages in this session",
    ],
)
def test_connection_used_up(reply: str) -> None:
    """The limit of one connection is a kind of its own: another connection does not have it."""
    assert judge(MAIL, reply) is ReplyKind.CONNECTION_USED_UP


@pytest.mark.parametrize("command", Command)
@pytest.mark.parametrize("code", [220, 250, 251, 354])
def test_a_positive_reply_is_no_refusal(command: Command, code: int) -> None:
    """Whatever a good reply says, it is about nothing."""
    assert kind_of(command, code, "", "too many recipients, too many connections, bad HELO") is ReplyKind.OTHER


def test_a_result_has_the_kind_of_its_reply() -> None:
    """A recipient's result is judged by the same words, and is no recipient limit: the session has seen to those."""
    slow = RecipientResult("a@example.org", 450, "4.7.1", "Error: too much mail from 192.0.2.1")
    full = RecipientResult("a@example.org", 452, "4.5.3", "Error: too many recipients")
    assert kind_of_result(slow) is ReplyKind.TOO_FAST
    assert kind_of_result(full) is ReplyKind.OTHER


_WORDS = st.sampled_from(
    [
        "too",
        "many",
        "connections",
        "recipients",
        "messages",
        "per",
        "hour",
        "limit",
        "exceeded",
        "helo",
        "rate",
        "<a@b>",
        "-",
    ]
)


@given(
    st.sampled_from(list(Command)),
    st.integers(min_value=200, max_value=599),
    st.sampled_from(["", "4.5.3", "5.2.2", "4.7.28"]),
    st.lists(_WORDS, max_size=80).map(" ".join) | st.text(max_size=MAX_TEXT),
    st.booleans(),
)
def test_every_reply_has_a_kind(command: Command, code: int, enhanced: str, words: str, others: bool) -> None:  # noqa: FBT001  from hypothesis
    """Any reply is judged, in a time that does not grow with how its words repeat."""
    kind = kind_of(command, code, enhanced, words, others_accepted=others)
    assert kind is ReplyKind.OTHER or code >= 400
    assert kind is not ReplyKind.RECIPIENT_LIMIT or others
