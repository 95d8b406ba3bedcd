"""Addresses that behave as the mailbox they name."""

import pytest

from otpmail.dev.failing import is_spared, reply_for, reply_to


@pytest.mark.parametrize(
    ("address", "reply"),
    [
        ("550@fail.example", "550 5.1.1 there is no such mailbox"),
        ("452+ada@FAIL.example", "452 4.2.2 the mailbox is full"),
        ("571@fail.example", "571 5.0.0 as it was asked to"),
    ],
)
def test_an_address_names_its_reply(address: str, reply: str) -> None:
    """The local part of an address at fail.example is the code of the reply; what follows a plus sign is left out."""
    assert reply_to(address) == reply


@pytest.mark.parametrize(
    "address", ["ada@fail.example", "250@fail.example", "550@example.org", "5500@fail.example", "550@a.fail.example"]
)
def test_other_addresses_are_taken(address: str) -> None:
    """Every other address is an ordinary mailbox."""
    assert reply_to(address) is None


def test_a_reply_has_its_class() -> None:
    """A code without words of its own has an enhanced code of its class."""
    assert reply_for(499) == "499 4.0.0 as it was asked to"


def test_an_address_is_suppressed_where_it_asks_for_that() -> None:
    """An address that fails does so each time, unless its tag says that it is to be suppressed."""
    assert is_spared("550@fail.example")
    assert is_spared("550+ada@fail.example")
    assert not is_spared("550+suppressed@FAIL.example")
    assert not is_spared("ada@example.org")
