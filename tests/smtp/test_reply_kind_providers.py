"""Replies of mailbox providers and relays as they were published, and what each is about.

The comment before a group names the source, as read in November 2026. Addresses are replaced by those of RFC 5737.
"""

import re

import pytest

from otpmail.smtp.reply_kind import Command, ReplyKind, kind_of

CONNECT, EHLO, AUTH = Command.CONNECT, Command.EHLO, Command.AUTH
MAIL, RCPT, CONTENT = Command.MAIL, Command.RCPT, Command.CONTENT
_REPLY = re.compile(r"(\d{3})(?: (\d\.\d{1,3}\.\d{1,3}))? (.*)")

CONNECTIONS, FAST, USED_UP = ReplyKind.TOO_MANY_CONNECTIONS, ReplyKind.TOO_FAST, ReplyKind.CONNECTION_USED_UP
MAILBOX, CREDENTIALS, OTHER = ReplyKind.MAILBOX, ReplyKind.CREDENTIALS, ReplyKind.OTHER

_REPUTATION = "Our system has detected that this message is suspicious due to the very low reputation of the sending"
_UNUSUAL = (
    "Our system has detected an unusual rate of unsolicited mail originating from your IP address. To protect our"
)
_SENT_WITHOUT = "Gmail requires all senders to authenticate with either SPF or DKIM."

# github.com/fm/smtp-codes, data/codes, and github.com/ActiveCampaign/smtp-field-manual, data/codes.
_GOOGLE = [
    (CONTENT, f"421 4.7.0 [192.0.2.1] {_REPUTATION} domain. To best protect our users from spam, it has been", OTHER),
    (CONTENT, f"421 4.7.0 [192.0.2.1] {_UNUSUAL} users from spam, mail has been temporarily blocked.", FAST),
    (CONTENT, f"421 4.7.28 [192.0.2.1] {_UNUSUAL} users from spam, mail has been temporarily rate limited.", FAST),
    (CONTENT, f"421 4.7.26 This mail has been rate limited because it is unauthenticated. {_SENT_WITHOUT}", OTHER),
    (CONTENT, "421 4.7.32 This mail has been rate limited because there is no DMARC alignment", OTHER),
    (
        RCPT,
        "450 4.2.1 The user you are trying to contact is receiving mail at a rate that prevents additional",
        MAILBOX,
    ),
    (
        RCPT,
        "550 5.2.1 The user you are trying to contact is receiving mail at a rate that prevents additional",
        MAILBOX,
    ),
    (CONTENT, "451 4.3.0 Mail server temporarily rejected message. - gsmtp", OTHER),
    (
        RCPT,
        "452 4.2.2 The email account that you tried to reach is over quota. Please direct the recipient to",
        MAILBOX,
    ),
    (RCPT, "452 4.5.3 Domain policy size per transaction exceeded, please try this recipient in a separate", OTHER),
    (CONNECT, "421 4.4.5 Server busy, try again later.", OTHER),
    (CONNECT, "421 4.7.0 Temporary System Problem. Try again later.", OTHER),
    (RCPT, "550 5.1.1 The email account that you tried to reach does not exist. Please try double-checking", MAILBOX),
    (CONTENT, "550 5.7.1 [192.0.2.1] Our system has detected that this message is likely unsolicited mail.", OTHER),
    (CONTENT, f"550 5.7.26 Your email has been blocked because the sender is unauthenticated. {_SENT_WITHOUT}", OTHER),
]

# The same.
_YAHOO = [
    (MAIL, "421 Max message per connection reached, closing transmission channel", USED_UP),
    (MAIL, "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user", FAST),
    (MAIL, "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to user complaints - 4.16.55.1", OTHER),
    (MAIL, "421 Service not available, closing transmission channel", OTHER),
    (RCPT, "450 User is receiving mail too quickly", MAILBOX),
    (MAIL, "451 example.yahoo.com Resources temporarily unavailable. Please try again later [#4.16.1].", OTHER),
    (CONTENT, "451 4.3.2 Internal server error", OTHER),
    (RCPT, "452 temporary domain failure <ada@example.org>", OTHER),
    (
        CONTENT,
        "554 5.7.9 Message not accepted for policy reasons. See https://postmaster.yahooinc.com/error-codes",
        OTHER,
    ),
    (RCPT, "550 relaying denied for <ada@example.org>", OTHER),
]

