"""Takes a person whom a caller wants forgotten out of settled mails."""

import hashlib
from collections.abc import Callable
from dataclasses import field, replace

from otpmail.address import Address
from otpmail.model import Mail
from otpmail.store import codec
from otpmail.values import frozen


@frozen()
class Erased:
    """A settled mail without a person: its id, and the octets to keep."""

    mail_id: str
    octets: bytes = field(repr=False)


def person_of(caller: str, address: str) -> bytes:
    """Return the digest that stands for an address at a caller: the key of its codes too (`otp.request.find_place`)."""
    return hashlib.blake2b(f"{caller}\0{Address(address).key}".encode(), digest_size=16).digest()


def without(mail: Mail, is_gone: Callable[[str], bool]) -> Mail | None:
    """Return a settled mail without the recipients who are gone, None where it has none of them."""
    others = tuple([one for one in mail.recipients if not is_gone(one.address)])
    if len(others) == len(mail.recipients):
        return None
    issued = None if mail.issued is None else replace(mail.issued, record=b"")
    return replace(mail, recipients=others, labels=(), issued=issued)


def erased(octets: bytes, person: bytes) -> Erased | None:
    """Return a settled mail without a person, None where it has nothing of them.

    The recipient goes with the relay's reply, and so do the labels and the key of the code's record. The id and the
    state stay with the request id, so that no repeated call sends the mail again.
    """
    mail, forgotten, request_ends, fingerprint = codec.decode_settled(octets)
    left = without(mail, lambda address: person_of(mail.caller, address) == person)
    if left is None:
        return None
    kept = codec.encode_settled(left, forgotten=forgotten, request_ends=request_ends, fingerprint=fingerprint)
    return Erased(mail.id, kept)
