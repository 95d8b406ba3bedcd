"""Device tokens: by them a device is known at one address of one caller, for 180 days and as long as their key is."""

import base64

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from otpmail.code_record import STRANGERS
from otpmail.otp.codes import CodeBook
from otpmail.otp.devices import LIFE_SECONDS, DeviceTokens, new_device

NOW = 1_700_000_000.0
RECORD, DEVICE = b"the record of ad", b"a device"
KEY, OTHER = b"1" * 32, b"2" * 32


def test_a_token_names_its_device() -> None:
    """A token is good from its time on for 180 days."""
    tokens = DeviceTokens([KEY])
    token = tokens.make(RECORD, DEVICE, NOW + 0.9)
    for at in (NOW - 30, NOW, NOW + LIFE_SECONDS - 1):
        assert tokens.read(token, RECORD, at) == DEVICE
    for at in (NOW - 61, NOW + LIFE_SECONDS):
        assert tokens.read(token, RECORD, at) == STRANGERS
    assert DEVICE not in base64.urlsafe_b64decode(DeviceTokens([OTHER]).make(RECORD, bytes(8), NOW) + "=")
    assert len({new_device() for _ in range(100)}) == 100


@pytest.mark.parametrize("now", [2.0**32 - 1, 2.0**32, 2.0**32 + 5, 2.0**33 + 100])
def test_a_token_after_2106(now: float) -> None:
    """Seconds that 32 bits do not hold are no error, and a token is good for the same time then."""
    tokens = DeviceTokens([KEY])
    token = tokens.make(RECORD, DEVICE, now)
    assert len(token) == len(tokens.make(RECORD, DEVICE, NOW))
    for at in (now - 30, now, now + LIFE_SECONDS - 1):
        assert tokens.read(token, RECORD, at) == DEVICE
    for at in (now - 62, now + LIFE_SECONDS):
        assert tokens.read(token, RECORD, at) == STRANGERS


def test_a_token_is_for_one_address() -> None:
    """At another address, or for another caller, it is that of a stranger."""
    tokens = DeviceTokens([KEY])
    assert tokens.read(tokens.make(RECORD, DEVICE, NOW), b"the record of bo", NOW) == STRANGERS


def test_tokens_go_with_their_key() -> None:
    """A token is good as long as its key is among ours, and is revoked when that is dropped."""
    token = DeviceTokens([KEY]).make(RECORD, DEVICE, NOW)
    assert DeviceTokens([OTHER, KEY]).read(token, RECORD, NOW) == DEVICE
    assert DeviceTokens([OTHER]).read(token, RECORD, NOW) == STRANGERS


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "!" * 39,
        "A" * 39,
        "\u0416" * 39,
        "A" * 38 + "=",
        " " * 39,
        "A" * 40,
        "ZaCM3uogh2xUuWuFcjVc3KzJ2zPYjI3EG58n0Oc",
    ],
)
def test_another_text_is_a_strangers(token: str) -> None:
    """A text that is no token of ours is no error: revoked tokens can't be told from it."""
    assert DeviceTokens([KEY]).read(token, RECORD, NOW) == STRANGERS


def test_no_character_of_a_token_can_be_changed() -> None:
    """A token with any other octet in it is a stranger's."""
    tokens = DeviceTokens([KEY])
    octets = base64.urlsafe_b64decode(tokens.make(RECORD, DEVICE, NOW) + "=")
    for place in range(len(octets)):
        changed = octets[:place] + bytes([octets[place] ^ 1]) + octets[place + 1 :]
        assert tokens.read(base64.urlsafe_b64encode(changed).decode().rstrip("="), RECORD, NOW) == STRANGERS


def test_subkeys_are_those_of_hkdf() -> None:
    """A key for a purpose is what HKDF-SHA256 (RFC 5869) derives without a salt."""
    book = CodeBook({"k1": KEY, "k2": OTHER}, digits=6)
    expected = [HKDF(SHA256(), 32, None, b"purpose").derive(key) for key in (KEY, OTHER)]
    assert book.subkeys(b"purpose") == expected
    assert book.subkeys(b"other") != expected
