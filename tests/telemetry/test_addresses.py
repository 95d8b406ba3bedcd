"""How the log shows addresses."""

import subprocess
from time import process_time

import pytest

from otpmail.telemetry.addresses import Addresses


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("ada@example.org", "a***@example.org"),
        ("a@example.org", "a***@example.org"),
        ('"a@b c"@example.org', '"***@example.org'),
        ("пример@example.org", "п***@example.org"),
        ("@", "@***@"),
        ("nobody", "n***"),
        ("", "***"),
    ],
)
def test_a_masked_address_shows_one_character_and_the_domain(address: str, shown: str) -> None:
    """Of the local part one character is left, however short it is; what is no address shows less."""
    assert Addresses("masked").show(address) == shown


def test_a_hash_can_be_computed_by_hand() -> None:
    """The hash is the one that the command in docs/logs.md prints, in any case of the address."""
    command = "printf %s ada@example.org | sha256sum | cut -c1-16"
    printed = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=True, timeout=10)
    assert Addresses("hashed").show("Ada@Example.org") == printed.stdout.strip()


def test_addresses_in_the_words_of_a_relay_are_shown_in_the_same_form() -> None:
    """Each address in a reply takes the form of LOG_ADDRESSES, and nothing else of it changes."""
    said = "5.1.1 <ada@example.org>: no, try bob+x@b.example.org, or https://example.org/?e=eve@example.org."
    shown = "5.1.1 <a***@example.org>: no, try b***@b.example.org, or https://example.org/?e=eve@example.org."
    assert Addresses("full").within(said) == said
    masked = Addresses("masked").within(said)
    assert masked.startswith(shown[:50])
    assert "eve@" not in masked
    assert "ada" not in Addresses("hashed").within(said)


def test_no_words_take_long() -> None:
    """The time for a text grows with its length alone: 100 kB take milliseconds, and not the minutes of a square."""
    began = process_time()
    for words in ("a" * 100_000 + "@", "@" * 100_000, "a@" * 50_000, "a." * 50_000 + "@x"):
        Addresses("masked").within(words)
    assert process_time() - began < 2