# The same; github.com/MicrosoftDocs/OfficeDocs-Support, issue 1150; github.com/jstedfast/MailKit, issue 1502;
# github.com/sabuhish/fastapi-mail, issue 75.
_MICROSOFT = [
    (CONTENT, "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending", CONNECTIONS),
    (CONTENT, "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded [Hostname=a.example]", CONNECTIONS),
    (CONNECT, "421 4.3.2 The maximum number of concurrent connections per resource forest has exceeded", CONNECTIONS),
    (CONTENT, "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to process", FAST),
    (
        RCPT,
        "554 5.2.121 The sender has exceeded the limit for the number of messages to this recipient per hour",
        MAILBOX,
    ),
    (RCPT, "554 5.2.122 The recipient has exceeded their limit for the number of messages per hour.", MAILBOX),
    (CONNECT, "421 4.3.2 Service not available [outlook.com]", OTHER),
    (RCPT, "450 4.7.3 Organization queue quota exceeded. [outlook.com]", OTHER),
    (MAIL, "452 4.3.1 Insufficient system resources (TSTE) [outlook.com]", OTHER),
    (RCPT, "451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation.", FAST),
    (RCPT, "451 4.7.500 Server busy. Please try again later from [192.0.2.1]. (AS77712344)", FAST),
    (RCPT, "451 4.7.0 Temporary server error. Please try again later. PRX6 NextHop: outlook.com", OTHER),
    (RCPT, "550 5.5.0 Requested action not taken: mailbox unavailable. [a.prod.protection.outlook.com]", OTHER),
    (RCPT, "550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. Please contact your provider", OTHER),
    (RCPT, "550 5.4.1 All recipient addresses rejected : Access denied", OTHER),
]

# docs.aws.amazon.com/ses, "SMTP response codes"; docs.sendgrid.com, "SMTP errors"; github.com/knadh/listmonk, #1300;
# github.com/mailgun/mailgun-java, issue 50; github.com/Monstarrrr/rebutify, issue 162.
_SENDING_SERVICES = [
    (CONTENT, "454 Throttling failure: Maximum sending rate exceeded", FAST),
    (CONTENT, "554 Message rejected: Email address is not verified.", OTHER),
    (CONNECT, "421 Too many concurrent SMTP connections", CONNECTIONS),
    (CONTENT, "451 4.4.2 Timeout waiting for data from client.", OTHER),
    (AUTH, "535 Authentication Credentials Invalid", CREDENTIALS),
    (CONTENT, "451 You've exceeded your messaging limits", OTHER),  # a month's
    (RCPT, "452 Too many recipients received this hour (throttled)", FAST),
    (RCPT, "450 Too many recipient attempts", OTHER),  # probes for addresses
    (CONTENT, "421 Domain sandbox.mailgun.org is not allowed to send: Please activate your Mailgun account.", OTHER),
]

# smtp.codes; knowledge.broadcom.com, article 280430; github.com/swiftmailer/swiftmailer; github.com/terminal42/
# contao-notification_center, issue 226 (IONOS); github.com/aschroder/Magento-SMTP-Pro-Email-Extension, issue 94 (OVH);
# github.com/Mailu/Mailu, issue 2416; github.com/mailcow/mailcow-dockerized, issues 1497 and 6911;
# github.com/deltachat/deltachat-core, issue 647; suped.com (web.de, GMX); bytecamp.net.
_HOSTS = [
    (MAIL, "451 Requested action aborted Mails per session limit", USED_UP),  # IONOS
    (CONTENT, "550 sorry, too many emails (#5.7.1)", FAST),  # OVH
    (MAIL, "421 Too many messages have been received in a short period of time", FAST),  # GMX, web.de
    (RCPT, "550 Requested action not taken: mailbox unavailable", MAILBOX),  # GMX
    (
        CONNECT,
        "554 No SMTP service IP address is block listed. For explanation visit https://postmaster.gmx.net",
        OTHER,
    ),
    (
        CONNECT,
        "421 Connection refused, too many sessions from 192.0.2.1. Please lower the number",
        CONNECTIONS,
    ),  # GoDaddy
    (CONNECT, "421 Too many concurrent connections from this client (G2)", CONNECTIONS),  # Rackspace
    (RCPT, "451 4.7.1 Received too many messages from a new or untrusted IP (G28)", FAST),  # Rackspace
    (RCPT, "450 4.2.1 <ada@example.org>: Mailbox received too much email in a short period of time (G30)", MAILBOX),
    (RCPT, "450 4.4.1 <ada@example.org>: The recipient's server was temporarily unavailable (G6)", OTHER),
    (RCPT, "450 4.7.1 Client host 192.0.2.1 has no PTR record (G1F)", OTHER),
    (RCPT, "450 4.2.1 The recipient has exceeded message rate limit. Try again later.", MAILBOX),  # Yandex
    (MAIL, "451 4.7.1 Sorry, the service is currently unavailable. Please come back later.", OTHER),  # Yandex
    (CONTENT, "554 5.7.1 [1] Message rejected under suspicion of SPAM; https://ya.cc/1IrBc", OTHER),  # Yandex
    (RCPT, "421 4.7.0 me.com Error: too many errors", OTHER),  # iCloud
    (RCPT, "421 4.7.1 Messages to ada@icloud.com deferred due to excessive volume. Try again later", MAILBOX),
    (RCPT, "451 4.7.1 Service unavailable - try again later", OTHER),  # iCloud
    (RCPT, "550 5.1.1 <ada@icloud.com>: user does not exist", MAILBOX),
    (RCPT, "541 5.4.1 Mail rejected by destination domain", OTHER),  # Zoho
    (CONTENT, "554 5.7.1 Email cannot be delivered. Reason: Email flagged as Spam.", OTHER),  # Zoho
    (CONNECT, "421 4.7.0 Too many concurrent connections", CONNECTIONS),  # Symantec
    (RCPT, "554 5.7.1 SASL login name rejected: You are sending too many emails too fast.", FAST),  # Mailu
    (CONTENT, '451 4.7.1 Ratelimit "user" exceeded', FAST),  # mailcow
    (CONNECT, "421 4.7.0 mail.example.com Error: too many connections from 192.0.2.1", CONNECTIONS),  # mailcow
    (CONTENT, "554 5.7.1 <DATA>: Data command rejected: limit of 400 rcpts per 24 hours for client reached", OTHER),
    (RCPT, "422 4.2.2 Quota limit exceeded (Speicherplatz des Kontos ueberschritten)", MAILBOX),
    (CONTENT, "571 5.7.1 message classified as spam (Nachricht als Spam eingestuft)", OTHER),
    (MAIL, "421 4.7.0 Sender IP rejected: sending IP has insufficient reputation. Please retry later.", OTHER),  # Titan
]

