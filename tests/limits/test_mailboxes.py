"""The mailbox whose limits of mails an address shares."""

import pytest

from otpmail.address import parse_address
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
        ('"ada+ 1"@example.org', "ada@example.org", "ada@example.org"),
        (r'"ada+\"\\"@example.org', "ada@example.org", "ada@example.org"),
        ('"ada..b+1"@example.org', '"ada..b"@example.org', '"ada..b"@example.org'),
        (r'"a \"b+1"@example.org', r'"a \"b"@example.org', r'"a \"b"@example.org'),
        ('"+a b"@example.org', '"+a b"@example.org', '"+a b"@example.org'),
        ('"a.d..a+ 1"@gmail.com', '"a.d..a"@gmail.com', "ada@gmail.com"),
        ('".."@gmail.com', '".."@gmail.com', '".."@gmail.com'),
        ("ada@exa+mple.org", "ada@exa+mple.org", "ada@exa+mple.org"),
    ],
)
def test_a_mailbox(address: str, mailbox: str, with_dots: str) -> None:
    """A tag is no part of the mailbox, in quotes neither, and dots of Gmail's addresses are none where that is set."""
    assert mailbox_of(address, gmail_dots=False) == mailbox
    assert mailbox_of(address, gmail_dots=True) == with_dots


@pytest.mark.parametrize(
    "address", ["ada@example.org", '"a b"@example.org', '"ada..b"@docomo.example', "j\xfcrgen.x@example.org"]
)
@pytest.mark.parametrize("tag", ["1", "", " ", "a b", r"\"", "..", "x.", "+"])
def test_no_tag_is_another_mailbox(address: str, tag: str) -> None:
    """Whatever follows the plus sign, in quotes where it needs them, the mailbox is that of the address without it."""
    local, _, domain = address.rpartition("@")
    bare = local.strip('"')
    needs_quotes = address.startswith('"') or not tag.isalnum()
    tagged = f'"{bare}+{tag}"@{domain}' if needs_quotes and address.isascii() else f"{bare}+1@{domain}"
    assert mailbox_of(parse_address(tagged, "email").key, gmail_dots=False) == parse_address(address, "email").key
