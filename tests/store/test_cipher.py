"""The cipher of stored mails: what was sealed opens for its own purpose and mail alone, with any of the keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpmail.errors import StoreError
from otpmail.store.cipher import Cipher

OLD = {"k1": bytes(32)}
NEW = {"k2": bytes([7]) * 48}


@given(st.binary(), st.text(st.characters(codec="utf-8")))
def test_octets_come_back(octets: bytes, mail_id: str) -> None:
    """The cipher returns what it sealed, also in a process with further keys."""
    sealed = Cipher(OLD).seal(octets, "mail", mail_id)
    assert Cipher(NEW | OLD).open(sealed, "mail", mail_id) == octets


def test_no_two_seals_are_alike() -> None:
    """Neither two seals of one process nor the first ones of two processes share key and nonce."""
    ciphers = [Cipher(OLD), Cipher(OLD)]
    sealed = {cipher.seal(b"a link", "mail", "m1") for cipher in ciphers for _ in range(100)}
    assert len({octets[:32] for octets in sealed}) == 200
    assert len({octets[32:] for octets in sealed}) == 200
    assert repr(ciphers[0]) == "<Cipher 1 keys>"


@pytest.mark.parametrize(("purpose", "mail_id"), [("progress", "m1"), ("mail", "m2")])
def test_another_purpose_or_mail(purpose: str, mail_id: str) -> None:
    """Octets that stand in another place than they were sealed for are refused."""
    cipher = Cipher(OLD)
    with pytest.raises(StoreError, match="was changed"):
        cipher.open(cipher.seal(b"a link", "mail", "m1"), purpose, mail_id)


def test_octets_that_were_changed() -> None:
    """A change of any octet, or a cut at any place, is noticed."""
    cipher = Cipher(OLD)
    sealed = cipher.seal(b"a link", "mail", "m1")
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        for octets in (bytes(changed), sealed[:place]):
            with pytest.raises(StoreError):
                cipher.open(octets, "mail", "m1")


def test_a_key_that_is_gone() -> None:
    """The error names the key that OTP_KEYS lacks, and no key's octets."""
    with pytest.raises(StoreError, match="the key 'k1', which OTP_KEYS lacks"):
        Cipher(NEW).open(Cipher(OLD).seal(b"a link", "mail", "m1"), "mail", "m1")
    with pytest.raises(StoreError, match="the key 'k1' was"):
        Cipher({"k1": bytes([1]) * 32}).open(Cipher(OLD).seal(b"a link", "mail", "m1"), "mail", "m1")
