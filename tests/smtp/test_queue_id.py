"""The relay's id of a mail, in the words of many relays."""

import pytest

from cost import seconds_of
from otpmail.smtp.queue_id import queue_id

_SAID = [
    ("Ok: queued as 4Q2X3y5zzWz9s", "4Q2X3y5zzWz9s"),  # Postfix
    ("Ok: queued as 7F", "7F"),
    ("OK: queued as <202611282148.12345@smtp-relay.example.com>", "202611282148.12345@smtp-relay.example.com"),  # Brevo
    ("Ok: queued as AbC-1_x=", "AbC-1_x="),
    ("from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as 4ABC12", "4ABC12"),  # amavisd before Postfix
    ("OK id=1qAbCd-0001Xy-Zz", "1qAbCd-0001Xy-Zz"),  # Exim
    ("OK id=1vPabc-00000001AbC-2def", "1vPabc-00000001AbC-2def"),  # Exim 4.97 and later
    (
        "<m1@example.org> [InternalId=12345678901234, Hostname=AM0PR01MB1.example.com] 8 bytes in 0.1, Queued mail",
        "12345678901234",
    ),  # Microsoft 365
    ("OK  1732830537 a640c23a62f3a-aa54f577sm123456b.78 - gsmtp", "a640c23a62f3a-aa54f577sm123456b.78"),  # Gmail
    (
        "Ok 0100018c1234abcd-12345678-1234-1234-1234-123456789abc-000000",
        "0100018c1234abcd-12345678-1234-1234-1234-123456789abc-000000",
    ),  # SES
    ("3ASLmv12012345 Message accepted for delivery", "3ASLmv12012345"),  # sendmail
    ("a1b2c3d4 Message accepted for delivery", "a1b2c3d4"),  # OpenSMTPD
    ("ok 1732830537 qp 12345", "12345"),  # qmail
    ("Message queued with id 1a2b3c4d5e.", "1a2b3c4d5e"),  # Stalwart
    ("Message Queued (1A2B3C4D-1111-2222-3333-444455556666.1)", "1A2B3C4D-1111-2222-3333-444455556666.1"),  # Haraka
    *[
        (said, "")
        for said in (
            *("", "Ok", "Great success", "OK , completed", "Queued. Thank you.", "Queued (10.5 seconds)"),
            *("Requested mail action okay, completed", "Ok, message saved", "Message accepted for delivery"),
            *("Queued mail for delivery", "Mail queued for delivery.", "the id= is missing", "accepted"),
        )
    ],
]


@pytest.mark.parametrize(("said", "expected"), _SAID)
def test_the_id_is_found_as_each_relay_writes_it(said: str, expected: str) -> None:
    """The id in a relay's reply to the content is found; words that hold none give none."""
    assert queue_id(said) == expected


def test_no_reply_takes_long() -> None:
    """A reply of any words is read in time that grows with its length alone."""
    parts = ("queued as ", "ok ", "id=", "qp ", "message queued with id ", "a1" * 3, "ok 123456789 ")
    assert seconds_of(lambda: [queue_id(words * 2000) for words in parts]) < 0.5