# git.oopen.de, postfwd's README.default-rate-limits; Papercut-SMTP, issue 199; Sendmail, Exim, Postfix: their source.
_SERVERS = [
    (RCPT, "450 4.7.1 only 5 recipients per 5 minutes allowed", FAST),  # postfwd
    (MAIL, "450 4.7.1 Number messages per hour exceeded", FAST),  # postfwd
    (MAIL, "451 4.7.1 Hourly limit exceeded", FAST),
    (MAIL, "550 User has exceeded outgoing email quota", OTHER),
    (MAIL, "452 4.3.2 Connection rate limit exceeded.", CONNECTIONS),  # Sendmail, srvrsmtp.c
    (MAIL, "421 4.7.0 mail.example.org Too many bad commands; closing connection", OTHER),  # Sendmail, srvrsmtp.c
    (MAIL, "421 mail.example.org lost input connection", OTHER),  # Exim, smtp_in.c
    (MAIL, "421 too many messages in this connection", USED_UP),  # Exim, smtp_in.c
    (
        EHLO,
        "421 4.7.0 mail.example.org Error: too many new TLS sessions from 192.0.2.1",
        CONNECTIONS,
    ),  # Postfix, smtpd.c
    (MAIL, "454 4.7.0 TLS not available due to local problem", OTHER),  # Postfix, smtpd.c
    (AUTH, "450 4.7.1 Error: too many AUTH commands from 192.0.2.1", CONNECTIONS),  # Postfix, smtpd.c
]


@pytest.mark.parametrize(
    ("command", "reply", "kind"), [*_GOOGLE, *_YAHOO, *_MICROSOFT, *_SENDING_SERVICES, *_HOSTS, *_SERVERS]
)
def test_replies_of_providers(command: Command, reply: str, kind: ReplyKind) -> None:
    """A published reply of a provider is read as what it is about."""
    match = _REPLY.fullmatch(reply)
    assert match is not None
    assert kind_of(command, int(match[1]), match[2] or "", match[3]) is kind


@pytest.mark.parametrize(
    "words",
    [
        "too many similar emails detected as spam",
        "Too many messages identified as junk",
        "the delivery rate of attachments such as this one is low",
        "header Subject: Sender thread limited?",
        'content rejected, subject "Too many login attempts"',
        "Message rejected: 'rate limit' is a phrase of spammers, see our rules, classified as spam",
    ],
)
def test_words_about_the_content(words: str) -> None:
    """A refusal of the content is about the content, though it may speak of many mails, of a rate or of a limit."""
    for code, enhanced_code in ((550, "5.7.1"), (554, "5.7.1"), (451, "4.7.1"), (550, "")):
        assert kind_of(CONTENT, code, enhanced_code, words) is OTHER
