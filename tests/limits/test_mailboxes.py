"""The mailbox whose limits of mails an address shares."""

import pytest

from otpmail.limits.mailboxes import mailbox_of


@pytest.mark.parametrize(
    ("address", "mailbox", "with_dots"),
    [
        ("ada@example.org", "ada@example.org", "ada@example.org"),
        ("ada+1@example.org", "ada@example.org", "ada@example.org"),
        ("ada+1+2@example.org", "ada@example.org", "ada@example.org"),
        ("a.da+1@gmail.com", "a.da@gmail.com", "ada@gmail.com"),
        ("a.d.a@googlemail.com", "a.d.a@googlemail.com", "ada@gmail.com"),
        ("a.da@example.org", "a.da@example.org", "a.da@example.org"),
        ("+ada@example.org", "+ada@example.org", "+ada@example.org"),
        ('"a+da"@example.org', '"a+da"@example.org', '"a+da"@example.org'),
        ("ada@exa+mple.org", "ada@exa+mple.org", "ada@exa+mple.org"),
    ],
)
def test_a_mailbox(address: str, mailbox: str, with_dots: str) -> None:
    """A tag is no part of the mailbox, and the dots of Gmail's addresses are none where that is set."""
    assert mailbox_of(address, gmail_dots=False) == mailbox
    assert mailbox_of(address, gmail_dots=True) == with_dots
