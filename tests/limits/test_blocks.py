"""The block of an end user's address."""

import pytest

from otpmail.limits.blocks import block_of


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:201", "192.0.2.1"),
        ("::ffff:192.0.2.1%eth0", "192.0.2.1"),
        ("64:ff9b::192.0.2.1", "192.0.2.1"),
        ("64:ff9b::192.0.2.1%eth0", "192.0.2.1"),
        ("64:ff9b:1::192.0.2.1", "64:ff9b:1::/64"),
        ("2002:c000:0201::1", "192.0.2.1"),
        ("2002:C000:201:ffff:1:2:3:4%eth0", "192.0.2.1"),
        ("2003:c000:201::1", "2003:c000:201::/64"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:0DB8:0001:0002:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
    ],
)
def test_a_block(text: str, block: str) -> None:
    """A block is an IPv4 address, however it is written, or the /64 of an IPv6 address."""
    assert block_of(text) == block


@pytest.mark.parametrize(
    "text",
    [
        *("192.0.2", "192.0.2.1/24", " 192.0.2.1", "192.0.2.1 ", "192.0.2.1\n", "2001:db8::g", "1" * 65, "localhost"),
        *("192.0.2.01", "0300.0.2.1", "0xc0000201", "3221225985", "192.0.2.256", "\uff11.0.2.1", "192.0.2.1%eth0"),
        *("192.0.2.1:443", "[2001:db8::1]", "[2001:db8::1]:443", "2001:db8::1/64", "2001:db8:::1", "fe80::1%", ""),
        *("192.0.2.1, 198.51.100.1", "unknown", "for=192.0.2.1", "::ffff:192.0.2.01", "unix:", "\0"),
    ],
)
def test_what_is_no_address(text: str) -> None:
    """Another text is refused."""
    with pytest.raises(ValueError, match=r".+"):
        block_of(text)
